//! The reports in the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::{Digest, Key};
use manifest::published::Published;
use manifest::{Request, Workspace};
use store::Tree;

/// A workspace whose published data is there by name, with the content that is pinned.
fn with_data(root: &Path, published: Published, data: &Path) -> Workspace {
    let files = published.data.into_values().flat_map(|publication| publication.files);
    let pinned: Vec<(PathBuf, Digest)> =
        files.filter_map(|file| Some((data.join(&file.file), file.content?.sha256))).collect();
    for (path, _) in &pinned {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let hash = move |path: &Path| match pinned.iter().find(|(known, _)| known == path) {
        Some((_, digest)) => Ok(*digest),
        None => Digest::of_file(path),
    };
    let folders = vec![data.to_owned(), root.to_owned()];
    Workspace::open(root).unwrap().with_data_folders(folders).with_hash(Box::new(hash))
}

/// A manifest, a recipe or a version that changes without its report would leave numbers that nobody can get again.
#[test]
fn every_published_record_is_one_that_its_manifest_plans_today() {
    let root = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
    let data = tempfile::tempdir().unwrap();
    let workspace = with_data(&root, Workspace::open(&root).unwrap().published().unwrap(), data.path());
    let folders = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    };
    let name = |folder: &Path| folder.file_name().unwrap().to_str().unwrap().to_owned();
    let own = folders(&root.join("reports"));
    let (of_tiny, scales): (Vec<_>, Vec<_>) = own.into_iter().partition(|folder| folder.join("records").is_dir());
    let of_others = scales.iter().flat_map(|scale| folders(scale).into_iter().map(|folder| (name(scale), folder)));
    let reports = of_tiny.into_iter().map(|folder| ("tiny".to_owned(), folder)).chain(of_others);
    let mut checked = 0;
    for (scale, folder) in reports {
        let (artifact, what) = (name(&folder), folder.strip_prefix(&root).unwrap().display().to_string());
        let request = Request { scale, overrides: Vec::new(), seeds: None };
        let plan = workspace.load_artifact(&artifact, &request).unwrap_or_else(|error| panic!("{what}: {error}"));
        let planned: BTreeSet<Key> = plan.stages.iter().map(|stage| stage.key).collect();
        for record in Tree::published(&folder.join("records")).records().unwrap() {
            assert!(planned.contains(&record.key), "{what}: {} {} is of another manifest", record.kind, record.key);
            checked += 1;
        }
    }
    assert!(checked > 500, "{checked} records");
}
