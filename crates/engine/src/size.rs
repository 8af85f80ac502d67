//! How large networks are, and what a patch adds: parameters, operations and memory, counted from the definitions that run.

use anyhow::{Context, Result, bail};
use manifest::dit::DitConfig;
use manifest::gate::GateNoise;
use manifest::method::{Dmp, Method, Position};
use models::clip::TOKENS;
use models::count;
use models::unet::{self, PatchShape, UnetConfig};
use patches::{Initial, Trainable};

use crate::trunk::fast;

/// Side of a latent of 256 x 256 pixels.
const LATENT: usize = 32;

/// Sizes of a network and of the patch on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Parameters of the network.
    pub base: usize,
    /// Parameters of prompts and gate.
    pub patch: usize,
    /// Parameters of the gate's learned noise, which the released code has and the paper does not count.
    pub noise: usize,
    /// What one image costs.
    pub image: Image,
}

/// What one image costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Image {
    /// Operations of a forward pass: the matrix products as [`kernels::Shape::forward_flops`] and [`unet::cost`] count them.
    pub flops: f64,
    /// Operations that the patch adds: the gate once per block, weights times prompts, and their sum with the tokens.
    pub patch_flops: f64,
    /// Bytes of activations that a step with frozen weights keeps ([`kernels::Shape::kept_bytes`]) or, of the UNet, needs.
    pub kept: usize,
    /// Bytes that the patch adds: the gate's weights in every block.
    pub patch_kept: usize,
}

/// A diffusion transformer with and without DMP.
///
/// # Errors
/// The method has no prompts.
pub fn of_dit(dit: &DitConfig, dmp: &Dmp) -> Result<Size> {
    let with = |noise: GateNoise| {
        let mut dmp = dmp.clone();
        dmp.gate.noise = noise;
        patches::trainable(&Method::Dmp(dmp), dit)
    };
    let tensors = with(GateNoise::None);
    let prompts = tensors.iter().find(|tensor| tensor.name == patches::PROMPTS).context("the method has no prompts")?;
    let [blocks, count, _] = prompts.shape[..] else { bail!("prompts of shape {:?}", prompts.shape) };
    let patch = elements(&tensors);
    let shape = fast::shape(dit);
    Ok(Size {
        base: count::of_dit(dit),
        patch,
        noise: elements(&with(GateNoise::Learned)) - patch,
        image: Image {
            flops: shape.forward_flops(),
            patch_flops: mixing_flops(&tensors)?,
            kept: shape.kept_bytes(),
            patch_kept: size_of::<f32>() * blocks * count,
        },
    })
}

/// Operations of a forward pass of a transformer with a method, over those without: those of its patch, as [`of_dit`] counts them, and
/// those of a longer sequence where prompts stand in front of the tokens.
///
/// # Errors
/// The method's prompts have no sound shape.
pub fn operations(dit: &DitConfig, method: &Method) -> Result<f64> {
    let Some(prompts) = method.prompts() else { return Ok(1.0) };
    let tensors = patches::trainable(method, dit);
    let own: Vec<_> = tensors.into_iter().filter(|tensor| tensor.initial != Initial::Backbone).collect();
    let prefix = match prompts.position {
        Position::Add(_) => 0,
        Position::Prepend(_) => prompts.position.prompts(dit.tokens()),
    };
    let shape = fast::shape(dit);
    Ok((shape.prefixed_flops(prefix) + mixing_flops(&own)?) / shape.forward_flops())
}

/// Operations of a patch with these tensors: its gate once per block, as a linear one takes them (of attention, the products of
/// queries and keys are not among them), weights times prompts, their sum with the tokens.
fn mixing_flops(tensors: &[Trainable]) -> Result<f64> {
    let prompts = tensors.iter().find(|tensor| tensor.name == patches::PROMPTS).context("the method has no prompts")?;
    let [blocks, ..] = prompts.shape[..] else { bail!("prompts of shape {:?}", prompts.shape) };
    let gate = elements(tensors) - prompts.elements();
    Ok(2.0 * (blocks * gate + prompts.elements()) as f64)
}

fn elements(tensors: &[Trainable]) -> usize {
    tensors.iter().map(Trainable::elements).sum()
}

