//! Stages that run: once, in order, whatever happens to the processes that run them.

use crate::repository::{Repository, files};

#[test]
fn a_second_reproduce_does_nothing_but_the_report() {
    let repository = Repository::new();
    let first = repository.exits(0, &["reproduce", "nano", "--json"]);
    let tally = first.json_lines().into_iter().find(|line| line.get("already_done").is_some()).unwrap();
    assert_eq!(tally["done"], tally["stages"]);
    assert!(repository.path("reports/nano.md").exists());
    let pages = || {
        files(&repository.path("reports"))
            .into_iter()
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect::<Vec<_>>()
    };
    let before = pages();

    let second = repository.exits(0, &["reproduce", "nano", "--json"]);
    let tally = second.json_lines().into_iter().find(|line| line.get("already_done").is_some()).unwrap();
    assert_eq!(tally["already_done"], tally["stages"]);
    assert_eq!(pages(), before, "the same records give the same bytes");
    assert!(repository.exits(0, &["verify"]).out.contains("sound"));

    let plan = repository.exits(0, &["plan", "nano", "--json"]).json();
    assert_eq!(plan["done"], plan["stages"]);
    assert_eq!(plan["will_run"], 0);
}

#[test]
fn editing_one_cell_runs_that_cell_only() {
    let repository = Repository::new();
    repository.exits(0, &["sweep", "experiments/nano.yaml"]);
    repository.edit("experiments/nano.yaml", "keep: 0.75", "keep: 0.5");
    let explained = repository.exits(0, &["plan", "nano", "--explain", "--json"]).json_lines();
    let will_run: Vec<&serde_json::Value> = explained.iter().filter(|stage| stage["state"] == "will_run").collect();
    assert!(!will_run.is_empty());
    for stage in &will_run {
        assert!(stage["label"].as_str().unwrap().contains("b/hard"), "{stage}");
    }
    let train = will_run.iter().find(|stage| stage["kind"] == "train").unwrap();
    assert_eq!(train["reason"], "edited");
    assert_eq!(train["differences"][0]["path"], "method.gate.selection.keep");
    assert_eq!((&train["differences"][0]["left"], &train["differences"][0]["right"]), (&0.75.into(), &0.5.into()));
    let dependents = will_run.iter().filter(|stage| stage["reason"] == "input_will_run").count();
    assert_eq!(dependents, will_run.len() - 1);

    let tally = repository.exits(0, &["sweep", "nano", "--json"]).json();
    assert_eq!(tally["done"], will_run.len());
}

#[test]
fn one_cell_is_run_with_what_it_needs_and_no_more() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano", "--cell", "b/hard"]);
    let shown = repository.exits(0, &["show", "nano:b/hard", "--json"]).json();
    assert!(shown["stages"].as_array().unwrap().iter().all(|stage| stage["state"] == "done"));
    let other = repository.exits(0, &["show", "b/soft", "--json"]).json();
    assert!(other["stages"].as_array().unwrap().iter().all(|stage| stage["state"] == "missing"));
    let status = repository.exits(0, &["status", "nano", "--json"]).json_lines();
    assert_eq!(status[0]["train"]["done"], 1);
}

