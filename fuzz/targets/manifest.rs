//! `manifest`: one spoiled file among sound ones, from its text to the plan. The first byte chooses the file; `-` in its
//! place is an override of the command line.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use manifest::digest::Digest;
use manifest::{Request, Workspace};

const FILES: [&str; 6] =
    ["mini.yaml", "scales/s.yaml", "presets/paper.yaml", "claims/mini.yaml", "net.yaml", "cnn.yaml"];

/// The files as they are in the tests of `manifest`, and a folder to spoil them in.
static FIXTURE: LazyLock<(tempfile::TempDir, Vec<String>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let sound = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/manifest/tests/fixture/experiments");
    let texts = FILES.iter().map(|file| fs::read_to_string(sound.join(file)).expect("the fixture")).collect();
    for (file, text) in FILES.iter().zip::<&Vec<String>>(&texts) {
        let path = folder.path().join("experiments").join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    (folder, texts)
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (folder, sound) = &*FIXTURE;
    let spoiled = usize::from(choice.wrapping_sub(b'0'));
    let path = |file: usize| folder.path().join("experiments").join(FILES[file]);
    let overrides = if *choice == b'-' { vec![text.to_owned()] } else { Vec::new() };
    if spoiled < FILES.len() {
        fs::write(path(spoiled), text).expect("a file");
    } else if overrides.is_empty() {
        return;
    }
    let request = Request { scale: "s".to_owned(), overrides, seeds: None };
    // Data is not what is tried here: no path that the text makes up is read.
    let workspace = Workspace::open(folder.path()).expect("a workspace");
    let workspace = workspace.with_data_folders(vec![folder.path().to_owned()]).with_hash(Box::new(|_| Ok(Digest::of(b""))));
    if let Err(error) = workspace.load("mini", &request) {
        assert!(!error.to_string().is_empty());
    }
    if spoiled < FILES.len() {
        fs::write(path(spoiled), &sound[spoiled]).expect("a file");
    }
});
