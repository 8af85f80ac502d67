//! The network against pytorch-fid (goldens, group e).

use candle_core::{DType, Device, Tensor};
use goldens::{Array, Golden, assert_close};
use serde_json::Value;

use super::{FORMULA_SEED, Inception, formula_weights, named_shapes, normalised, resized};
use crate::formula::splitmix;
use crate::weights::{self, Weights, constants};

/// Tolerance of the goldens' README.
const TOLERANCE: f64 = 1e-5;

fn seed(golden: &Golden, key: &str, default: u64) -> u64 {
    golden.config()[key].as_u64().unwrap_or(default)
}

fn weights(golden: &Golden) -> Weights {
    formula_weights(seed(golden, "inception_seed", FORMULA_SEED)).unwrap()
}

/// Image formula of the goldens' README: `count` images of `height` x `width`.
fn images(seed: u64, count: u64, height: u64, width: u64) -> Tensor {
    let value = |flat: u64| {
        let (x, y, c, n) =
            (flat % width, flat / width % height, flat / (width * height) % 3, flat / (3 * width * height));
        let noise = splitmix(seed, flat) >> 58;
        (x * (n + 2) * 256 / width + y * (c + 1) * 256 / height + 40 * c + noise) as u8
    };
    let pixels: Vec<u8> = (0..count * 3 * height * width).map(value).collect();
    Tensor::from_vec(pixels, (count as usize, 3, height as usize, width as usize), &Device::Cpu).unwrap()
}

/// Label, number, height and width of each set of images.
fn sets(golden: &Golden) -> Vec<(String, u64, u64, u64)> {
    let Some(sets) = golden.config()["images"].as_array() else {
        return vec![
            ("s64".to_owned(), 4, 64, 64),
            ("s299".to_owned(), 2, 299, 299),
            ("s320x400".to_owned(), 1, 320, 400),
        ];
    };
    let number = |v: &Value| v.as_u64().unwrap();
    sets.iter().map(|s| (s[0].as_str().unwrap().to_owned(), number(&s[1]), number(&s[2]), number(&s[3]))).collect()
}

fn check(golden: &Golden, name: &str, ours: &Tensor) {
    let theirs: Array = golden.get(name);
    assert_eq!(ours.dims(), theirs.shape, "{name}");
    let ours: Vec<f32> = ours.flatten_all().unwrap().to_vec1().unwrap();
    assert_close(name, &ours, &theirs, TOLERANCE);
}

#[test]
fn formula_weights_tensor_by_tensor() {
    assert_eq!(splitmix(FORMULA_SEED, 0), 0x4ef8_7839_8ba1_b064);
    let golden = Golden::open("fid_inception");
    let weights = weights(&golden);
    let names: Vec<String> = serde_json::from_str(golden.metadata("names").unwrap()).unwrap();
    assert!(weights.keys().eq(&names));
    let (first, sums) = (golden.get("weights.first").f32(), golden.get("weights.sum_f64").values);
    for ((name, tensor), (first, sum)) in weights.iter().zip(first.into_iter().zip(sums)) {
        assert_eq!(tensor.values[0], first, "{name}");
        let ours: f64 = tensor.values.iter().map(|&v| f64::from(v)).sum();
        assert!((ours - sum).abs() <= 1e-9 * sum.abs().max(1.0), "{name}: {ours} against {sum}");
    }
}

#[test]
fn names_and_shapes_are_those_of_the_state_dict() {
    let keys: Value = serde_json::from_str(&goldens::model_keys()).unwrap();
    let theirs = keys["fid-inception-v3"]["tensors"].as_object().unwrap();
    let shapes = named_shapes().unwrap();
    assert_eq!(shapes.len(), theirs.keys().filter(|name| !name.ends_with("num_batches_tracked")).count());
    for (name, shape) in &shapes {
        assert_eq!(serde_json::to_value(shape).unwrap(), theirs[name], "{name}");
    }
    weights::check("formula".as_ref(), &formula_weights(1).unwrap(), &shapes).unwrap();
}

#[test]
fn features_of_every_size() {
    let golden = Golden::open("fid_inception");
    let network = Inception::new(&constants(&weights(&golden), DType::F32, &Device::Cpu).unwrap()).unwrap();
    for (set, count, height, width) in sets(&golden) {
        let name = |part: &str| format!("{set}.{part}");
        let pixels = images(seed(&golden, "image_seed", 7), count, height, width);
        let sum: f64 = golden.get(&name("images_sum")).scalar();
        let ours = pixels.to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert_eq!(ours, sum, "{set}: images");

        let x = resized(&normalised(&pixels).unwrap()).unwrap();
        let cut = |from: [usize; 2], size| x.narrow(2, from[0], size).unwrap().narrow(3, from[1], size).unwrap();
        check(&golden, &name("resized_normalised_crop"), &cut([100, 60], 16));
        check(&golden, &name("resized_normalised_corner"), &cut([0, 0], 8));

        let features = network.features(&x).unwrap();
        check(&golden, &name("pool64"), &features.pool64);
        check(&golden, &name("pool192"), &features.pool192);
        check(&golden, &name("pool768"), &features.pool768);
        check(&golden, &name("pool2048"), &features.pool2048);
        check(&golden, &name("sfid2023"), &features.spatial);
        check(&golden, &name("logits1008"), &network.logits(&features.pool2048).unwrap());
        check(&golden, &name("logits1008_no_bias"), &network.logits_without_bias(&features.pool2048).unwrap());
    }
}

#[test]
fn images_of_another_kind_are_refused() {
    let network = Inception::new(&constants(&formula_weights(1).unwrap(), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let zeros = |shape: [usize; 4]| Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap();
    assert!(network.features(&zeros([1, 1, 299, 299])).is_err());
    assert!(network.features(&zeros([1, 3, 64, 64])).unwrap_err().to_string().contains("window"));
}
