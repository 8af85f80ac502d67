//! A network in latent space, from images to the report: the smallest autoencoder and the smallest DiT.

use std::path::PathBuf;

use manifest::autoencoder::VaeConfig;
use models::formula::FORMULA_SEED;
use models::{vae, weights};

use crate::repository::{Repository, files};

const FORMULA: &str = "\
space:
  kind: latents
  scale_factor: 0.5
  autoencoder:
    kind: formula
    shape: {image_channels: 3, latent_channels: 4, widths: [8, 16], depth: 1, groups: 4}";

/// The autoencoder of [`FORMULA`].
fn shape() -> VaeConfig {
    VaeConfig { image_channels: 3, latent_channels: 4, widths: vec![8, 16], depth: 1, groups: 4 }
}

/// The usual repository with its DiT on latents of 6 x 6.
fn repository() -> Repository {
    let repository = Repository::new();
    let recipe = "experiments/nano-backbone.yaml";
    repository.edit(recipe, "space: {kind: pixels}", FORMULA);
    repository.edit(
        recipe,
        "{image_size: 12, channels: 3, patch: 3, hidden",
        "{image_size: 6, channels: 4, patch: 2, hidden",
    );
    repository.edit("experiments/scales/tiny.yaml", "clip_x0: true", "clip_x0: false");
    repository
}

/// The autoencoder's weights come from this file.
fn with_file(repository: &Repository, network: &VaeConfig) -> PathBuf {
    let recipe = "experiments/nano-backbone.yaml";
    repository.edit(
        recipe,
        "    kind: formula\n",
        "    kind: file\n    weights: {file: vae.safetensors, sha256: null}\n",
    );
    let path = repository.path("vae.safetensors");
    weights::write(&path, &vae::formula_weights(network, FORMULA_SEED).unwrap()).unwrap();
    path
}

