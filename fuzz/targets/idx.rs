//! `data::idx`: two files, plain or gzip. The first byte is the side asked for, the second the count, the next two say
//! where the images end and the labels begin.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|input: &[u8]| {
    let Some((&[side, count, high, low], files)) = input.split_first_chunk() else { return };
    let (images, labels) = files.split_at(files.len().min(usize::from(u16::from_be_bytes([high, low]))));
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = FOLDER.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let (images, labels) = (write("images", images), write("labels", labels));
    let (first, count, side) = (u64::from(count >> 6), usize::from(count & 63), usize::from(side));
    if let Ok(loaded) = data::idx::load(&images, &labels, side, first, count) {
        assert_eq!(loaded.len(), count);
        assert_eq!(loaded.labels.map(|labels| labels.len()), Some(count));
    }
});
