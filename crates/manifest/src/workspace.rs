//! The main path of this crate: a repository's `experiments/`, from names on the command line to a [`Plan`].

use std::env;
use std::path::{Path, PathBuf};

use crate::chain::Chains;
use crate::digest::Digest;
use crate::expand::expand;
use crate::files::{Files, Loaded, typed};
use crate::gather::{Gather, Training};
use crate::lookup::{HashFile, Lookup};
use crate::manifest::Manifest;
use crate::networks::Networks;
use crate::overrides::Override;
use crate::plan::{Plan, Table};
use crate::problem::{Error, Place, Problems};
use crate::published::Published;
use crate::recipe::Recipe;
use crate::scale::Scale;
use crate::{schema, table};

/// A repository with its folder `experiments`, and where data is looked for.
pub struct Workspace {
    files: Files,
    data_folders: Vec<PathBuf>,
    hash: Box<HashFile>,
}

/// What is asked of a manifest on the command line.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Name of a scale, or the path of its file.
    pub scale: String,
    /// `path=value` each: keys of the scale, or of the method below `method`; `method.preset=official-code` changes the preset.
    pub overrides: Vec<String>,
    /// Training seeds instead of the scale's.
    pub seeds: Option<Vec<u64>>,
}

impl Workspace {
    /// The repository at `root`. Data is looked for under `$DMP_DATA`, `../shared/datasets` and the root, in this order.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        if !root.join("experiments").is_dir() {
            let message = "has no folder `experiments`; run this inside the repository or name it with `--root`";
            let place = Place::Option(root.display().to_string().into());
            return Err(Error::at(&place, message));
        }
        let data_folders = data_folder().into_iter().chain([root.join("../shared/datasets"), root.clone()]).collect();
        Ok(Self { files: Files { root }, data_folders, hash: Box::new(Digest::of_file) })
    }

    /// The repository around a folder: the nearest folder above (or the folder itself) that holds `experiments`.
    pub fn find(start: &Path) -> Result<Self, Error> {
        let root = start.ancestors().find(|folder| folder.join("experiments").is_dir());
        Self::open(root.unwrap_or(start))
    }

    /// The same repository with other folders for data.
    pub fn with_data_folders(self, data_folders: Vec<PathBuf>) -> Self {
        Self { data_folders, ..self }
    }

    /// The same repository with another way to hash files (a cache).
    pub fn with_hash(self, hash: Box<HashFile>) -> Self {
        Self { hash, ..self }
    }

    /// The repository's root.
    pub fn root(&self) -> &Path {
        &self.files.root
    }

    /// Folders in which data and weights are looked for, in this order.
    pub fn data_folders(&self) -> &[PathBuf] {
        &self.data_folders
    }

    /// Where fetched files belong: `$DMP_DATA`, or the root.
    pub fn download_folder(&self) -> PathBuf {
        data_folder().unwrap_or_else(|| self.files.root.clone())
    }

    /// What others publish: `experiments/published.yaml`.
    pub fn published(&self) -> Result<Published, Error> {
        self.files.published()
    }

    /// Names of all artifacts.
    pub fn artifacts(&self) -> Vec<String> {
        self.files.names_with("artifact")
    }

    /// Names of all recipes.
    pub fn recipes(&self) -> Vec<String> {
        self.files.names_with("recipe")
    }

    /// Names of all scales.
    pub fn scales(&self) -> Vec<String> {
        self.files.names("scales")
    }

    /// Plans an artifact or a recipe, whichever the file is. A recipe has no scale and no seeds.
    pub fn load(&self, name: &str, request: &Request) -> Result<Plan, Error> {
        let names: Vec<_> = self.artifacts().into_iter().chain(self.recipes()).collect();
        let path = self.files.path(name, "", &names, &typed_name(name))?;
        match self.files.has_key(&path, "recipe") {
            true => self.load_recipe(name, &request.overrides),
            false => self.load_artifact(name, request),
        }
    }

    /// Plans every cell of an artifact, by name (`table4`) or path (`experiments/table4.yaml`).
    pub fn load_artifact(&self, name: &str, request: &Request) -> Result<Plan, Error> {
        let mut problems = Problems::default();
        let path = self.files.path(name, "", &self.artifacts(), &typed_name(name))?;
        let reach = Reach::of(parse_overrides(&request.overrides, &mut problems));
        let Some(manifest) = problems.keep(self.files.load::<Manifest>(&path))? else {
            return Err(problems.into_error());
        };
        let artifact = &manifest.value.artifact;
        if *artifact != stem(&manifest.file) {
            let message =
                format!("`artifact` must be `{}`, the name of the file, found `{artifact}`", stem(&manifest.file));
            problems.add(&manifest.node.place_of("artifact"), message);
        }
        let (preset_name, asked_at) = reach.preset(&manifest)?;
        let preset = problems.keep(self.files.preset(&preset_name, &asked_at))?;
        let on_scale = preset.iter().flat_map(|preset| Override::of_preset(&preset.node)).chain(reach.scale);
        let scale = problems.keep(self.scale(&request.scale, on_scale))?;
        let claims = problems.keep(self.files.claims())?;
        let (Some(preset), Some(scale), Some(claims)) = (preset, scale, claims) else {
            return Err(problems.into_error());
        };
        problems.finish(())?;

        let networks = Networks::load(&self.files, &scale)?;
        let expanded = expand(&manifest, &preset, &reach.method, &claims, &networks.backbone.value.dit)?;
        let extractor = networks.supported(&scale)?;
        let mut gather = self.gather();
        let inputs = networks.gather(&scale, &mut gather);
        gather.finish()?;
        let chains = Chains::new(&scale.value, &networks.backbone.value, extractor, inputs)?;

        let seeds = request.seeds.clone().unwrap_or_else(|| scale.value.seeds.clone());
        let planned = table::plan(&expanded, chains, &seeds)?;
        let table = Table {
            paper: manifest.value.paper,
            scale_name: stem(&request.scale),
            overrides: request.overrides.clone(),
            preset: preset_name,
            seeds,
            dit: networks.backbone.value.dit.clone(),
            diffusion: networks.backbone.value.diffusion.clone(),
            groups: table::groups(manifest.value.groups),
            cells: planned.cells,
            default_cell: planned.default_cell,
            positive_control: planned.positive_control,
            contrasts: planned.contrasts,
            reference: planned.reference,
            floor: planned.floor,
            scale: scale.value.clone(),
        };
        let Manifest { artifact, title, .. } = manifest.value;
        Ok(Plan { artifact, title, file: manifest.file.into(), table: Some(table), stages: planned.stages })
    }

    /// Plans a recipe, by name (`tiny-backbone`) or path.
    pub fn load_recipe(&self, name: &str, overrides: &[String]) -> Result<Plan, Error> {
        let mut problems = Problems::default();
        let overrides = parse_overrides(overrides, &mut problems);
        problems.finish(())?;
        let loaded = self.files.recipe(name, &typed_name(name), &overrides)?;
        let mut gather = self.gather();
        let (title, training) = match &loaded.value {
            Recipe::Backbone(recipe) => {
                (&recipe.title, Training::backbone(recipe, &loaded.node, &recipe.numerics, &mut gather))
            }
            Recipe::Extractor(recipe) => {
                (&recipe.title, Training::extractor(recipe, &loaded.node, &recipe.numerics, &mut gather))
            }
        };
        gather.finish()?;
        let (artifact, title) = (stem(&loaded.file), title.clone());
        Ok(Plan { artifact, title, file: loaded.file.into(), table: None, stages: vec![training.plan()?] })
    }

    fn gather(&self) -> Gather<'_> {
        Gather { lookup: Lookup { folders: &self.data_folders, hash: &*self.hash }, missing: Vec::new() }
    }

    /// A scale with overrides, by name or path.
    fn scale(&self, name: &str, overrides: impl Iterator<Item = Override>) -> Result<Loaded<Scale>, Error> {
        let place = Place::Option(format!("--scale {name}").into());
        let mut node = self.files.scale(name, &place)?;
        overrides.for_each(|one| one.put(&mut node));
        let value = typed(&node, &schema::scale(), "")?;
        Ok(Loaded { file: name.to_owned(), node, value })
    }
}

