//! Weights by formula.

use candle_core::Result;

use super::{VaeConfig, named_shapes};
use crate::formula;
use crate::weights::Weights;

/// All tensors of the network as a function of `seed`, each in the range that [`formula::by_fan_in`] gives it.
///
/// # Errors
/// The configuration fits no network.
pub fn formula_weights(config: &VaeConfig, seed: u64) -> Result<Weights> {
    Ok(formula::weights(named_shapes(config)?, seed, formula::by_fan_in))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::super::Vae;
    use super::*;
    use crate::formula::FORMULA_SEED;
    use crate::weights::constants;

    /// Latents and images of the size that those of trained weights have: neither vanish nor run away.
    #[test]
    fn signals_keep_their_size() {
        let config = VaeConfig { image_channels: 3, latent_channels: 4, widths: vec![8, 16, 16], depth: 2, groups: 4 };
        let weights = formula_weights(&config, FORMULA_SEED).unwrap();
        assert_ne!(weights, formula_weights(&config, FORMULA_SEED + 1).unwrap());
        let vae = Vae::new(&config, &constants(&weights, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let image = Tensor::rand(-1.0_f32, 1.0, (2, 3, 16, 16), &Device::Cpu).unwrap();
        let moments = vae.encode(&image).unwrap();
        let decoded = vae.decode(&moments.mean).unwrap();
        for (what, tensor) in [("mean", &moments.mean), ("logvar", &moments.log_variance), ("image", &decoded)] {
            let square = tensor.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
            assert!((0.01..10.0).contains(&square), "{what}: {square}");
        }
        assert_eq!(decoded.dims(), image.dims());
    }
}
