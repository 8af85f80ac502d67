//! What is typed wrongly, or is wrong in a file: exit code 2 or 3, and a message that says where, why and what next.

use crate::repository::Repository;

#[test]
fn help_and_version_exit_with_0_and_teach_by_example() {
    let repository = Repository::new();
    let help = repository.exits(0, &["--help"]);
    for word in ["reproduce", "runner plan table4 --explain", "130 interrupted"] {
        assert!(help.out.contains(word), "{word}");
    }
    for command in
        ["plan", "sweep", "run", "reproduce", "report", "status", "show", "logs", "compare", "gc", "doctor", "bench"]
    {
        let help = repository.exits(0, &[command, "--help"]);
        assert!(help.out.contains(&format!("runner {command}")), "{command} has no example: {}", help.out);
    }
    for words in [
        ["data", "list"],
        ["data", "fetch"],
        ["data", "check"],
        ["weights", "list"],
        ["weights", "fetch"],
        ["weights", "check"],
        ["weights", "convert"],
    ] {
        let help = repository.exits(0, &[words[0], words[1], "--help"]);
        assert!(help.out.contains(&format!("runner {} {}", words[0], words[1])), "{words:?} has no example");
    }
    repository.exits(0, &["--version"]);
    assert!(repository.exits(0, &["completions", "bash"]).out.contains("reproduce"));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let repository = Repository::new();
    for arguments in [
        &["frobnicate"][..],
        &["plan"],
        &["plan", "nano", "--frobnicate"],
        &["plan", "nano", "--seeds", "2..0"],
        &["plan", "nano", "--seeds", "x"],
        &["plan", "nano", "--device", "tpu"],
        &["plan", "nano", "--jobs", "0"],
        &["plan", "nano", "--jobs", "-1"],
        &["plan", "nano", "--engine", "quick"],
        &["plan", "nano", "--mode", "maybe"],
        &["bench", "--seconds", "-1"],
        &["bench", "--seconds", "nan"],
        &["data", "fetch"],
        &["data", "check", ".", "--as", "zip"],
        &["data", "check", ".", "--image-size", "0"],
        &["weights", "check", "x.pt", "--as", "dit-b3"],
        &["weights", "convert", "x.pt"],
        &["weights", "convert", "x.pt", "y.pt", "--names", "original"],
    ] {
        let said = repository.exits(2, arguments);
        assert!(said.err.starts_with("error: "), "{arguments:?}: {}", said.err);
        assert!(said.out.is_empty());
    }
}

#[test]
fn unknown_names_bring_the_nearest_known_one() {
    let repository = Repository::new();
    let cases: [(&[&str], &str); 7] = [
        (&["plan", "nanu"], "`nano`"),
        (&["reproduce", "nanno"], "`nano`"),
        (&["plan", "nano", "--scale", "tinny"], "`tiny`"),
        (&["plan", "nano", "--set", "train.iteration=5"], "`iterations`"),
        (&["plan", "nano", "--set", "method.gate.selection.kind=sof"], "soft"),
        (&["run", "nano", "--cell", "b/hrad"], "`b/hard`"),
        (&["show", "b/sof"], "`b/soft`"),
    ];
    for (arguments, nearest) in cases {
        let said = repository.exits(2, arguments);
        assert!(said.err.contains(nearest), "{arguments:?}: {}", said.err);
        assert!(!said.err.contains("panicked"));
    }
}

#[test]
fn a_wrong_value_in_an_option_is_named_with_the_option() {
    let repository = Repository::new();
    for value in
        ["train.iterations=0", "train.iterations=-3", "train.iterations=many", "train.batch=.nan", "train=", "train"]
    {
        let said = repository.exits(2, &["plan", "nano", "--set", value]);
        assert!(said.err.contains(&format!("--set {value}")), "{value}: {}", said.err);
    }
    for value in ["0", "1.5", ".nan"] {
        let set = format!("method.gate.selection={{kind: top_k, keep: {value}}}");
        let said = repository.exits(2, &["plan", "nano", "--set", &set]);
        assert!(said.err.contains("keep"), "{value}: {}", said.err);
    }
}

#[test]
fn a_wrong_manifest_is_named_with_line_and_column() {
    let repository = Repository::new();
    let cases = [
        ("experiments/nano.yaml", "soft: {}", "soft: {sett: {}}", "experiments/nano.yaml:11:"),
        ("experiments/nano.yaml", "soft: {}", "hard: {}", "experiments/nano.yaml:11:"),
        ("experiments/scales/tiny.yaml", "batch: 4", "batch: 0", "experiments/scales/tiny.yaml:5:"),
        ("experiments/nano-backbone.yaml", "heads: 2", "heads: 3", "heads"),
        ("experiments/nano-backbone.yaml", "seed: 0", "seed: 0\nseed: 1", "seed"),
    ];
    for (file, from, to, place) in cases {
        let before = std::fs::read_to_string(repository.path(file)).unwrap();
        repository.edit(file, from, to);
        let said = repository.exits(2, &["plan", "nano"]);
        assert!(said.err.contains(place) && said.err.contains(file), "{file} {to}: {}", said.err);
        repository.write(file, &before);
    }
    repository.exits(0, &["plan", "nano"]);
}

