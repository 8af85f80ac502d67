//! `runner export`, and what it writes read again: as a dataset, as a reference, as weights.

use std::fs::File;

use engine::artifact;
use metrics::npz::{Archive, Statistics, Storage, Writer};
use models::weights;

use crate::repository::Repository;

/// One with a trained cell.
fn repository() -> Repository {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano", "--cell", "b/soft", "--cell", "baseline"]);
    repository
}

fn distance(repository: &Repository, reference: &str) -> f64 {
    let set = format!("evaluation.reference={reference}");
    repository.exits(0, &["run", "nano", "--cell", "baseline", "--set", &set]);
    let plan = repository.exits(0, &["show", "nano:baseline", "--set", &set, "--json"]).json();
    let stages = plan["stages"].as_array().unwrap();
    let metrics = stages.iter().find(|stage| stage["kind"] == "metrics").unwrap();
    assert_eq!(metrics["state"], "done");
    metrics["metrics"]["fd_nano_cnn"].as_f64().unwrap()
}

#[test]
fn samples_are_archived_for_adm_and_are_images_here() {
    let repository = repository();
    let said = repository.exits(0, &["export", "samples", "nano:b/soft", "samples.npz"]);
    assert!(said.out.contains("samples.npz: nano:b/soft seed 0, 16 samples"), "{}", said.out);
    let samples = repository.records("results", "sample");
    let keys = repository.exits(0, &["show", "nano:b/soft", "--json"]).json();
    let key = keys["stages"].as_array().unwrap().iter().find(|stage| stage["kind"] == "sample").unwrap()["key"].clone();
    assert!(samples.iter().any(|record| record["key"] == key));
    let key = key.as_str().unwrap();
    let path = repository.path(&format!("results/sample/{}/{key}/{}", &key[..2], artifact::SAMPLES));
    let images = artifact::read_images(&path).unwrap();

    let mut archive = Archive::open(&repository.path("samples.npz")).unwrap();
    assert_eq!(archive.names(), ["arr_0"]);
    let mut array = archive.array("arr_0").unwrap();
    assert_eq!(array.shape(), [16, 12, 12, 3]);
    let mut values = vec![0_u8; 16 * 144 * 3];
    array.fill(&mut values).unwrap();
    for (i, &value) in values.iter().enumerate() {
        let (image, pixel, channel) = (i / 432, i / 3 % 144, i % 3);
        assert_eq!(value, images.pixels[image * 432 + channel * 144 + pixel], "{i}");
    }

    let checked = repository.exits(0, &["data", "check", "samples.npz", "--as", "npz", "--image-size", "12", "--json"]);
    assert_eq!(checked.json()["images"], 16);
    let said = repository.exits(2, &["data", "check", "samples.npz", "--as", "npz", "--captions", "captions.json"]);
    assert!(said.err.contains("samples.npz: an .npz has no captions; leave out --captions"), "{}", said.err);
    let said = repository.exits(1, &["data", "check", "samples.npz", "--as", "npz"]);
    assert!(said.err.contains("has shape [16, 12, 12, 3], expected [n, 256, 256, 3]"), "{}", said.err);

    // A reference of a cell's own samples: nothing lies between.
    repository.exits(0, &["export", "samples", "nano:baseline", "own.npz"]);
    let own = distance(&repository, "{kind: npz, archive: own.npz, image_size: 12}");
    assert!(own.abs() < 1e-6, "{own}");
    let other = distance(&repository, "{kind: npz, archive: samples.npz, image_size: 12}");
    assert!(other != own, "{other}");
}

#[test]
fn statistics_are_archived_for_pytorch_fid_and_are_a_reference_here() {
    let repository = repository();
    let said = repository.exits(0, &["export", "statistics", "nano:b/soft", "soft.npz", "--json"]).json();
    assert_eq!(said["holds"]["features"], 16);
    let mut archive = Archive::open(&repository.path("soft.npz")).unwrap();
    assert_eq!(archive.names(), ["mu", "sigma"]);
    let gaussian = Statistics::Pooled.read(&mut archive).unwrap();
    assert_eq!(gaussian.dimensions(), 16);

    // The same distance whether samples are summarised here or were before.
    repository.exits(0, &["export", "samples", "nano:b/soft", "soft-samples.npz"]);
    let here = distance(&repository, "{kind: npz, archive: soft-samples.npz, image_size: 12}");
    let before = distance(&repository, "{kind: statistics, file: soft.npz, sha256: ~}");
    assert!((here - before).abs() <= 1e-9 * here.abs().max(1.0), "{here} {before}");
    let records = repository.records("results", "metrics");
    assert!(records.iter().any(|record| record["metrics"]["reference"].is_null()));
    // The content is in the key, the file's name is not; nothing but the pinned one is taken.
    std::fs::rename(repository.path("soft.npz"), repository.path("renamed.npz")).unwrap();
    let set = "evaluation.reference={kind: statistics, file: renamed.npz, sha256: ~}";
    let said = repository.exits(0, &["run", "nano", "--cell", "baseline", "--set", set, "--json"]).json();
    assert_eq!((&said["done"], &said["failed"]), (&0.into(), &0.into()));
    let pinned = set.replace('~', &"0".repeat(64));
    let said = repository.exits(3, &["run", "nano", "--cell", "baseline", "--set", &pinned]);
    assert!(said.err.contains("is not the file that is pinned"), "{}", said.err);
    // Plan and report say what it was, and what it is not enough for.
    let method = "method: {kind: dmp, preset: paper}";
    repository.edit("experiments/nano.yaml", method, &format!("measures: [precision_recall, similarity]\n{method}"));
    let planned = repository.exits(0, &["plan", "nano", "--explain", "--set", set]);
    let why = "the reference is statistics alone, and the scale gives no images as `evaluation.coverage`";
    assert!(planned.out.contains(&format!("\nnano does not measure precision and recall: {why}\n")), "{}", planned.out);
    let said = repository.exits(0, &["reproduce", "nano", "--set", set]);
    let reports = crate::repository::files(&repository.path("reports"));
    let report =
        reports.iter().find(|path| path.extension().is_some_and(|e| e == "md")).unwrap_or_else(|| panic!("{said:?}"));
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.contains("published statistics, renamed.npz"), "{page}");
    assert!(page.contains(&format!("**Not measured:** precision and recall ({why}).")), "{page}");
}

