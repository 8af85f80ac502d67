//! Reads the files of `experiments/`: text to tree, extended scales merged, held against the schema, then typed.

use std::fs;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Schema;

use crate::check;
use crate::claim::{Claim, Claims};
use crate::overrides::Override;
use crate::preset::Preset;
use crate::problem::{Error, Place, Problems, allowed};
use crate::published::Published;
use crate::recipe::Recipe;
use crate::tree::{KindDefaults, Node};
use crate::validate::{self, Checked};
use crate::{read, schema, yaml};

/// A file as a tree (with places) and as its type.
pub(crate) struct Loaded<T> {
    pub(crate) file: String,
    pub(crate) node: Node,
    pub(crate) value: T,
}

/// The folder `experiments` of a repository.
pub(crate) struct Files {
    pub(crate) root: PathBuf,
}

impl Files {
    fn folder(&self, name: &str) -> PathBuf {
        self.root.join("experiments").join(name)
    }

    /// How a path is called in messages: relative to the root where it lies below it.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// Names of the YAML files of a folder of `experiments`, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder(folder)).into_iter().flatten().filter_map(Result::ok);
        let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "yaml"));
        let mut names: Vec<String> =
            paths.filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).collect();
        names.sort();
        names
    }

    /// Names of the files of `experiments` that have a top-level key (`artifact`, `recipe`).
    pub(crate) fn names_with(&self, key: &str) -> Vec<String> {
        let mut names = self.names("");
        names.retain(|name| self.has_key(&self.folder(&format!("{name}.yaml")), key));
        names
    }

    pub(crate) fn has_key(&self, path: &Path, key: &str) -> bool {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':')))
    }

    /// The path of a file that is named (`table4`) or given as a path (`experiments/table4.yaml`). `asked_at` is where.
    pub(crate) fn path(&self, name: &str, folder: &str, names: &[String], asked_at: &Place) -> Result<PathBuf, Error> {
        let named = self.folder(folder).join(format!("{name}.yaml"));
        let is_name = Path::new(name).components().count() == 1;
        if is_name && named.is_file() {
            return Ok(named);
        }
        let as_path = [PathBuf::from(name), self.root.join(name)];
        match as_path.into_iter().find(|path| path.is_file()) {
            Some(path) => Ok(self.below_root(&path)),
            None => {
                let hint = allowed(name, names.iter().map(String::as_str));
                let what = match is_name {
                    true => format!("`{name}` in {}", self.shown(&self.folder(folder))),
                    false => "such file".to_owned(),
                };
                Err(Error::at(asked_at, format!("there is no {what}{hint}")))
            }
        }
    }

    /// The same file, spelt through the root if it lies below it.
    fn below_root(&self, path: &Path) -> PathBuf {
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match canonical(path).strip_prefix(canonical(&self.root)) {
            Ok(relative) => self.root.join(relative),
            Err(_) => path.components().filter(|part| *part != Component::CurDir).collect(),
        }
    }

    pub(crate) fn tree(&self, path: &Path) -> Result<(String, Node), Error> {
        let file = self.shown(path);
        let text = fs::read_to_string(path).map_err(|error| {
            Error::at(&Place::file(&file.as_str().into(), 1, 1), format!("cannot be read: {error}"))
        })?;
        let node = read::file(&text, &file).map_err(Error::Invalid)?;
        Ok((file, node))
    }

    /// A file that stands alone.
    pub(crate) fn load<T: DeserializeOwned + JsonSchema>(&self, path: &Path) -> Result<Loaded<T>, Error> {
        let (file, node) = self.tree(path)?;
        let value = typed(&node, &schema::of::<T>(), "")?;
        Ok(Loaded { file, node, value })
    }

    /// A recipe by its name or path, with overrides, its values checked against each other.
    pub(crate) fn recipe(&self, name: &str, asked_at: &Place, overrides: &[Override]) -> Result<Loaded<Recipe>, Error> {
        let (file, mut node) = self.tree(&self.path(name, "", &self.names_with("recipe"), asked_at)?)?;
        overrides.iter().for_each(|one| one.put(&mut node));
        let value = typed(&node, &schema::of::<Recipe>(), "")?;
        let mut problems = Problems::default();
        let mut checked = Checked { node: &node, problems: &mut problems };
        match &value {
            Recipe::Backbone(recipe) => checked.backbone(recipe),
            Recipe::Unet(recipe) => checked.unet(recipe),
            Recipe::Extractor(recipe) => checked.extractor(recipe),
        }
        problems.finish(Loaded { file, node, value })
    }

    pub(crate) fn preset(&self, name: &str, asked_at: &Place) -> Result<Loaded<Preset>, Error> {
        self.load(&self.path(name, "presets", &self.names("presets"), asked_at)?)
    }

    /// What others publish; nothing where the repository has no such file.
    pub(crate) fn published(&self) -> Result<Published, Error> {
        let path = self.folder("published.yaml");
        if !path.exists() {
            return Ok(Published::default());
        }
        let Loaded { node, value, .. } = self.load::<Published>(&path)?;
        let mut problems = Problems::default();
        value.check(&node, &mut problems);
        problems.finish(value)
    }

    /// A scale's tree, merged over the scales that it extends, and under one of its settings; `None` where it has no
    /// such setting. Not checked yet, since overrides are still to come.
    pub(crate) fn scale(&self, name: &str, setting: Option<&str>, asked_at: &Place) -> Result<Option<Node>, Error> {
        let mut node = self.scale_over(name, asked_at, &mut Vec::new())?;
        let place = node.place.clone();
        let entries = node.map_mut().ok_or_else(|| Error::at(&place, "the file must be a map"))?;
        let settings = entries.shift_remove("settings");
        let Some(setting) = setting else { return Ok(Some(node)) };
        let Some(over) = settings.and_then(|settings| settings.node.get(setting).cloned()) else { return Ok(None) };
        node.merge(over, "", &KindDefaults::default());
        Ok(Some(node))
    }

    fn scale_over(&self, name: &str, asked_at: &Place, below: &mut Vec<PathBuf>) -> Result<Node, Error> {
        let path = self.path(name, "scales", &self.names("scales"), asked_at)?;
        if below.contains(&path) {
            return Err(Error::at(asked_at, format!("`{name}` extends itself")));
        }
        below.push(path.clone());
        let (_, mut node) = self.tree(&path)?;
        let place = node.place.clone();
        let entries = node.map_mut().ok_or_else(|| Error::at(&place, "the file must be a map"))?;
        let Some(extends) = entries.shift_remove("extends") else { return Ok(node) };
        let at = &extends.node.place;
        let parent = extends.node.text().ok_or_else(|| Error::at(at, "`extends` must be the name of a scale"))?;
        let mut merged = self.scale_over(parent, at, below)?;
        merged.merge(node, "", &KindDefaults::default());
        Ok(merged)
    }

    /// All claims, whose ids are unique and whose contrasts name claims and agree with their values.
    pub(crate) fn claims(&self) -> Result<Vec<Claim>, Error> {
        let mut problems = Problems::default();
        let mut claims = Vec::new();
        for name in self.names("claims") {
            let loaded = self.load::<Claims>(&self.folder("claims").join(format!("{name}.yaml")));
            let Some(Loaded { node, value, .. }) = problems.keep(loaded)? else { continue };
            claims.extend(value.claims.into_iter().zip(node.descend("claims").items().to_vec()));
        }
        validate::claims(&claims, &mut problems);
        problems.finish(claims.into_iter().map(|(claim, _)| claim).collect())
    }
}

