//! What others publish and a scale may ask for: addresses, and the hashes that tell whether it is what came.

use std::path::{Component, Path};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::problem::Problems;
use crate::tree::Node;

/// `experiments/published.yaml`: datasets and weights by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Datasets.
    pub data: IndexMap<String, Publication>,
    /// Weights of networks.
    pub weights: IndexMap<String, Publication>,
}

/// A dataset or a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// What it is.
    pub title: String,
    /// Under which licence.
    pub licence: String,
    /// Its files.
    #[schemars(length(min = 1))]
    pub files: Vec<PublishedFile>,
}

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Where it is looked for, below a folder of data.
    pub file: String,
    /// Where it is published.
    pub url: String,
    /// Its length and content; `null` where they are not known here: then it is for its user to fetch.
    pub content: Option<Content>,
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its length.
    #[schemars(range(min = 1))]
    pub bytes: u64,
    /// Its hash.
    pub sha256: Digest,
}

impl Published {
    /// What gets a file: a command where its hash is pinned, its address where it is for its user to fetch; `None` where nobody
    /// publishes it.
    pub fn remedy(&self, file: &str) -> Option<String> {
        [("data", &self.data), ("weights", &self.weights)].into_iter().find_map(|(section, publications)| {
            publications.iter().find_map(|(name, publication)| {
                let found = publication.files.iter().find(|one| one.file == file)?;
                Some(match found.content {
                    Some(_) => format!("`runner {section} fetch {name}` gets it"),
                    None => format!("download {} there", found.url),
                })
            })
        })
    }

    /// Notes what no schema says: files lie below the folder of data, addresses are HTTP's.
    pub(crate) fn check(&self, node: &Node, problems: &mut Problems) {
        for (section, publications) in [("data", &self.data), ("weights", &self.weights)] {
            for (name, publication) in publications {
                let items = node.descend(section).get(name).map_or(&[][..], |one| one.descend("files").items());
                for (PublishedFile { file, url, .. }, node) in publication.files.iter().zip(items) {
                    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
                    if file.is_empty() || !inside {
                        let message = format!("`file` must be a path below the folder of data, found `{file}`");
                        problems.add(&node.place_of("file"), message);
                    }
                    if !["https://", "http://"].iter().any(|scheme| url.starts_with(scheme)) {
                        let message = format!("`url` must begin with `https://` or `http://`, found `{url}`");
                        problems.add(&node.place_of("url"), message);
                    }
                }
            }
        }
    }
}