/// Stable Diffusion's UNet with and without the patch `prompt_per_block_input`, our reading of the paper.
///
/// # Errors
/// None in practice: the configuration is the published one.
pub fn of_stable_diffusion() -> Result<Size> {
    let config = UnetConfig::stable_diffusion();
    let patch = PatchShape::new(&config, LATENT, LATENT);
    // Noise on the gate's logits: one deviation per logit, from the timestep's embedding alone.
    let noise = (patch.gate_inputs - 1) * patch.gate_outputs;
    let cost = unet::cost(&config, LATENT, TOKENS)?;
    let blocks = patch.prompts.len();
    let image = Image {
        flops: cost.flops,
        patch_flops: 2.0 * (blocks * patch.gate_elements() + patch.prompt_elements()) as f64,
        kept: size_of::<f32>() * cost.kept,
        patch_kept: size_of::<f32>() * blocks * patch.gate_outputs,
    };
    Ok(Size { base: count::of_unet(&config)?, patch: patch.elements(), noise, image })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use manifest::Workspace;
    use manifest::method::{Add, Prepend, Pretrained};
    use serde_json::Value;

    use super::*;

    fn dmp() -> Dmp {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Workspace::open(root).unwrap().load_count("table1").unwrap().dmp
    }

    /// Against the authors' networks, counted by PyTorch.
    #[test]
    fn the_authors_networks_have_as_many_parameters() {
        let keys: Value = serde_json::from_str(&goldens::model_keys()).unwrap();
        let published = |name: &str| keys[name]["parameters"].as_u64().unwrap() as usize;
        for (name, classes, condition) in [
            ("DiT-B/2", None, "uncond"),
            ("DiT-B/2", Some(1000), "cond"),
            ("DiT-L/2", None, "uncond"),
            ("DiT-L/2", Some(1000), "cond"),
            ("DiT-XL/2", None, "uncond"),
            ("DiT-XL/2", Some(1000), "cond"),
        ] {
            let size = of_dit(&DitConfig::published(name, classes).unwrap(), &dmp()).unwrap();
            assert_eq!(size.base, published(&format!("{name}:{condition}:FT")), "{name}");
            let patched = published(&format!("{name}:{condition}:linear"));
            assert_eq!(size.base + size.patch + size.noise, patched, "{name}");
        }
        assert_eq!(of_stable_diffusion().unwrap().base, published("sd-v1-5-unet"));
    }

    /// `L N D + (D + 1) N + N`, and `D N` of noise; 1,576,960 + 1,312,768 for the UNet.
    #[test]
    fn what_the_patch_adds_by_hand() {
        for (name, patch, noise) in
            [("DiT-B/2", 2_556_416, 196_608), ("DiT-L/2", 6_554_112, 262_144), ("DiT-XL/2", 8_552_960, 294_912)]
        {
            let size = of_dit(&DitConfig::published(name, None).unwrap(), &dmp()).unwrap();
            assert_eq!((size.patch, size.noise), (patch, noise), "{name}");
            hardly_costs(size.image);
        }
        let size = of_stable_diffusion().unwrap();
        assert_eq!(size.patch, 2_889_728);
        hardly_costs(size.image);
    }

    /// 50 prompts in front of 256 tokens: each linear layer 306/256 as much, each product of pairs the square of that.
    #[test]
    fn prompts_in_front_make_the_sequence_longer_and_added_ones_do_not() {
        let dit = DitConfig::published("DiT-B/2", None).unwrap();
        let with = |position: Position| {
            let mut dmp = dmp();
            dmp.prompts.position = position;
            operations(&dit, &Method::Dmp(dmp)).unwrap()
        };
        let image = of_dit(&dit, &dmp()).unwrap().image;
        assert_eq!(with(Position::Add(Add {})), (image.flops + image.patch_flops) / image.flops);
        let (d, t) = (768.0, 256.0);
        let forward = |t: f64| 12.0 * (24.0 * t * d * d + 4.0 * t * t * d) + 2.0 * 256.0 * d * 48.0;
        let longer = forward(t + 50.0) / forward(t);
        let found = with(Position::Prepend(Prepend { per_256_tokens: 50 }));
        assert!(longer < found && found < longer + 1e-3, "{found} {longer}");
        assert_eq!(operations(&dit, &Method::Pretrained(Pretrained {})).unwrap(), 1.0);
    }

    /// What the paper says of operations and memory.
    fn hardly_costs(image: Image) {
        assert!(image.patch_flops / image.flops < 1e-3, "{image:?}");
        assert!((image.patch_kept as f64) / (image.kept as f64) < 1e-3, "{image:?}");
    }
}
