//! The main path of this crate: a repository's `experiments/`, from names on the command line to a [`Plan`].

use std::env;
use std::path::{Path, PathBuf};

use crate::artifact::parse_overrides;
use crate::digest::Digest;
use crate::files::Files;
use crate::gather::{Gather, Training};
use crate::lookup::{HashFile, Lookup};
use crate::plan::Plan;
use crate::problem::{Error, Place, Problems};
use crate::published::Published;
use crate::recipe::{Base, Pretraining, Recipe};
use crate::stages::Stages;

/// A repository with its folder `experiments`, and where data is looked for.
pub struct Workspace {
    pub(crate) files: Files,
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
        if self.files.has_key(&path, "count") {
            let message = "is a table of sizes, nothing of it is run; `runner report` writes it";
            return Err(Error::at(&typed_name(name), message));
        }
        match self.files.has_key(&path, "recipe") {
            true => self.load_recipe(name, &request.overrides),
            false => self.load_artifact(name, request),
        }
    }

    /// Plans a recipe, by name (`tiny-backbone`) or path. That of a UNet which is not trained here has no stages.
    pub fn load_recipe(&self, name: &str, overrides: &[String]) -> Result<Plan, Error> {
        let mut problems = Problems::default();
        let overrides = parse_overrides(overrides, &mut problems);
        problems.finish(())?;
        let loaded = self.files.recipe(name, &typed_name(name), &overrides)?;
        let mut gather = self.gather();
        let node = &loaded.node;
        let mut backbone = |base: &Base, training: &Pretraining| {
            Training::backbone(base, training, node, &training.numerics, &mut gather)
        };
        let (title, training) = match &loaded.value {
            Recipe::Backbone(recipe) => (&recipe.title, Some(backbone(&recipe.base(), &recipe.training()))),
            Recipe::Unet(recipe) => {
                (&recipe.title, recipe.training.as_ref().map(|training| backbone(&recipe.base(false), training)))
            }
            Recipe::Extractor(recipe) => {
                (&recipe.title, Some(Training::extractor(recipe, node, &recipe.numerics, &mut gather)))
            }
        };
        gather.finish()?;
        let (artifact, title) = (stem(&loaded.file), title.clone());
        let mut stages = Stages::default();
        training.map(|training| training.plan(&mut stages)).transpose()?;
        let (file, stages) = (loaded.file.into(), stages.into_vec());
        let (scale_name, tables, not_run) = (String::new(), Vec::new(), Vec::new());
        Ok(Plan { artifact, title, file, scale_name, tables, not_run, missing: None, stages })
    }

    pub(crate) fn gather(&self) -> Gather<'_> {
        // A mistake in what is published is said where it is listed or fetched.
        let published = self.published().unwrap_or_default();
        Gather { lookup: Lookup { folders: &self.data_folders, hash: &*self.hash, published }, missing: Vec::new() }
    }
}

/// `$DMP_DATA`.
fn data_folder() -> Option<PathBuf> {
    env::var_os("DMP_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// A name typed on the command line is its own place.
pub(crate) fn typed_name(name: &str) -> Place {
    Place::Option(name.into())
}

/// `tiny` of `tiny` and of `experiments/scales/tiny.yaml`.
pub(crate) fn stem(name: &str) -> String {
    Path::new(name).file_stem().map_or(name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}
