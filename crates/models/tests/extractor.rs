//! The feature CNN: its convolution against candle's, its gradients against differences, its training.

use candle_core::{DType, Device, Result, Tensor};
use manifest::extractor::{ExtractorConfig, Target};
use models::extractor::{Extractor, feature_count, initial_weights, named_shapes};
use models::weights::{Tensors, constants, gradients, variables};
use random::{Draws, Stream};

fn config() -> ExtractorConfig {
    ExtractorConfig {
        name: "tiny".to_owned(),
        image_size: 9,
        channels: 2,
        widths: vec![3, 4, 5],
        target: Target::Factors,
    }
}

fn images(count: usize, config: &ExtractorConfig) -> Tensor {
    let shape = (count, config.channels, config.image_size, config.image_size);
    let mut values = vec![0.0; shape.0 * shape.1 * shape.2 * shape.3];
    Draws::new(9, Stream::TrainNoise, 0).fill_normal(0, &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

#[test]
fn features_are_those_of_strided_convolutions() {
    let config = config();
    let tensors = constants(&initial_weights(&config, 4, 1), DType::F32, &Device::Cpu).unwrap();
    let network = Extractor::new(&config, 4, &tensors).unwrap();
    let x = images(3, &config);
    let theirs = || -> Result<Tensor> {
        let mut x = x.clone();
        for i in 0..config.widths.len() {
            let bias = tensors[&format!("convolutions.{i}.bias")].reshape((1, (), 1, 1))?;
            let weight = &tensors[&format!("convolutions.{i}.weight")];
            x = x.conv2d(weight, 1, if i == 0 { 1 } else { 2 }, 1, 1)?.broadcast_add(&bias)?.silu()?;
        }
        let x = x.flatten_from(2)?;
        let mean = x.mean_keepdim(2)?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean(2)?;
        Tensor::cat(&[mean.squeeze(2)?, (variance + 1e-5)?.sqrt()?], 1)
    };
    let (ours, theirs) = (network.features(&x).unwrap(), theirs().unwrap());
    assert_eq!(ours.dims(), [3, feature_count(&config)]);
    let apart = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(apart < 1e-6, "{apart:e}");
}

#[test]
fn gradients_agree_with_differences() {
    let config = config();
    let start = constants(&initial_weights(&config, 2, 1), DType::F64, &Device::Cpu).unwrap();
    let x = images(2, &config).to_dtype(DType::F64).unwrap();
    let loss = |tensors: &Tensors| -> Result<Tensor> {
        let network = Extractor::new(&config, 2, tensors)?;
        network.head(&network.features(&x)?)?.sqr()?.sum_all()
    };
    let learning = variables(&initial_weights(&config, 2, 1), DType::F64, &Device::Cpu).unwrap();
    let gradient = gradients(&loss(&learning).unwrap(), &learning).unwrap();
    for (number, (name, shape)) in named_shapes(&config, 2).into_iter().enumerate() {
        let mut direction = vec![0.0; shape.iter().product()];
        Draws::new(3, Stream::TrainNoise, number as u64).fill_normal(0, &mut direction);
        let direction = Tensor::from_vec(direction, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let at = |step: f64| {
            let mut tensors = start.clone();
            tensors.insert(name.clone(), (&start[&name] + (&direction * step).unwrap()).unwrap());
            loss(&tensors).unwrap().to_scalar::<f64>().unwrap()
        };
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        let ours = (&gradient[&name] * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((ours - slope).abs() < 1e-7 * slope.abs().max(1e-2), "{name}: {ours} against {slope}");
    }
}

#[test]
fn a_few_steps_reduce_the_loss() {
    let config = config();
    let x = images(16, &config);
    let target = x.narrow(1, 0, 1).unwrap().flatten_from(1).unwrap().max_keepdim(1).unwrap();
    let mut weights = initial_weights(&config, 1, 2);
    let mut losses = Vec::new();
    for _ in 0..30 {
        let tensors = variables(&weights, DType::F32, &Device::Cpu).unwrap();
        let network = Extractor::new(&config, 1, &tensors).unwrap();
        let error = (network.head(&network.features(&x).unwrap()).unwrap() - &target).unwrap();
        let loss = error.sqr().unwrap().mean_all().unwrap();
        losses.push(loss.to_scalar::<f32>().unwrap());
        for (name, gradient) in gradients(&loss, &tensors).unwrap() {
            let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
            let values = &mut weights.get_mut(&name).unwrap().values;
            values.iter_mut().zip(gradient).for_each(|(v, g)| *v -= 0.02 * g);
        }
    }
    assert!(losses[29] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn images_of_another_size_are_refused() {
    let config = config();
    let tensors = constants(&initial_weights(&config, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let network = Extractor::new(&config, 1, &tensors).unwrap();
    let larger = ExtractorConfig { image_size: 16, ..config.clone() };
    assert!(network.features(&images(1, &larger)).is_err());
    let smaller = ExtractorConfig { image_size: 5, ..config };
    assert!(network.features(&images(1, &smaller)).is_err());
}