#[test]
fn from_images_to_the_report_and_nothing_twice() {
    let repository = repository();
    let first = repository.exits(0, &["reproduce", "nano", "--json"]);
    let tally = first.json_lines().into_iter().find(|line| line.get("already_done").is_some()).unwrap();
    assert_eq!(tally["done"], tally["stages"]);
    // Backbone and further training see the same latents, which are made once, for both flips.
    let encoded = repository.record("results", "encode");
    assert_eq!(encoded["metrics"]["images"], 64.0);
    assert_eq!(encoded["params"]["horizontal_flip"], true);
    for artifact in ["latents.safetensors", "latents-00000.safetensors"] {
        assert!(encoded["artifacts"].get(artifact).is_some(), "{encoded}");
    }
    // What is shown is decoded; samples themselves stay latents.
    let bytes = |kind: &str| {
        let found = files(&repository.path("results").join(kind)).into_iter();
        found
            .filter(|path| path.ends_with("samples.safetensors"))
            .map(|path| std::fs::read(path).unwrap())
            .collect::<Vec<_>>()
    };
    let said = |files: &[Vec<u8>], text: &str| files.iter().all(|file| String::from_utf8_lossy(file).contains(text));
    assert!(said(&bytes("sample"), r#""dtype":"F32","shape":[16,4,6,6]"#));
    let decoded = bytes("decode");
    assert!(decoded.len() == 3 && said(&decoded, r#""dtype":"U8","shape":[16,3,12,12]"#), "{}", decoded.len());
    let page = std::fs::read_to_string(repository.path("reports/nano.md")).unwrap();
    assert!(
        page.contains("latents of an autoencoder (weights by formula) x 0.5") && page.contains("samples.svg"),
        "{page}"
    );

    let second = repository.exits(0, &["reproduce", "nano", "--json"]);
    let tally = second.json_lines().into_iter().find(|line| line.get("already_done").is_some()).unwrap();
    assert_eq!(tally["already_done"], tally["stages"]);
    assert!(repository.exits(0, &["verify"]).out.contains("sound"));
    assert!(repository.exits(0, &["gc", "--json"]).json()["items"].as_array().unwrap().is_empty());
    let cell = repository.exits(0, &["show", "nano:b/hard", "--json"]).json();
    let kinds: Vec<&str> = cell["stages"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"decode"), "{kinds:?}");
}

#[cfg(unix)]
#[test]
fn encoding_that_is_killed_goes_on_at_the_next_shard_to_the_same_bits() {
    let arguments = ["run", "nano-backbone", "--set", "data.count=3000"];
    let repository = repository();
    repository.exits(0, &[&arguments[..], &["--results", "undisturbed"]].concat());
    let (first, later) = ("latents-00000.safetensors", "latents-00003.safetensors");
    repository.interrupt(&arguments, "encode", [("INT", first), ("KILL", later)]);
    assert!(repository.file("encode", "latents-00011.safetensors").is_none(), "it was too fast to be stopped");
    let made = |path: PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    let before = made(repository.file("encode", first).unwrap());
    repository.exits(0, &arguments);
    assert_eq!(made(repository.file("encode", first).unwrap()), before, "a finished shard was made again");
    let (disturbed, undisturbed) = (repository.record("results", "encode"), repository.record("undisturbed", "encode"));
    // One, where the second attempt came to its end before it noticed that nobody listens.
    assert!(disturbed["provenance"]["cost"]["resumed_attempts"].as_u64().unwrap() >= 1);
    assert_eq!(disturbed["artifacts"], undisturbed["artifacts"]);
    assert_eq!(
        repository.record("results", "pretrain")["artifacts"],
        repository.record("undisturbed", "pretrain")["artifacts"]
    );
}

#[cfg(unix)]
#[test]
fn features_that_are_killed_go_on_at_the_next_part_to_the_same_bits() {
    let repository = repository();
    let arguments = ["run", "nano", "--cell", "baseline", "--jobs", "1", "--set", "sample.count=1600"];
    repository.exits(0, &[&arguments[..], &["--results", "undisturbed"]].concat());
    // Those of the reference are one part.
    let (first, later) = ("features-000016.part", "features-000320.part");
    repository.interrupt(&arguments, "features", [("INT", first), ("KILL", later)]);
    assert!(repository.file("features", "features-001584.part").is_none(), "it was too fast to be stopped");
    repository.exits(0, &arguments);
    assert!(repository.file("features", first).is_none(), "no part is left");
    let [disturbed, undisturbed] = ["results", "undisturbed"].map(|results| repository.records(results, "features"));
    // Those of the reference, and those of the samples, which were stopped.
    let attempts = |record: &serde_json::Value| record["provenance"]["cost"]["resumed_attempts"].as_u64().unwrap();
    assert_eq!((disturbed.len(), disturbed.iter().map(attempts).max() >= Some(1)), (2, true));
    for (ours, theirs) in disturbed.iter().zip(&undisturbed) {
        assert_eq!((&ours["key"], &ours["artifacts"]), (&theirs["key"], &theirs["artifacts"]));
    }
    let [ours, theirs] = ["results", "undisturbed"].map(|results| repository.record(results, "metrics"));
    assert_eq!(ours["metrics"], theirs["metrics"]);
}

#[test]
fn a_shard_that_is_damaged_is_named_before_anything_trains_on_it() {
    let repository = repository();
    repository.exits(0, &["run", "nano-backbone"]);
    let mut shards = files(&repository.path("results/encode"));
    shards.retain(|path| path.ends_with("latents-00000.safetensors"));
    let mut bytes = std::fs::read(&shards[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&shards[0], bytes).unwrap();
    assert!(repository.exits(1, &["verify"]).out.contains("latents-00000"));
    let plan = repository.exits(0, &["plan", "nano", "--explain"]).out;
    assert!(plan.contains("latents-00000.safetensors"), "{plan}");
    repository.exits(0, &["sweep", "nano"]);
    repository.exits(0, &["verify"]);
}

#[test]
fn weights_of_a_file_are_those_of_the_formula_and_another_network_is_refused() {
    let (formula, file) = (repository(), repository());
    formula.exits(0, &["run", "nano-backbone"]);
    with_file(&file, &shape());
    file.exits(0, &["run", "nano-backbone"]);
    let [ours, theirs] = [&formula, &file].map(|repository| repository.record("results", "encode"));
    assert_eq!(ours["artifacts"], theirs["artifacts"]);
    assert_ne!(ours["key"], theirs["key"]);

    let other = repository();
    let path = with_file(&other, &VaeConfig { widths: vec![8, 12], ..shape() });
    let said = other.run(&["sweep", "nano"]);
    assert_ne!(said.code, Some(0));
    for part in [
        "vae.safetensors",
        "encoder.down_blocks.1.resnets.0.conv1.weight has shape [12, 8, 3, 3], expected [16, 8, 3, 3]",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let extractor =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/weights/tiny-extractor.safetensors");
    std::fs::copy(extractor, path).unwrap();
    let said = other.run(&["sweep", "nano"]);
    assert_ne!(said.code, Some(0));
    assert!(said.err.contains("missing encoder.conv_in.weight [8, 3, 3, 3]"), "{}", said.err);
    assert!(!other.path("results/encode").exists(), "nothing is half-written");
    std::fs::remove_file(other.path("vae.safetensors")).unwrap();
    let said = other.exits(3, &["sweep", "nano"]);
    assert!(said.err.contains("`vae.safetensors` is missing"), "{}", said.err);
}

#[test]
fn shapes_that_do_not_meet_are_named_at_their_keys() {
    let recipe = "experiments/nano-backbone.yaml";
    let scale = "experiments/scales/tiny.yaml";
    let cases = [
        (
            recipe,
            "{image_size: 6,",
            "{image_size: 8,",
            "`data.image_size` must be 16, which the backbone sees in latents of 8, found `12`",
        ),
        (
            recipe,
            "channels: 4, patch",
            "channels: 3, patch",
            "`dit.channels` must be 4, the channels of a latent, found `3`",
        ),
        (
            recipe,
            "groups: 4}",
            "groups: 3}",
            "`space.autoencoder.shape.groups` must divide all widths: 8 is no multiple of 3",
        ),
        (
            recipe,
            "image_channels: 3",
            "image_channels: 1",
            "`data` has images with 3 channels, but the autoencoder has 1",
        ),
        (recipe, "scale_factor: 0.5", "scale_factor: 0", "`space.scale_factor` must be greater than 0, found `0`"),
        (
            scale,
            "clip_x0: false",
            "clip_x0: true",
            "`sample.sampler.clip_x0` must be false: latents reach beyond [-1, 1]",
        ),
    ];
    for (file, right, wrong, message) in cases {
        let repository = repository();
        repository.edit(file, right, wrong);
        let said = repository.exits(2, &["plan", "nano"]);
        assert!(said.err.contains(file) && said.err.contains(message), "{message}: {}", said.err);
    }
}
