//! Weight files: what is written is read back, and what is damaged is refused.

use std::path::{Path, PathBuf};

use models::weights::{self, Tensor, WeightFile, Weights, WeightsError};

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn sample() -> Weights {
    let tensor = |shape: &[usize]| {
        let len: usize = shape.iter().product();
        Tensor { shape: shape.to_vec(), values: (0..len).map(|i| (i as f32).sin()).collect() }
    };
    Weights::from([("b.weight".to_owned(), tensor(&[2, 3])), ("a.bias".to_owned(), tensor(&[3]))])
}

#[test]
fn a_file_returns_what_was_written_and_leaves_nothing_else_behind() {
    let folder = folder("returns");
    let path = folder.join("weights.safetensors");
    let first = weights::write(&path, &sample()).unwrap();
    let again = weights::write(&path, &sample()).unwrap();
    assert_eq!(first, again, "the same tensors are the same bytes");
    assert_eq!(weights::read(&path).unwrap(), sample());
    assert_eq!(WeightFile::open_checked(&path, &first, None).unwrap().read().unwrap(), sample());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_damaged_file_is_refused_before_use() {
    let path = folder("damaged").join("weights.safetensors");
    let hash = weights::write(&path, &sample()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let message = WeightFile::open_checked(&path, &hash, None).unwrap_err().to_string();
    for part in [path.to_str().unwrap(), &hash, &weights::sha256(&bytes), "fetch it again"] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
    for cut in [0, 4, 20, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let error = weights::read(&path).unwrap_err();
        assert!(matches!(error, WeightsError::Format { .. }), "{cut} bytes: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = weights::read(&path).unwrap_err();
    assert!(matches!(error, WeightsError::Io { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
}

#[test]
fn a_file_for_another_model_is_refused_with_all_its_faults() {
    let shapes = [("a.bias".to_owned(), vec![4]), ("c.weight".to_owned(), vec![1])];
    let message = weights::check(Path::new("x.safetensors"), &sample(), &shapes).unwrap_err().to_string();
    for part in ["x.safetensors", "a.bias has shape [3], expected [4]", "missing c.weight [1]", "unexpected b.weight"] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
    let own: Vec<_> = sample().into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    weights::check(Path::new("x.safetensors"), &sample(), &own).unwrap();
}

#[test]
fn a_failed_write_keeps_the_old_file_and_no_other() {
    let folder = folder("failed");
    let path = folder.join("weights.safetensors");
    // A folder of that name cannot be replaced by a file.
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(weights::write(&path, &sample()), Err(WeightsError::Io { .. })));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    let lies = Weights::from([("a".to_owned(), Tensor { shape: vec![5], values: vec![0.0] })]);
    assert!(matches!(weights::write(&path, &lies), Err(WeightsError::Format { .. })));
}