#[test]
fn statistics_that_do_not_fit_are_refused_before_anything_runs() {
    let repository = Repository::new();
    let run = |file: &str| {
        let set = format!("evaluation.reference={{kind: statistics, file: {file}, sha256: ~}}");
        repository.run(&["run", "nano", "--cell", "baseline", "--set", &set])
    };
    let said = run("gone.npz");
    assert!(said.code == Some(3) && said.err.contains("gone.npz"), "{said:?}");
    let write = |name: &str, arrays: &[(&str, &[usize])]| {
        let mut writer = Writer::new(File::create(repository.path(name)).unwrap(), Storage::Stored);
        for (array, shape) in arrays {
            writer.array(array, shape, &vec![1.0_f64; shape.iter().product()]).unwrap();
        }
        writer.finish().unwrap();
    };
    write("other.npz", &[("mu", &[3]), ("sigma", &[3, 3])]);
    write("square.npz", &[("mu", &[16]), ("sigma", &[16, 15])]);
    write("images.npz", &[("arr_0", &[2, 12, 12, 3])]);
    repository.write("text.npz", "no archive");
    for (file, reason) in [
        ("other.npz", "`mu` is of 3 features, but the extractor has 16"),
        ("square.npz", "array `sigma` has shape [16, 15], expected [16, 16]"),
        ("images.npz", "there is no array `mu`; there are: arr_0"),
        ("text.npz", "no sound .npz"),
    ] {
        let said = run(file);
        assert!(said.code == Some(3), "{said:?}");
        assert!(said.err.contains(file) && said.err.contains(reason), "{}", said.err);
        assert!(!repository.path("results/pretrain").exists(), "{file}");
    }
}

#[test]
fn a_patch_is_written_with_its_backbone_and_what_builds_it() {
    let repository = repository();
    let said = repository.exits(0, &["export", "patch", "nano:b/soft", "soft.pt"]);
    assert!(
        said.out.contains("DiT(input_size=12, patch_size=3, in_channels=3, hidden_size=16, depth=2"),
        "{}",
        said.out
    );
    let written = weights::read(&repository.path("soft.pt")).unwrap();
    let key = |kind: &str| repository.record("results", kind)["key"].as_str().unwrap().to_owned();
    let made = |kind: &str| {
        let key = key(kind);
        weights::read(&repository.path(&format!("results/{kind}/{}/{key}/{}", &key[..2], artifact::WEIGHTS))).unwrap()
    };
    let (backbone, trained) = (made("pretrain"), made("train"));
    assert!(backbone.iter().all(|(name, tensor)| written[name] == *tensor));
    assert_eq!(written["prompt_embeddings"], trained["prompt_embeddings"]);
    assert_eq!(written.len(), backbone.len() + 4);

    repository.exits(0, &["run", "nano", "--cell", "b/hard"]);
    let said = repository.exits(1, &["export", "patch", "nano:b/hard", "hard.pt"]);
    assert!(said.err.contains("nano:b/hard") && said.err.contains("`gate.selection.weights` is `one`"), "{}", said.err);
    assert!(!repository.path("hard.pt").exists());
}

/// Number of a cell's distance in a report's data.
fn measured(repository: &Repository, cell: &str) -> f64 {
    let reports = crate::repository::files(&repository.path("reports"));
    let rows = reports.iter().find(|path| path.ends_with("nano.csv")).unwrap();
    let rows = std::fs::read_to_string(rows).unwrap();
    let (names, rows) = rows.split_once('\n').unwrap();
    let column = |name: &str| names.split(',').position(|other| other == name).unwrap();
    let fields = |row: &str| row.split(',').map(str::to_owned).collect::<Vec<_>>();
    let row = rows.lines().map(fields).find(|row| row[column("cell")] == cell).unwrap();
    row[column("value")].parse().unwrap()
}