/// Holds a tree against a schema, then gives it its type. `path` is how its root is called in messages.
pub(crate) fn typed<T: DeserializeOwned>(node: &Node, schema: &Schema, path: &str) -> Result<T, Error> {
    let mut problems = Problems::default();
    check::check(node, schema, path, &mut problems);
    problems.finish(())?;
    yaml::typed(node).map_err(|message| Error::at(&node.place, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::scale::Scale;

    /// Every way of losing or spoiling one character is an error or a value, never a panic.
    fn spoil<T: DeserializeOwned + JsonSchema>(text: &str) {
        let schema = schema::of::<T>();
        let whole = read::file(text, "f.yaml").unwrap_or_else(|problems| panic!("{problems:?}"));
        typed::<T>(&whole, &schema, "").unwrap_or_else(|error| panic!("{error}"));
        for (at, spoiled) in text.char_indices() {
            for other in ["", "\t", ":", "{", "]", "-", "\"", "&", "\0", "9", "é", "\n"] {
                let text = format!("{}{other}{}", &text[..at], &text[at + spoiled.len_utf8()..]);
                if let Ok(node) = read::file(&text, "f.yaml")
                    && let Err(error) = typed::<T>(&node, &schema, "")
                {
                    assert!(error.to_string().starts_with("f.yaml:"), "{error}");
                }
            }
        }
    }

    #[test]
    fn no_spoiled_character_makes_the_reader_panic() {
        spoil::<Scale>(include_str!("../tests/fixture/experiments/scales/s.yaml"));
        spoil::<Manifest>(include_str!("../tests/fixture/experiments/mini.yaml"));
    }
}