#[test]
fn outside_of_a_repository_the_error_says_how_to_name_one() {
    let repository = Repository::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let said = repository.command(&["plan", "nano"]).current_dir(elsewhere.path()).output().unwrap();
    let message = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(message.contains("experiments") && message.contains("--root"), "{message}");

    let root = repository.path("").display().to_string();
    let said = repository.command(&["plan", "nano", "--root", &root]).current_dir(elsewhere.path()).output().unwrap();
    assert_eq!(said.status.code(), Some(0));
    let below =
        repository.command(&["plan", "nano"]).current_dir(repository.path("experiments/scales")).output().unwrap();
    assert_eq!(below.status.code(), Some(0), "the root is found by walking up");
}

#[test]
fn missing_data_exits_with_3_and_names_the_places_it_was_looked_for() {
    let repository = Repository::new();
    let faces = "data: {kind: faces, image_size: 12, first: 0, count: 64}";
    let folder = "data: {kind: image_folder, folder: photographs, image_size: 12}";
    repository.edit("experiments/scales/tiny.yaml", faces, folder);
    for command in ["plan", "reproduce"] {
        let said = repository.exits(3, &[command, "nano"]);
        assert!(said.err.contains("photographs") && said.err.contains("tiny.yaml:2:"), "{}", said.err);
    }
    assert_eq!(repository.run(&["doctor"]).code, Some(3));
}

#[test]
fn shipped_weights_with_a_wrong_hash_exit_with_3_before_anything_runs() {
    let repository = Repository::new();
    repository.write("weights.safetensors", "not the weights that were pinned");
    let pin = "0".repeat(64);
    let weights = format!("{{recipe: nano-backbone, weights: {{file: weights.safetensors, sha256: \"{pin}\"}}}}");
    repository.edit("experiments/scales/tiny.yaml", "{recipe: nano-backbone}", &weights);
    let said = repository.exits(3, &["reproduce", "nano"]);
    assert!(said.err.contains("weights.safetensors") && said.err.contains(&pin), "{}", said.err);
    assert!(!repository.path("results/train").exists());
}

#[test]
fn keys_that_do_not_exist_are_usage_errors() {
    let repository = Repository::new();
    for arguments in [&["show", "abcd"][..], &["logs", "abcd"], &["compare", "abcd", "ef01"], &["show", "abc"]] {
        let said = repository.exits(2, arguments);
        assert!(said.err.starts_with("error: "), "{arguments:?}: {}", said.err);
    }
}

#[cfg(unix)]
#[test]
fn a_results_directory_that_cannot_be_written_is_named_with_the_option() {
    let repository = Repository::new();
    repository.write("file", "not a folder");
    let said = repository.exits(1, &["reproduce", "nano", "--results", "file/results"]);
    assert!(said.err.contains("file/results") && said.err.contains("--results"), "{}", said.err);
    let said = repository.exits(1, &["reproduce", "nano", "--reports", "file/reports"]);
    assert!(said.err.contains("file/reports cannot be written: ") && said.err.contains("--reports"), "{}", said.err);
    assert!(!repository.path("results/pretrain").exists(), "it is said before anything runs");
    let said = repository.exits(1, &["doctor", "--reports", "file"]);
    assert!(said.out.contains("FAILED"), "{}", said.out);
    // Looking needs no writing.
    repository.exits(0, &["plan", "nano", "--results", "nothing/here"]);
    assert!(!repository.path("nothing").exists());
}

#[test]
fn results_of_another_format_are_left_alone() {
    let repository = Repository::new();
    repository.write("results/format", "999\n");
    let said = repository.exits(1, &["reproduce", "nano"]);
    assert!(said.err.contains("999"), "{}", said.err);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let repository = Repository::new();
    let mut command = repository.command(&["schema"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = child.wait_with_output().unwrap();
    assert_eq!(said.status.code(), Some(0));
    assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn a_missing_gpu_exits_with_3_before_anything_runs() {
    let repository = Repository::new();
    let said = repository.exits(3, &["reproduce", "nano", "--device", "cuda:999"]);
    assert!(said.err.contains("cuda:999"), "{}", said.err);
    assert!(!repository.path("reports").exists() && !repository.path("results/pretrain").exists());
    assert!(repository.exits(3, &["doctor", "--device", "cuda:999"]).out.contains("MISSING"));
    repository.exits(0, &["plan", "nano", "--device", "cuda:999"]);
}