#[test]
fn a_patch_that_was_trained_elsewhere_takes_the_place_of_a_training() {
    let (there, here) = (Repository::new(), Repository::new());
    // Fast enough that the patch is seen.
    there.exits(0, &["reproduce", "nano", "--set", "train.learning_rate_multiplier=100000"]);
    there.exits(0, &["export", "patch", "nano:b/soft", "theirs.pt", "--set", "train.learning_rate_multiplier=100000"]);
    std::fs::copy(there.path("theirs.pt"), here.path("theirs.pt")).unwrap();
    let cell = "theirs: {set: {method.gate.input: as_released}, trained: {file: theirs.pt, sha256: ~}}";
    here.edit("experiments/nano.yaml", "      soft: {}\n", &format!("      {cell}\n"));
    // Another backbone than the patch's.
    here.edit("experiments/nano-backbone.yaml", "seed: 0", "seed: 1");
    let said = here.exits(1, &["run", "nano", "--cell", "b/theirs"]);
    assert!(said.err.contains("theirs.pt holds what was trained on another backbone than"), "{}", said.err);
    assert!(said.err.contains("(`backbone.weights`)"), "{}", said.err);

    let whole = "backbone.weights={file: theirs.pt, sha256: ~}";
    here.exits(0, &["reproduce", "nano", "--set", whole, "--seeds", "0,1"]);
    assert_eq!(here.records("results", "import").len(), 1, "one for all seeds");
    let [ours, theirs] = [measured(&there, "b/soft"), measured(&here, "b/theirs")];
    let backbone = measured(&here, "baseline");
    assert!((ours - theirs).abs() * 20.0 < (ours - backbone).abs(), "{ours} {theirs} {backbone}");
    let reports = crate::repository::files(&here.path("reports"));
    let report = reports.iter().find(|path| path.ends_with("nano.md")).unwrap();
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("`b/theirs`, trained elsewhere (`theirs.pt`, sha256 `"), "{report}");
    assert!(
        report.contains("`baseline`, `b/theirs` are not trained: their sds are of sampling seeds alone."),
        "{report}"
    );
    assert!(report.contains("† "), "{report}");

    // Its patch leaves as it came.
    here.exits(0, &["export", "patch", "nano:b/theirs", "again.pt", "--set", whole]);
    assert_eq!(weights::read(&here.path("again.pt")).unwrap(), weights::read(&here.path("theirs.pt")).unwrap());

    // What does not fit is said before anything runs.
    for (from, to, reason) in [
        ("theirs.pt, ", "gone.pt, ", "`gone.pt` is missing"),
        ("gone.pt, ", "text.pt, ", "text.pt cannot be read as weights: it is neither safetensors"),
        (
            "{method.gate.input: as_released}, trained: {file: text.pt, ",
            "{method.prompts.depth: first}, trained: {file: theirs.pt, ",
            "prompt_embeddings has shape [2, 16, 16], expected [1, 16, 16]",
        ),
    ] {
        here.write("text.pt", "no weights");
        here.edit("experiments/nano.yaml", from, to);
        let said = here.exits(3, &["run", "nano", "--cell", "b/theirs", "--set", whole]);
        assert!(said.err.contains(reason), "{}", said.err);
    }
}

#[test]
fn what_cannot_be_exported_is_said_and_nothing_is_written() {
    let repository = Repository::new();
    let said = repository.exits(3, &["export", "samples", "nano:b/soft", "s.npz"]);
    assert!(said.err.contains("`runner run nano --cell b/soft`"), "{}", said.err);
    repository.exits(0, &["run", "nano", "--cell", "baseline"]);
    repository.write("there.npz", "precious");
    for (arguments, reason) in [
        (&["export", "samples", "nano:b/sof", "s.npz"][..], "did you mean `b/soft`"),
        (&["export", "samples", "nano:baseline", "there.npz"], "is there already"),
        (
            &["export", "samples", "nano:baseline", "s.npz", "--seeds", "0..1"],
            "has the seeds 0, 1: say which, e.g. `--seeds 0`",
        ),
        (&["export", "patch", "nano:baseline", "p.pt"], "has no patch"),
        (&["export", "patch", "nano:b/soft", "p.npz"], "end it with .safetensors or .pt"),
    ] {
        let said = repository.exits(2, arguments);
        assert!(said.err.contains(reason), "{arguments:?}: {}", said.err);
    }
    assert_eq!(std::fs::read_to_string(repository.path("there.npz")).unwrap(), "precious");
    let left = |name: &str| repository.path(name).exists();
    assert!(!left("s.npz") && !left("p.pt") && !left("p.npz"));
    let said = repository.exits(1, &["export", "samples", "nano:baseline", "gone/s.npz"]);
    assert!(said.err.contains("gone/s.npz"), "{}", said.err);
}
