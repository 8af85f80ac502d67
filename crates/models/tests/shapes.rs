//! Names, shapes and counts of the full-size networks against the authors' code.

use manifest::dit::DitConfig;
use models::dit::{elements, initial_weights, named_shapes};
use serde_json::Value;

fn config(size: &str, conditional: bool) -> DitConfig {
    let (hidden, depth, heads) = match size {
        "DiT-B/2" => (768, 12, 12),
        "DiT-L/2" => (1024, 24, 16),
        "DiT-XL/2" => (1152, 28, 16),
        other => panic!("no size {other}"),
    };
    DitConfig {
        image_size: 32,
        channels: 4,
        patch: 2,
        hidden,
        depth,
        heads,
        classes: conditional.then_some(1000),
        label_dropout: 0.1,
        learn_sigma: true,
    }
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
        assert_eq!(elements(&shapes) as u64, entry["parameters"].as_u64().unwrap(), "{name}");
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
