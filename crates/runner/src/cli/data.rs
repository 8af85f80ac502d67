//! `runner data` as typed.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Subcommand, ValueEnum};

/// What to do with datasets.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// List the datasets of `experiments/published.yaml`: what is there, and where.
    #[command(after_help = "Example:\n  runner data list")]
    List,
    /// Fetch datasets to `$DMP_DATA`, or to the root. A call that was cut short goes on where it ended.
    #[command(after_help = "Example:\n  runner data fetch fashion-mnist")]
    Fetch {
        /// Names of datasets, as `runner data list` shows them.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Hold a dataset against its pinned hashes, or decode every image of a folder or archive as training would.
    #[command(
        after_help = "Examples:\n  runner data check fashion-mnist\n  runner data check photographs\n  runner data check imagenet/train --as class_folders\n  runner data check coco/train2017 --captions captions_train2017.json\n  runner data check laion --as web_dataset\n  runner data check VIRTUAL_imagenet256_labeled.npz --as npz"
    )]
    Check {
        /// Name of a dataset, a folder of images (or shards), or an .npz; `./name` where both are called the same.
        #[arg(value_name = "NAME|PATH")]
        what: String,
        /// How the images are laid out.
        #[arg(long = "as", value_name = "KIND", value_enum, default_value_t = ImagesKind::ImageFolder)]
        kind: ImagesKind,
        /// The folder's images are those that this file of captions names.
        #[arg(long, value_name = "FILE")]
        captions: Option<PathBuf>,
        /// Side in pixels after resizing and centre crop.
        #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = side())]
        image_size: usize,
    },
}

/// How a folder of images is laid out; the names are those of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ImagesKind {
    /// Images, in any folders.
    ImageFolder,
    /// A folder for each class.
    ClassFolders,
    /// Tar shards of images and captions.
    WebDataset,
    /// An .npz of images, `arr_0`, all of `--image-size`.
    Npz,
}

/// A side in pixels.
fn side() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u16).range(1..=16384).map(usize::from)
}
