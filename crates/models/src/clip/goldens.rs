//! The text encoder against an independent computation in double precision, and its full list of tensors.

use candle_core::{DType, Device, Tensor};
use goldens::{Golden, assert_close};
use serde_json::Value;

use super::{ClipText, ClipTextConfig, named_shapes};
use crate::weights::{self, Weights, constants};

fn open() -> (Golden, ClipText) {
    let golden = Golden::open("clip_text_tiny");
    let count = |key: &str| golden.config()[key].as_u64().unwrap() as usize;
    let config = ClipTextConfig {
        vocabulary: count("vocabulary"),
        positions: count("positions"),
        width: count("width"),
        depth: count("depth"),
        heads: count("heads"),
    };
    let state = golden.group("sd.").into_iter();
    let state: Weights =
        state.map(|(name, array)| (name, weights::Tensor { values: array.f32(), shape: array.shape })).collect();
    weights::check("clip_text_tiny".as_ref(), &state, &named_shapes(&config).unwrap()).unwrap();
    let clip = ClipText::new(&config, &constants(&state, DType::F32, &Device::Cpu).unwrap()).unwrap();
    (golden, clip)
}

fn ids(golden: &Golden) -> Tensor {
    let array = golden.get("in.ids");
    let ids: Vec<u32> = array.usize().into_iter().map(|id| id as u32).collect();
    Tensor::from_vec(ids, array.shape, &Device::Cpu).unwrap()
}

#[test]
fn tokens_and_pooled() {
    let (golden, clip) = open();
    let features = clip.forward(&ids(&golden)).unwrap();
    for (name, ours) in [("out.tokens", features.tokens), ("out.pooled", features.pooled)] {
        let theirs = golden.get(name);
        assert_eq!(ours.dims(), theirs.shape, "{name}");
        assert_close(name, &ours.flatten_all().unwrap().to_vec1().unwrap(), &theirs, 2e-6);
    }
}

#[test]
fn texts_without_an_end_are_refused() {
    let (_, clip) = open();
    let ids = Tensor::new(&[[1_u32, 2, 3]], &Device::Cpu).unwrap();
    assert!(clip.forward(&ids).unwrap_err().to_string().contains("text 0 has no end token (39)"));
}

#[test]
fn names_and_shapes_of_the_full_size() {
    let keys: Value = serde_json::from_str(include_str!("../../../goldens/files/model_keys.json")).unwrap();
    let theirs = keys["clip-vit-l-14-text"]["tensors"].as_object().unwrap();
    let ours = named_shapes(&ClipTextConfig::vit_l_14()).unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (name, shape) in ours {
        assert_eq!(serde_json::to_value(shape).unwrap(), theirs[&name], "{name}");
    }
}