#[test]
fn two_stages_are_compared_by_parameter_and_metric() {
    let repository = Repository::new();
    repository.exits(0, &["sweep", "nano"]);
    let key = |cell: &str, kind: &str| {
        let shown = repository.exits(0, &["show", &format!("nano:{cell}"), "--json"]).json();
        let stages = shown["stages"].as_array().unwrap();
        stages.iter().find(|stage| stage["kind"] == kind).unwrap()["key"].as_str().unwrap().to_owned()
    };
    let compared = repository.exits(0, &["compare", &key("b/hard", "train"), &key("b/soft", "train"), "--json"]).json();
    let paths: Vec<&str> =
        compared["parameters"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert!(
        paths.contains(&"method.gate.selection.kind")
            && paths.iter().all(|path| path.starts_with("method.gate.selection"))
    );
    let compared =
        repository.exits(0, &["compare", &key("b/hard", "metrics"), &key("b/soft", "metrics"), "--json"]).json();
    assert!(!compared["metrics"].as_array().unwrap().is_empty());
    let shown = repository.exits(0, &["show", &key("b/soft", "train")]);
    assert!(shown.out.contains("provenance") && shown.out.contains("log: "), "{}", shown.out);
    assert!(repository.exits(0, &["logs", &key("b/soft", "train")]).out.contains("done"));
}

#[test]
fn read_only_runs_nothing_and_says_what_is_missing() {
    let repository = Repository::new();
    let said = repository.exits(1, &["sweep", "nano", "--mode", "read-only", "--json"]);
    assert_eq!(said.json()["missing"], said.json()["stages"]);
    assert!(!repository.path("results").exists());
}

#[test]
fn force_runs_everything_again_to_the_same_bits() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano-backbone"]);
    let first = repository.record("results", "pretrain");
    let tally = repository.exits(0, &["run", "nano-backbone", "--mode", "force", "--json"]).json();
    assert_eq!(tally["done"], 1);
    let second = repository.record("results", "pretrain");
    assert_eq!(first["artifacts"]["weights.safetensors"], second["artifacts"]["weights.safetensors"]);
}

#[test]
fn the_command_of_a_report_runs_its_cell_again() {
    let repository = Repository::new();
    repository.exits(0, &["reproduce", "nano"]);
    let page = std::fs::read_to_string(repository.path("reports/nano.md")).unwrap();
    let command = page.split("`runner ").map(|rest| rest.split('`').next().unwrap()).find(|c| c.contains("b/hard"));
    let arguments: Vec<&str> = command.expect("a command").split(' ').chain(["--json"]).collect();
    let tally = repository.exits(0, &arguments).json();
    assert!(tally["done"].as_u64().unwrap() > 0 && tally["done"] == tally["stages"], "{arguments:?}: {tally}");
}

#[test]
fn a_report_is_not_replaced_by_an_empty_one_or_by_other_seeds() {
    let repository = Repository::new();
    repository.exits(0, &["reproduce", "nano"]);
    let content = || {
        let of = |path: std::path::PathBuf| (path.clone(), std::fs::read(&path).unwrap());
        files(&repository.path("reports")).into_iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = content();
    let said = repository.exits(1, &["report", "nano", "--results", "elsewhere"]);
    for part in ["elsewhere", "no report was written", "`runner reproduce nano --scale tiny`"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let said = repository.exits(1, &["reproduce", "nano", "--mode", "read-only", "--results", "elsewhere"]);
    assert!(said.out.contains("missing") && said.err.contains("no report was written"), "{said:#?}");
    assert_eq!(content(), before);

    repository.exits(0, &["reproduce", "nano", "--seeds", "1"]);
    assert!(repository.path("reports/tiny+seeds=1/nano.md").is_file());
    let mut after = content();
    after.retain(|path, _| !path.starts_with(repository.path("reports/tiny+seeds=1")));
    assert_eq!(after, before);
}

#[test]
fn records_name_the_program_that_made_them_and_are_listed_in_the_index() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano-backbone"]);
    let program = manifest::digest::Digest::of_file(env!("CARGO_BIN_EXE_runner").as_ref()).unwrap();
    let code = repository.record("results", "pretrain")["provenance"]["code"].clone();
    assert_eq!(code["binary_sha256"], program.to_string());
    let index = || store::frames::read_parquet(&repository.path("results/index.parquet")).unwrap().height();
    assert_eq!(index(), 1);
    repository.exits(0, &["run", "nano-extractor"]);
    assert_eq!(index(), 2);
    repository.exits(0, &["verify"]);
}

#[test]
fn a_damaged_artifact_is_found_and_made_again() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano-backbone"]);
    let weights = files(&repository.path("results/pretrain"))
        .into_iter()
        .find(|path| path.ends_with("weights.safetensors"))
        .unwrap();
    let genuine = std::fs::read(&weights).unwrap();
    let mut damaged = genuine.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, &damaged).unwrap();

    assert!(repository.exits(1, &["verify"]).out.contains("NOT sound"));
    let explained = repository.exits(0, &["plan", "nano-backbone", "--explain"]).out;
    assert!(explained.contains("damaged"), "{explained}");
    repository.exits(0, &["run", "nano-backbone"]);
    assert_eq!(std::fs::read(&weights).unwrap(), genuine);
    repository.exits(0, &["verify"]);
}

