//! A table of sizes (Table 1): networks that are counted, and the claims on what DMP adds to them.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claim::Claim;
use crate::method::{Dmp, Method};
use crate::problem::Error;
use crate::workspace::{Workspace, typed_name};

/// `experiments/table1.yaml`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Its name, that of the file.
    pub count: String,
    /// Its title.
    pub title: String,
    /// Name of the preset whose DMP is counted.
    pub preset: String,
    /// The networks, in the order of the table.
    pub networks: IndexMap<String, Counted>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// Its published name (`DiT-B/2`).
    pub name: String,
    /// What it is.
    pub kind: NetworkKind,
    /// Number of its classes; an unconditional network has none.
    #[schemars(range(min = 1))]
    pub classes: Option<usize>,
    /// Its published size in millions, rounded: what the paper's shares are of.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rounded: f64,
    /// Id of the claim on its millions without DMP.
    pub base: Option<String>,
    /// Id of the claim on millions with DMP.
    pub whole: Option<String>,
    /// Id of the claim on what DMP adds, in percent.
    pub share: Option<String>,
}

/// What a counted network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// A diffusion transformer on latents of 32 x 32.
    Dit,
    /// Stable Diffusion's UNet on latents of 32 x 32.
    StableDiffusion,
}

/// A table of sizes with what it names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedCount {
    /// The table.
    pub count: Count,
    /// All claims, those that it names among them.
    pub claims: Vec<Claim>,
    /// The method whose size is counted.
    pub dmp: Dmp,
}

impl Workspace {
    /// Names of all tables of sizes.
    pub fn counts(&self) -> Vec<String> {
        self.files.names_with("count")
    }

    /// A table of sizes by name or path.
    pub fn load_count(&self, name: &str) -> Result<LoadedCount, Error> {
        let path = self.files.path(name, "", &self.counts(), &typed_name(name))?;
        let loaded = self.files.load::<Count>(&path)?;
        let claims = self.files.claims()?;
        let networks = loaded.node.descend("networks");
        for (id, network) in &loaded.value.networks {
            for (key, claim) in [("base", &network.base), ("whole", &network.whole), ("share", &network.share)] {
                if let Some(wanted) = claim
                    && !claims.iter().any(|claim| claim.id == *wanted)
                {
                    let place = networks.place_of(&format!("{id}.{key}"));
                    return Err(Error::at(&place, format!("unknown claim `{wanted}`")));
                }
            }
        }
        let place = loaded.node.place_of("preset");
        match self.files.preset(&loaded.value.preset, &place)?.value.method {
            Method::Dmp(dmp) => Ok(LoadedCount { count: loaded.value, claims, dmp }),
            _ => Err(Error::at(&place, "`preset` must be one of DMP: what it adds is counted")),
        }
    }
}
