//! Tensors computed by the authors' PyTorch code, and the measure by which ours is held against them (tests only).
//!
//! The files lie under `files/`; `DMP_GOLDENS=DIR` reads another set made by the same generators.
//! Every shape and switch is taken from a file's `config` metadata, so that such a set passes unchanged. Of the files
//! that no configuration changes (`FIXED`) it may lack some: those are then read from `files/`.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Made by generators that read nothing from the configuration but a seed.
const FIXED: [&str; 4] = ["model_keys.json", "pndm.safetensors", "unet_tiny.safetensors", "vae_tiny.safetensors"];

/// A file's bytes; panics with its path where it cannot be read.
fn read(file: &str) -> Vec<u8> {
    let committed = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/files")).join(file);
    let path = match std::env::var_os("DMP_GOLDENS") {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            assert!(folder.is_dir(), "DMP_GOLDENS: {} is no folder", folder.display());
            let other = folder.join(file);
            if FIXED.contains(&file) && !other.exists() { committed } else { other }
        }
        None => committed,
    };
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The text of `model_keys.json`: names, shapes and counts of the full-size networks.
pub fn model_keys() -> String {
    String::from_utf8(read("model_keys.json")).expect("UTF-8")
}

/// One golden file, held in memory.
pub struct Golden {
    name: String,
    bytes: Vec<u8>,
    config: Value,
    metadata: HashMap<String, String>,
}

/// A tensor read from a golden file; integers and doubles are widened to `f64`.
#[derive(Clone, Debug)]
pub struct Array {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Values; exact for every stored type.
    pub values: Vec<f64>,
}

impl Array {
    /// The values rounded to `f32` (exact where the file holds `f32`).
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    /// The values as indices; panics on a negative or fractional one.
    pub fn usize(&self) -> Vec<usize> {
        let index = |&v: &f64| {
            assert!(v >= 0.0 && v.fract() == 0.0, "{v} is no index");
            v as usize
        };
        self.values.iter().map(index).collect()
    }

    /// The only value of a one-element tensor.
    pub fn scalar(&self) -> f64 {
        assert_eq!(self.values.len(), 1, "shape {:?} is no scalar", self.shape);
        self.values[0]
    }
}

impl Golden {
    /// Opens `NAME.safetensors` under `$DMP_GOLDENS`, or under this crate's `files/`.
    pub fn open(name: &str) -> Self {
        let bytes = read(&format!("{name}.safetensors"));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let metadata = header.metadata().clone().unwrap_or_default();
        let config = metadata.get("config");
        let config = config.map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"));
        Self { name: name.to_owned(), bytes, config, metadata }
    }

    /// An entry of the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The configuration that made the file (`Null` where it has none).
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tensors().names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Names (without the prefix) and tensors of all that begin with `prefix`, e.g. `sd.`.
    pub fn group(&self, prefix: &str) -> Vec<(String, Array)> {
        let names = self.names().into_iter();
        let inside = names.filter_map(|n| n.strip_prefix(prefix).map(str::to_owned));
        inside.map(|n| (n.clone(), self.get(&format!("{prefix}{n}")))).collect()
    }

    /// The tensor called `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<Array> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).ok()?;
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
            other => panic!("{}: {name} has type {other:?}", self.name),
        };
        Some(Array { shape: view.shape().to_vec(), values })
    }

    /// The tensor called `name`; panics with the file's name if it is missing.
    pub fn get(&self, name: &str) -> Array {
        self.find(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("a sound safetensors file")
    }
}

/// `max |ours - theirs|`; a value that is not finite counts as infinitely far away.
fn furthest(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "lengths differ");
    let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, |m: f64, d| if d.is_finite() { m.max(d) } else { f64::INFINITY })
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
}

/// `max |ours - theirs| / max(1, max |theirs|)`: the measure of the goldens' README where it says no other.
pub fn distance(ours: &[f64], theirs: &[f64]) -> f64 {
    furthest(ours, theirs) / largest(theirs).max(1.0)
}

/// `max |ours - theirs| / max |theirs|`: the README's "relative", for values however small.
pub fn relative_distance(ours: &[f64], theirs: &[f64]) -> f64 {
    match furthest(ours, theirs) {
        0.0 => 0.0,
        apart => apart / largest(theirs),
    }
}

/// Panics unless `ours` lies within `tolerance` of `theirs`; prints the margin under `--nocapture`.
pub fn assert_close(what: &str, ours: &[f32], theirs: &Array, tolerance: f64) {
    assert_within(what, distance(&doubles(ours), &theirs.values), tolerance);
}

/// As [`assert_close`], by [`relative_distance`].
pub fn assert_relatively_close(what: &str, ours: &[f32], theirs: &Array, tolerance: f64) {
    assert_within(what, relative_distance(&doubles(ours), &theirs.values), tolerance);
}

/// Panics unless a distance is within `tolerance`; prints the margin under `--nocapture`.
#[allow(clippy::print_stdout, reason = "margins are read with --nocapture")]
pub fn assert_within(what: &str, apart: f64, tolerance: f64) {
    assert!(apart <= tolerance, "{what}: {apart:.2e} away, allowed {tolerance:.0e}");
    println!("{what}: {apart:.2e} of {tolerance:.0e}");
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}
