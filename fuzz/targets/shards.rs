//! `data::shards`: a tar archive of images and captions, and the decoder of those images.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|input: &[u8]| {
    let shard = FOLDER.path().join("a.tar");
    fs::write(&shard, input).expect("a file");
    let Ok(photographs) = data::shards::open(&shard, 8) else { return };
    assert_eq!(photographs.captions.as_ref().map(Vec::len), Some(photographs.len()));
    let mut pixels = [0; 3 * 8 * 8];
    for i in 0..photographs.len() {
        photographs.decode(i, &mut pixels).ok();
    }
});
