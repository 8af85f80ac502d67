//! Data and weights that are missing, are others than pinned, or lie outside.

use std::fs;

use manifest::digest::Digest;
use manifest::{Error, Workspace};

use crate::fixture::Fixture;

#[test]
fn missing_data_and_weights_are_all_listed_with_where_they_belong() {
    let fixture = Fixture::new()
        .spoil(
            "scales/s.yaml",
            "data: {kind: faces, image_size: 8, first: 0, count: 100}",
            "data: {kind: image_folder, folder: photos, image_size: 8}",
        )
        .spoil("scales/s.yaml", "{recipe: net}", "{recipe: net, weights: {file: net.safetensors, sha256: null}}");
    let error = fixture.load("s", &[]).unwrap_err();
    let Error::Missing(missing) = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 2);
    let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
    let at = |name: &str| fixture.0.path().join(name).display().to_string();
    assert_eq!(
        lines,
        [
            format!(
                "experiments/scales/s.yaml:3:41: `net.safetensors` is missing; put it at one of: {} (or set DMP_DATA)",
                at("net.safetensors")
            ),
            format!(
                "experiments/scales/s.yaml:2:36: `photos` is missing; put it at one of: {} (or set DMP_DATA)",
                at("photos")
            ),
        ]
    );
    fs::create_dir(fixture.0.path().join("photos")).unwrap();
    fs::write(fixture.0.path().join("photos/1.png"), "not looked into here").unwrap();
    fs::write(fixture.0.path().join("net.safetensors"), "weights").unwrap();
    fixture.load("s", &[]).unwrap();
}

#[test]
fn more_class_folders_than_classes_are_refused_and_named() {
    let fixture = |folder: &str| {
        Fixture::new().spoil("net.yaml", "classes: null", "classes: 2").spoil(
            "scales/s.yaml",
            "data: {kind: faces, image_size: 8, first: 0, count: 100}",
            &format!("data: {{kind: class_folders, folder: photos, image_size: 8{folder}}}"),
        )
    };
    let write = |fixture: &Fixture, class: &str| {
        fs::create_dir_all(fixture.0.path().join("photos").join(class)).unwrap();
        fs::write(fixture.0.path().join("photos").join(class).join("1.png"), class).unwrap();
    };
    let all = fixture("");
    ["a", "b", ".cache"].iter().for_each(|class| write(&all, class));
    all.load("s", &[]).unwrap();
    write(&all, "c");
    let error = all.load("s", &[]).unwrap_err();
    assert!(matches!(error, Error::Missing(_)));
    let path = all.0.path().join("photos").display().to_string();
    assert_eq!(
        error.to_string(),
        format!(
            "experiments/scales/s.yaml:2:37: `photos` has 3 class folders, but the backbone has 2 classes; take the folder right \
             above those of its classes, or set its `classes`; `runner data check {path} --as class_folders` looks through it"
        )
    );
    // Of a part, only its images tell; which they are is found when they are opened.
    let part = fixture(", count: 4");
    ["a", "b", "c"].iter().for_each(|class| write(&part, class));
    part.load("s", &[]).unwrap();
    // A backbone that is trained here reads them too.
    let data = "data: {kind: class_folders, folder: photos, image_size: 8}";
    let own = Fixture::new().spoil("net.yaml", "classes: null", "classes: 2").spoil(
        "net.yaml",
        "data: {kind: faces, image_size: 8, first: 0, count: 100}",
        data,
    );
    ["a", "b", "c"].iter().for_each(|class| write(&own, class));
    let message = own.load("s", &[]).unwrap_err().to_string();
    assert!(message.starts_with("experiments/net.yaml:14:"), "{message}");
}

#[test]
fn shipped_weights_with_a_wrong_hash_are_refused() {
    let pin = |content: &[u8]| {
        let weights = format!("{{recipe: net, weights: {{file: net.safetensors, sha256: {}}}}}", Digest::of(content));
        let fixture = Fixture::new().spoil("scales/s.yaml", "{recipe: net}", &weights);
        fs::write(fixture.0.path().join("net.safetensors"), "tampered").unwrap();
        fixture
    };
    let error = pin(b"genuine").load("s", &[]).unwrap_err();
    assert!(matches!(error, Error::Missing(_)));
    let expected = "experiments/scales/s.yaml:3:41: `net.safetensors` is not the file that is pinned here";
    assert!(error.to_string().starts_with(expected), "{error}");
    pin(b"tampered").load("s", &[]).unwrap();
}

#[test]
fn published_files_lie_below_the_data_and_are_fetched_over_http() {
    let file = |file: &str, url: &str| {
        format!(
            "data:\n  v1.5:\n    title: t\n    licence: l\n    files:\n      - file: {file}\n        url: {url}\n        \
             content: null\nweights: {{}}\n"
        )
    };
    let read = |text: &str| {
        let fixture = Fixture::new();
        fs::write(fixture.path("published.yaml"), text).unwrap();
        Workspace::open(fixture.0.path()).unwrap().published().map_err(|error| error.to_string())
    };
    assert_eq!(read(&file("a/b.gz", "http://x/b.gz")).unwrap().data["v1.5"].files[0].file, "a/b.gz");
    for outside in ["../b.gz", "/etc/b.gz", "a/../../b.gz", "''"] {
        let message = read(&file(outside, "http://x/b.gz")).unwrap_err();
        assert!(message.starts_with("experiments/published.yaml:6:15: `file` must be a path below"), "{message}");
    }
    let message = read(&file("b.gz", "file:///etc/passwd")).unwrap_err();
    assert!(message.starts_with("experiments/published.yaml:7:14: `url` must begin with"), "{message}");
    let message = read(&file("b.gz", "http://x/b.gz").replace("null", "{bytes: 0, sha256: abc}")).unwrap_err();
    assert!(message.contains("bytes") && message.contains("SHA-256"), "{message}");
    let none = Workspace::open(Fixture::new().0.path()).unwrap().published().unwrap();
    assert!(none.data.is_empty() && none.weights.is_empty());
}
