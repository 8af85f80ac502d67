//! Names of tensors in published files.

use crate::weights::Weights;

/// Names of the attention's tensors in files written before diffusers 0.19, and today's.
const RENAMED: [(&str, &str); 4] = [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];

/// The same weights under the names that [`super::Vae`] reads: the published files of Stable Diffusion's autoencoder
/// call the attention's projections `query`, `key`, `value` and `proj_attn`. Current names stay.
pub fn with_current_names(weights: Weights) -> Weights {
    weights.into_iter().map(|(name, tensor)| (current(&name).unwrap_or(name), tensor)).collect()
}

/// The current name, if `name` is an old one.
fn current(name: &str) -> Option<String> {
    let (layer, parameter) = name.rsplit_once('.')?;
    let (attention, projection) = layer.rsplit_once('.')?;
    let (_, new) = RENAMED.iter().find(|(old, _)| *old == projection)?;
    attention.contains(".attentions.").then(|| format!("{attention}.{new}.{parameter}"))
}
