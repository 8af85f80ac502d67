//! Weights by formula.

use candle_core::Result;

use super::{UnetConfig, named_shapes};
use crate::formula;
use crate::weights::Weights;

/// All tensors of the network as a function of `seed`, each in the range that [`formula::by_fan_in`] gives it.
///
/// # Errors
/// The configuration fits no network.
pub fn formula_weights(config: &UnetConfig, seed: u64) -> Result<Weights> {
    Ok(formula::weights(named_shapes(config)?, seed, formula::by_fan_in))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::super::Unet;
    use super::*;
    use crate::Unpatched;
    use crate::formula::FORMULA_SEED;
    use crate::weights::constants;

    /// A prediction of the size that noise has, which timestep and caption decide: otherwise nothing that is tried on these
    /// weights would show anything.
    #[test]
    fn predictions_have_the_size_of_noise_and_listen() {
        let config = UnetConfig {
            image_size: 8,
            channels: 4,
            widths: vec![16, 32],
            attending: vec![true, false],
            depth: 1,
            context: 12,
            heads: 4,
            groups: 4,
            label_dropout: 0.1,
        };
        let weights = formula_weights(&config, FORMULA_SEED).unwrap();
        assert_ne!(weights, formula_weights(&config, FORMULA_SEED + 1).unwrap());
        let unet = Unet::new(&config, &constants(&weights, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let normal = |shape: &[usize]| Tensor::randn(0.0_f32, 1.0, shape, &Device::Cpu).unwrap();
        let (x, one, other) = (normal(&[1, 4, 8, 8]), normal(&[1, 5, 12]), normal(&[1, 5, 12]));
        let predict = |t: f32, context: &Tensor| {
            let t = Tensor::new(&[t], &Device::Cpu).unwrap();
            unet.forward(&x, &unet.condition(&t, context).unwrap(), &Unpatched).unwrap()
        };
        let size = |x: Tensor| x.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        let prediction = predict(10.0, &one);
        assert!((0.1..10.0).contains(&size(prediction.clone())));
        for changed in [predict(900.0, &one), predict(10.0, &other)] {
            let apart = size((changed - &prediction).unwrap());
            assert!(apart > 1e-3, "{apart}");
        }
    }
}
