//! Names, shapes and counts of the full-size networks against the authors' code.

use manifest::dit::DitConfig;
use models::architecture::Architecture;
use models::clip::ClipTextConfig;
use models::count;
use models::dit::{initial_weights, named_shapes};
use models::unet::UnetConfig;
use models::vae::VaeConfig;
use models::weights::names::Family;
use serde_json::Value;

fn config(size: &str, conditional: bool) -> DitConfig {
    DitConfig::published(size, conditional.then_some(1000)).unwrap_or_else(|| panic!("no size {size}"))
}

#[test]
fn goldens_names_shapes_and_counts() {
    let text = goldens::model_keys();
    let keys: Value = serde_json::from_str(&text).unwrap();
    let mut checked = 0;
    for (name, entry) in keys.as_object().unwrap() {
        let parts: Vec<&str> = name.split(':').collect();
        let [size, kind, "FT"] = parts[..] else { continue };
        let shapes = named_shapes(&config(size, kind == "cond"));
        assert_eq!(
            count::of_dit(&config(size, kind == "cond")) as u64,
            entry["parameters"].as_u64().unwrap(),
            "{name}"
        );
        let theirs = entry["tensors"].as_object().unwrap();
        assert_eq!(shapes.len(), theirs.len(), "{name}");
        let mut place = text.find(name).unwrap();
        for (tensor, shape) in shapes {
            assert_eq!(serde_json::to_value(&shape).unwrap(), theirs[&tensor], "{name}: {tensor}");
            // The same order: each name comes behind the one before it in the file.
            place += text[place..].find(&format!("\"{tensor}\":")).unwrap_or_else(|| panic!("{tensor} comes too late"));
        }
        checked += 1;
    }
    assert_eq!(checked, 6);
}

#[test]
fn patched_networks_are_those_of_the_authors_class() {
    let keys: Value = serde_json::from_str(&goldens::model_keys()).unwrap();
    let of = |name: &str| keys[name]["tensors"].as_object().unwrap();
    for (architecture, name) in [
        (Architecture::DitB2Dmp, "DiT-B/2:uncond"),
        (Architecture::DitL2Dmp, "DiT-L/2:uncond"),
        (Architecture::DitXl2Dmp, "DiT-XL/2:uncond"),
        (Architecture::DitB2ImagenetDmp, "DiT-B/2:cond"),
        (Architecture::DitL2ImagenetDmp, "DiT-L/2:cond"),
        (Architecture::DitXl2ImagenetDmp, "DiT-XL/2:cond"),
    ] {
        let (backbone, patch) = (of(&format!("{name}:FT")), of(&format!("{name}:linear")));
        let shapes = architecture.shapes().unwrap();
        assert_eq!(shapes.len(), backbone.len() + patch.len(), "{architecture}");
        for (tensor, shape) in &shapes {
            let theirs = backbone.get(tensor).or_else(|| patch.get(tensor));
            assert_eq!(theirs, Some(&serde_json::to_value(shape).unwrap()), "{architecture}: {tensor}");
        }
        // A backbone is taken out of a checkpoint of both.
        let names: Vec<&str> = shapes.iter().map(|(name, _)| name.as_str()).collect();
        let kept = |family: Family| family.translate(&names).into_iter().flatten().count();
        assert_eq!((kept(Family::Dit), kept(architecture.family())), (backbone.len(), shapes.len()));
    }
}

#[test]
fn full_size_networks_have_the_published_counts() {
    let keys: Value = serde_json::from_str(&goldens::model_keys()).unwrap();
    let published = |name: &str| keys[name]["parameters"].as_u64().unwrap() as usize;
    assert_eq!(count::of_unet(&UnetConfig::stable_diffusion()).unwrap(), published("sd-v1-5-unet"));
    assert_eq!(count::of_vae(&VaeConfig::stable_diffusion()).unwrap(), published("sd-vae-ft-ema"));
    assert_eq!(count::of_clip_text(&ClipTextConfig::vit_l_14()).unwrap(), published("clip-vit-l-14-text"));
    assert_eq!(count::of_inception().unwrap(), published("fid-inception-v3"));
    // Peebles & Xie 2023, Table 1, in millions, and what a larger patch changes: its own weights at both ends, and the
    // number of positions.
    for (size, millions) in [("DiT-S", 33.0), ("DiT-B", 130.0), ("DiT-L", 458.0), ("DiT-XL", 675.0)] {
        let [two, four, eight] = [2, 4, 8].map(|patch| count::of_dit(&config(&format!("{size}/{patch}"), true)));
        assert!((two as f64 / 1e6 - millions).abs() < 1.0, "{size}");
        let width = config(&format!("{size}/2"), true).hidden;
        assert_eq!(four + 192 * width, two + (48 + 96) * width + 96, "{size}/4");
        assert_eq!(eight + 48 * width, four + (192 + 384) * width + 384, "{size}/8");
    }
    for none in ["DiT-B", "DiT-B/3", "dit-b/2", "DiT-B/02"] {
        assert_eq!(DitConfig::published(none, None), None);
    }
}

#[test]
fn a_network_starts_as_the_zero_function_with_the_scales_of_the_paper() {
    let config = DitConfig { image_size: 8, hidden: 64, depth: 2, heads: 4, ..config("DiT-B/2", true) };
    let weights = initial_weights(&config, 5);
    assert_eq!(weights, initial_weights(&config, 5));
    assert_ne!(weights, initial_weights(&config, 6));
    let shapes = named_shapes(&config);
    models::weights::check("initial".as_ref(), &weights, &shapes).unwrap();

    let values = |name: &str| &weights[name].values;
    let deviation = |name: &str| {
        let squares: f64 = values(name).iter().map(|&v| f64::from(v).powi(2)).sum();
        (squares / values(name).len() as f64).sqrt()
    };
    for zero in ["final_layer.linear.weight", "blocks.1.adaLN_modulation.1.weight", "blocks.0.attn.qkv.bias"] {
        assert!(values(zero).iter().all(|&v| v == 0.0), "{zero}");
    }
    // A uniform draw from [-a, a) deviates by a / sqrt 3.
    let xavier = |fans: f64| (2.0 / fans).sqrt();
    for (name, expected) in [
        ("blocks.0.attn.qkv.weight", xavier(64.0 + 192.0)),
        ("blocks.1.mlp.fc2.weight", xavier(64.0 + 256.0)),
        ("x_embedder.proj.weight", xavier(64.0 + 16.0)),
        ("t_embedder.mlp.0.weight", 0.02),
        ("y_embedder.embedding_table.weight", 0.02),
    ] {
        let relative = deviation(name) / expected - 1.0;
        assert!(relative.abs() < 4.0 / (values(name).len() as f64).sqrt(), "{name}: {relative}");
    }
    assert_ne!(values("blocks.0.attn.qkv.weight"), values("blocks.1.attn.qkv.weight"));
}