#[test]
fn seeds_add_runs_and_keep_those_that_are_there() {
    let repository = Repository::new();
    repository.exits(0, &["sweep", "nano"]);
    let plan = repository.exits(0, &["plan", "nano", "--seeds", "0..1", "--json"]).json();
    assert!(plan["done"].as_u64().unwrap() > 0 && plan["will_run"].as_u64().unwrap() > 0, "{plan}");
    let first = repository.exits(0, &["plan", "nano", "--seeds", "0", "--json"]).json();
    assert_eq!(first["will_run"], 0);
}

#[test]
fn what_no_manifest_asks_for_is_collected() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano-backbone"]);
    assert!(repository.exits(0, &["gc", "--json"]).json()["items"].as_array().unwrap().is_empty());
    repository.edit("experiments/nano-backbone.yaml", "seed: 0", "seed: 1");
    let listed = repository.exits(0, &["gc", "--json"]).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    repository.record("results", "pretrain");
    assert_eq!(repository.exits(0, &["gc", "--delete", "--json"]).json()["deleted"], true);
    assert!(!files(&repository.path("results/pretrain")).iter().any(|path| path.ends_with("record.json")));
    repository.exits(0, &["verify"]);
}

/// A scale without its data does not keep others from being collected, and what was made of its data stays.
#[test]
fn what_was_made_of_files_that_are_missing_now_is_kept() {
    let repository = Repository::new();
    let faces = "faces, image_size: 12, first: 0, count: 64}";
    let folder = "{kind: image_folder, folder: photographs, image_size: 12}";
    repository.edit("experiments/nano-backbone.yaml", &format!("{{kind: {faces}"), folder);
    for (i, image) in (0..8).map(|i| (i, data::faces::faces(12, i, 1))) {
        let path = repository.path(&format!("photographs/{i}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        data::grid_png(&image, 1, 1, &path).unwrap();
    }
    repository.exits(0, &["run", "nano-backbone"]);
    repository.exits(0, &["run", "nano-extractor"]);
    repository.edit("experiments/nano-extractor.yaml", "seed: 0", "seed: 1");
    std::fs::remove_dir_all(repository.path("photographs")).unwrap();
    let said = repository.exits(0, &["gc", "--delete", "--json"]);
    assert!(said.err.contains("data is missing for") && said.err.contains("nano-backbone"), "{}", said.err);
    repository.record("results", "pretrain");
    assert!(!files(&repository.path("results/train_extractor")).iter().any(|path| path.ends_with("record.json")));
    repository.exits(0, &["verify"]);
}

#[test]
fn the_number_of_jobs_and_threads_does_not_change_the_results() {
    let repository = Repository::new();
    repository.exits(0, &["sweep", "nano", "--jobs", "1", "--results", "one"]);
    repository.exits(0, &["sweep", "nano", "--jobs", "3", "--results", "three"]);
    let artifacts = |results: &str| {
        let root = repository.path(results);
        let mut found: Vec<_> = files(&root)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            .map(|path| (path.strip_prefix(&root).unwrap().to_owned(), std::fs::read(&path).unwrap()))
            .collect();
        found.sort();
        found
    };
    assert!(artifacts("one").len() > 8);
    assert_eq!(artifacts("one"), artifacts("three"));
}

#[test]
fn a_failing_stage_stops_its_dependents_and_nothing_else() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano", "--cell", "baseline"]);
    // A file lies where the results of training go: no stage of that kind can begin.
    repository.write("results/train", "in the way");
    let said = repository.exits(1, &["sweep", "nano", "--json"]);
    let tally = said.json();
    assert_eq!(tally["failed"], 2, "{said:#?}");
    assert!(tally["blocked"].as_u64().unwrap() >= 6, "{tally}");
    let ended = said.json_lines();
    let failed = ended.iter().find(|line| line["ended"] == "failed").unwrap();
    assert!(failed["error"].as_str().unwrap().contains("results/train"), "{failed}");

    std::fs::remove_file(repository.path("results/train")).unwrap();
    repository.exits(0, &["sweep", "nano"]);
}

/// IDX files of eight images of 12 x 12 and of their labels, whose headers say `count`.
fn idx(count: u32) -> (Vec<u8>, Vec<u8>) {
    let header = |dims: &[u32]| {
        let sizes = dims.iter().flat_map(|dim| dim.to_be_bytes());
        [0, 0, 8, dims.len() as u8].into_iter().chain(sizes).collect::<Vec<u8>>()
    };
    let images = [header(&[count, 12, 12]), (0..8 * 144).map(|i| (i % 251) as u8).collect()].concat();
    (images, [header(&[count]), (0..8).collect()].concat())
}

/// The same under gzip, in a stored block, up to where the checksum would follow.
fn truncated_gzip(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u16).to_le_bytes();
    let head = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1][..], &length, &length.map(|byte| !byte)].concat();
    [&head[..], bytes].concat()
}

