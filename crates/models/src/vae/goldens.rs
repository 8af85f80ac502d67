//! The autoencoder against diffusers (goldens, group g) and its full list of tensors.

use candle_core::{DType, Device, Tensor};
use goldens::{Golden, assert_close};
use serde_json::Value;

use super::{LATENT_SCALE, Vae, VaeConfig, named_shapes};
use crate::layers::{Directly, FeatureMap};
use crate::weights::{self, Weights, constants, names::Family};

/// Tolerance of the goldens' README.
const TOLERANCE: f64 = 1e-5;

/// The shape as the file's tensors show it; only the groups are said elsewhere (README of the goldens).
fn config(golden: &Golden) -> VaeConfig {
    let shape = |name: String| golden.find(&name).map(|array| array.shape);
    let width = |i| shape(format!("sd.encoder.down_blocks.{i}.resnets.0.conv1.weight")).map(|shape| shape[0]);
    let block = |i: usize| shape(format!("sd.encoder.down_blocks.0.resnets.{i}.conv1.weight"));
    VaeConfig {
        image_channels: golden.get("in.image").shape[1],
        latent_channels: golden.get("in.latent").shape[1],
        widths: (0..).map_while(width).collect(),
        depth: (0..).map_while(block).count(),
        groups: 8,
    }
}

fn state(golden: &Golden) -> Weights {
    let state = golden.group("sd.").into_iter();
    state.map(|(name, array)| (name, weights::Tensor { values: array.f32(), shape: array.shape })).collect()
}

fn input(golden: &Golden, name: &str) -> Tensor {
    let array = golden.get(name);
    Tensor::from_vec(array.f32(), array.shape, &Device::Cpu).unwrap()
}

fn check(golden: &Golden, name: &str, ours: &Tensor) {
    let theirs = golden.get(name);
    assert_eq!(ours.dims(), theirs.shape, "{name}");
    assert_close(name, &ours.flatten_all().unwrap().to_vec1().unwrap(), &theirs, TOLERANCE);
}

#[test]
fn latents_and_images() {
    let golden = Golden::open("vae_tiny");
    let config = config(&golden);
    let state = state(&golden);
    weights::check("vae_tiny".as_ref(), &state, &named_shapes(&config).unwrap()).unwrap();
    let vae = Vae::new(&config, &constants(&state, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let (image, latent) = (input(&golden, "in.image"), input(&golden, "in.latent"));

    let coded = vae.encoder.forward(&mut Directly, &FeatureMap::from_image(&image).unwrap()).unwrap();
    check(&golden, "out.encoder", &coded.to_image().unwrap());
    check(&golden, "out.moments", &vae.quant.forward(&coded).unwrap().to_image().unwrap());
    let moments = vae.encode(&image).unwrap();
    check(&golden, "out.mean", &moments.mean);
    check(&golden, "out.logvar", &moments.log_variance);
    check(&golden, "out.std", &moments.deviation().unwrap());
    check(&golden, "out.sample", &moments.sample(&input(&golden, "in.sample_noise")).unwrap());
    check(&golden, "out.mode_scaled", &(&moments.mean * LATENT_SCALE).unwrap());

    let map = vae.post_quant.forward(&FeatureMap::from_image(&latent).unwrap()).unwrap();
    check(&golden, "out.decode_mid", &vae.decoder.middle(&mut Directly, &map).unwrap().to_image().unwrap());
    check(&golden, "out.decoded", &vae.decode(&latent).unwrap());
    check(&golden, "out.roundtrip", &vae.decode(&moments.mean).unwrap());
}

#[test]
fn variances_are_clamped() {
    let parameters = Tensor::new(&[[[[1_f32]], [[-1e9]]], [[[2.0]], [[1e9]]]], &Device::Cpu).unwrap();
    let moments = super::Moments::new(&parameters).unwrap();
    let values: Vec<f32> = moments.log_variance.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(values, [-30.0, 20.0]);
    assert!(super::Moments::new(&parameters.narrow(1, 0, 1).unwrap()).is_err());
}

fn published() -> (Value, Vec<(String, Vec<usize>)>) {
    let keys: Value = serde_json::from_str(&goldens::model_keys()).unwrap();
    (keys["sd-vae-ft-ema"].clone(), named_shapes(&VaeConfig::stable_diffusion()).unwrap())
}

#[test]
fn names_shapes_and_count_of_the_full_size() {
    let (theirs, ours) = published();
    let count: usize = ours.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(count as u64, theirs["parameters"].as_u64().unwrap());
    assert_eq!(ours.len(), theirs["tensors"].as_object().unwrap().len());
    for (name, shape) in ours {
        assert_eq!(serde_json::to_value(shape).unwrap(), theirs["tensors"][&name], "{name}");
    }
}

#[test]
fn files_with_the_older_names_fit_too() {
    let (_, shapes) = published();
    let named = |rename: &dyn Fn(&str) -> String| -> Weights {
        shapes
            .iter()
            .map(|(name, shape)| (rename(name), weights::Tensor { shape: shape.clone(), values: vec![] }))
            .collect()
    };
    let old = named(&|name| {
        let name = name.replace(".to_q.", ".query.").replace(".to_k.", ".key.").replace(".to_v.", ".value.");
        name.replace(".to_out.0.", ".proj_attn.")
    });
    assert!(weights::check("old".as_ref(), &old, &shapes).is_err());
    let translated = |weights: Weights| -> Weights {
        let names: Vec<&str> = weights.keys().map(String::as_str).collect();
        let names = Family::Vae.translate(&names);
        names.into_iter().map(|name| name.unwrap()).zip(weights.into_values()).collect()
    };
    weights::check("renamed".as_ref(), &translated(old), &shapes).unwrap();
    weights::check("current".as_ref(), &translated(named(&str::to_owned)), &shapes).unwrap();
}