/// `$DMP_DATA`.
fn data_folder() -> Option<PathBuf> {
    env::var_os("DMP_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// A name typed on the command line is its own place.
fn typed_name(name: &str) -> Place {
    Place::Option(name.into())
}

/// `tiny` of `tiny` and of `experiments/scales/tiny.yaml`.
fn stem(name: &str) -> String {
    Path::new(name).file_stem().map_or(name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn parse_overrides(texts: &[String], problems: &mut Problems) -> Vec<Override> {
    let mut overrides = Vec::new();
    for text in texts {
        match Override::parse(text) {
            Ok(one) => overrides.push(one),
            Err(found) => problems.extend(found),
        }
    }
    overrides
}

/// Overrides by what they reach.
#[derive(Default)]
struct Reach {
    method: Vec<Override>,
    preset: Option<Override>,
    scale: Vec<Override>,
}

impl Reach {
    fn of(overrides: Vec<Override>) -> Self {
        let mut reach = Self::default();
        for one in overrides {
            match one.below_method() {
                Some("preset") => reach.preset = Some(one),
                Some(_) => reach.method.push(one),
                None => reach.scale.push(one),
            }
        }
        reach
    }

    /// The preset's name and where it was chosen.
    fn preset(&self, manifest: &Loaded<Manifest>) -> Result<(String, Place), Error> {
        match &self.preset {
            Some(one) => match one.value.text() {
                Some(name) => Ok((name.to_owned(), one.place.clone())),
                None => {
                    Err(Error::at(&one.place, format!("`method.preset` must be a name, found {}", one.value.value)))
                }
            },
            None => Ok((manifest.value.method.preset.clone(), manifest.node.place_of("method.preset"))),
        }
    }
}