#[test]
fn a_broken_dataset_fails_its_stage_with_its_name_and_stands_until_retried() {
    let repository = Repository::new();
    let faces = "data: {kind: faces, image_size: 12, first: 0, count: 64}";
    let data = "data: {kind: idx, images: images-idx3, labels: labels-idx1, image_size: 12, first: 0, count: 8}";
    repository.edit("experiments/nano-backbone.yaml", faces, data);
    repository.edit("experiments/nano-backbone.yaml", "channels: 3", "channels: 1");
    let put = |images: &[u8], labels: &[u8]| {
        std::fs::write(repository.path("images-idx3"), images).unwrap();
        std::fs::write(repository.path("labels-idx1"), labels).unwrap();
    };
    let (images, labels) = idx(8);
    let broken = [
        ("only 1152 follow", idx(9000)),
        ("holds 7 images", idx(7)),
        ("truncated", (truncated_gzip(&images), labels.clone())),
        ("truncated", (truncated_gzip(&images)[..40].to_vec(), labels.clone())),
    ];
    for (reason, (images, labels)) in &broken {
        put(images, labels);
        let said = repository.exits(1, &["run", "nano-backbone"]);
        for part in ["images-idx3", reason, "runner logs"] {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
        repository.exits(0, &["verify"]);
    }

    let said = repository.exits(1, &["run", "nano-backbone"]);
    assert!(said.err.contains("failed before") && said.err.contains("--mode retry"), "{}", said.err);
    let plan = repository.exits(0, &["plan", "nano-backbone", "--explain"]);
    assert!(plan.out.contains("--mode retry"), "{}", plan.out);
    let plan = repository.exits(0, &["plan", "nano-backbone", "--explain", "--mode", "retry"]);
    assert!(plan.out.contains("will run: failed before"), "{}", plan.out);

    put(&images, &labels);
    repository.exits(0, &["run", "nano-backbone", "--mode", "retry"]);
    repository.exits(0, &["verify"]);
}

#[test]
fn divergence_is_a_result_whose_dependents_are_skipped() {
    let repository = Repository::new();
    // Beyond the largest 32-bit number: the first step makes the prompts infinite.
    let arguments = ["nano", "--set", "train.learning_rate=1.0e39"];
    let run = |command: &'static str, more: &[&'static str]| {
        repository.exits(0, &[&[command], &arguments[..], more].concat())
    };
    let tally = run("sweep", &["--json"]).json();
    assert_eq!(tally["diverged"], 2, "{tally}");
    assert!(tally["skipped"].as_u64().unwrap() >= 8 && tally["failed"] == 0, "{tally}");
    let explained = run("plan", &["--explain"]).out;
    assert!(explained.contains("done: diverged at iteration") && explained.contains("will not run"), "{explained}");
    assert!(run("reproduce", &[]).out.contains("diverged"));
    repository.exits(0, &["verify"]);
}
