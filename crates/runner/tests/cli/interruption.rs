//! Processes that are stopped, killed or short of disk space in the middle, and runners beside each other.

use crate::repository::{Repository, files, signal, wait};

/// Long enough to be stopped in the middle.
const LONG: &str = "optimisation.iterations=1200";

#[test]
fn two_runners_share_one_results_tree() {
    let repository = Repository::new();
    let arguments = ["sweep", "nano", "--json"];
    let runners = [repository.start(&arguments), repository.start(&arguments)];
    for runner in runners {
        let said = runner.finish();
        assert_eq!(said.code, Some(0), "{said:#?}");
        let tally = said.json();
        let reached = tally["done"].as_u64().unwrap() + tally["already_done"].as_u64().unwrap();
        assert_eq!(reached, tally["stages"].as_u64().unwrap());
    }
    repository.exits(0, &["verify"]);
    // Each stage ran once: one attempt, one log.
    let logs =
        files(&repository.path("results")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "log"));
    assert!(logs.into_iter().all(|log| log.ends_with("attempt-1.log")));
}

#[cfg(unix)]
#[test]
fn killed_in_the_middle_it_ends_in_the_same_bits() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano-backbone", "--set", LONG, "--results", "undisturbed"]);

    let arguments = ["run", "nano-backbone", "--set", LONG];
    let first = repository.start(&arguments);
    repository.wait_for_log("results", "pretrain", "iterations");
    first.signal("INT");
    let said = first.finish();
    assert_eq!(said.code, Some(130), "{said:#?}");
    assert!(said.err.contains("same command"), "{}", said.err);
    let status = repository.exits(0, &["status", "--json"]).json_lines();
    assert_eq!(status[0]["pretrain"]["interrupted"], 1);

    // Killed outright, the runner leaves a child that sees it and stops by itself.
    let second = repository.start(&arguments);
    wait("the second attempt", || {
        let text = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        files(&repository.path("results"))
            .into_iter()
            .any(|path| path.ends_with("attempt-2.log") && text(path).contains("iterations"))
    });
    second.signal("KILL");
    second.finish();
    wait("the child's end", || repository.run(&["status", "--json"]).json_lines()[0]["pretrain"]["running"] == 0);
    repository.exits(0, &["verify"]);

    let third = repository.exits(0, &["run", "nano-backbone", "--set", LONG]);
    assert!(!third.err.contains("error"), "{}", third.err);
    let (disturbed, undisturbed) =
        (repository.record("results", "pretrain"), repository.record("undisturbed", "pretrain"));
    assert!(disturbed["provenance"]["cost"]["resumed_attempts"].as_u64().unwrap() >= 2);
    assert_eq!(undisturbed["provenance"]["cost"]["resumed_attempts"], 0);
    assert_eq!(disturbed["artifacts"], undisturbed["artifacts"]);
    assert_eq!(disturbed["key"], undisturbed["key"]);
}

#[cfg(unix)]
#[test]
fn embeddings_that_are_killed_go_on_at_the_next_part_to_the_same_bits() {
    let repository = Repository::new();
    let recipe = "experiments/nano-backbone.yaml";
    let text = "classes: null, text_width: 64, label_dropout: 0.0";
    repository.edit(recipe, "classes: null, label_dropout: 0.0", text);
    let data = "text: {kind: clip_formula, width: 64, depth: 2, heads: 4}\n\
                data: {kind: captions, captions: captions.json, folder: photographs, image_size: 12}";
    repository.edit(recipe, "data: {kind: faces, image_size: 12, first: 0, count: 64}", data);
    let (mut images, mut captions) = (Vec::new(), Vec::new());
    std::fs::create_dir(repository.path("photographs")).unwrap();
    for i in 0..450 {
        let image = include_bytes!("../../../data/tests/images/palette.png");
        std::fs::write(repository.path(&format!("photographs/{i}.png")), image).unwrap();
        images.push(format!(r#"{{"id": {i}, "file_name": "{i}.png"}}"#));
        captions.push(format!(r#"{{"id": {i}, "image_id": {i}, "caption": "photograph number {i}"}}"#));
    }
    let json = format!(r#"{{"images": [{}], "annotations": [{}]}}"#, images.join(","), captions.join(","));
    repository.write("captions.json", &json);

    let arguments = ["run", "nano-backbone"];
    repository.exits(0, &[&arguments[..], &["--results", "undisturbed"]].concat());
    let (first, later) = ("embeddings-000000.part", "embeddings-000256.part");
    repository.interrupt(&arguments, "embeddings", [("INT", first), ("KILL", later)]);
    assert!(repository.file("embeddings", "embeddings-000448.part").is_none(), "it was too fast to be stopped");
    repository.exits(0, &arguments);
    let [disturbed, undisturbed] = ["results", "undisturbed"].map(|results| repository.record(results, "embeddings"));
    // One, where the second attempt came to its end before it noticed that nobody listens.
    assert!(disturbed["provenance"]["cost"]["resumed_attempts"].as_u64().unwrap() >= 1);
    assert_eq!((&disturbed["metrics"]["captions"], &disturbed["key"]), (&450.0.into(), &undisturbed["key"]));
    assert_eq!(disturbed["artifacts"], undisturbed["artifacts"]);
}

#[cfg(unix)]
#[test]
fn a_child_that_is_killed_is_a_failed_stage_and_its_state_is_kept() {
    let repository = Repository::new();
    let runner = repository.start(&["run", "nano-backbone", "--set", LONG]);
    repository.wait_for_log("results", "pretrain", "iterations");
    let status = repository.exits(0, &["status", "--json"]).json_lines();
    let owner = status[1]["why"].as_str().unwrap().to_owned();
    let pid = owner.split_whitespace().nth(1).unwrap();
    signal(pid, "KILL");
    let said = runner.finish();
    assert_eq!(said.code, Some(1), "{said:#?}");
    assert!(said.err.contains("signal 9"), "{}", said.err);
    repository.exits(0, &["verify"]);
    repository.exits(0, &["run", "nano-backbone", "--set", LONG]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_twice_stops_at_once_and_leaves_a_sound_tree() {
    let repository = Repository::new();
    let endless = "optimisation.iterations=1000000";
    let mut runner = repository.start(&["run", "nano-backbone", "--set", endless]);
    repository.wait_for_log("results", "pretrain", "iterations");
    let status = || repository.exits(0, &["status", "--json"]).json_lines();
    let owner = status()[1]["why"].as_str().unwrap().to_owned();
    // A child that cannot save its state: after the first Ctrl-C the runner would wait for it for ever.
    signal(owner.split_whitespace().nth(1).unwrap(), "STOP");
    runner.signal("INT");
    runner.wait_for("once more stops at once");
    runner.signal("INT");
    let said = runner.finish();
    assert_eq!(said.code, Some(130), "{said:#?}");
    repository.exits(0, &["verify"]);
    let status = status();
    let counts = ["running", "failed", "interrupted"].map(|state| status[0]["pretrain"][state].as_u64().unwrap());
    assert_eq!(counts, [0, 0, 1], "{status:?}");
}

#[cfg(unix)]
#[test]
fn a_damaged_checkpoint_is_refused_by_its_hash_and_the_stage_can_begin_anew() {
    let repository = Repository::new();
    repository.exits(0, &["run", "nano-backbone", "--set", LONG, "--results", "undisturbed"]);
    let runner = repository.start(&["run", "nano-backbone", "--set", LONG]);
    repository.wait_for_log("results", "pretrain", "iterations");
    runner.signal("INT");
    assert_eq!(runner.finish().code, Some(130));
    let mut checkpoints = files(&repository.path("results"));
    checkpoints.retain(|path| path.ends_with("checkpoint.safetensors"));
    let [path] = checkpoints.as_slice() else { panic!("one checkpoint: {checkpoints:?}") };
    let genuine = std::fs::read(path).unwrap();
    let mut flipped = genuine.clone();
    flipped[genuine.len() / 2] ^= 1;
    let retry = ["run", "nano-backbone", "--set", LONG, "--mode", "retry"];
    for damaged in [&flipped[..], &genuine[..genuine.len() - 5], &[]] {
        std::fs::write(path, damaged).unwrap();
        let said = repository.exits(1, &retry);
        for part in ["checkpoint.safetensors", "damaged", "delete it"] {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
        repository.exits(0, &["verify"]);
    }
    std::fs::remove_file(path).unwrap();
    repository.exits(0, &retry);
    let artifacts = |results| repository.record(results, "pretrain")["artifacts"].clone();
    assert_eq!(artifacts("results"), artifacts("undisturbed"));
    repository.exits(0, &["verify"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_the_next_run_goes_on() {
    let repository = Repository::new();
    // No file may grow beyond a few kilobytes: what a full disk does to weights, without one.
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {} run nano-backbone", env!("CARGO_BIN_EXE_runner"));
    let said =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(repository.path("")).output().unwrap();
    let message = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{message}");
    assert!(message.contains("pretrain") && message.contains("too large"), "{message}");
    assert!(message.contains("free some space"), "{message}");
    repository.exits(0, &["verify"]);
    // A failure of the surroundings does not stand: the same command tries again.
    assert_eq!(repository.exits(0, &["run", "nano-backbone", "--json"]).json()["done"], 1);
}

#[test]
fn a_followed_log_ends_with_its_attempt() {
    let repository = Repository::new();
    let runner = repository.start(&["run", "nano-backbone", "--set", LONG]);
    repository.wait_for_log("results", "pretrain", "iterations");
    let status = repository.exits(0, &["status", "--json"]).json_lines();
    let followed = repository.exits(0, &["logs", status[1]["key"].as_str().unwrap(), "--follow"]);
    assert_eq!(runner.finish().code, Some(0));
    assert!(followed.out.starts_with("attempt 1 of pretrain"), "{}", followed.out);
    let lines: Vec<&str> = followed.out.lines().collect();
    assert!(lines.last().unwrap().ends_with("done"), "{}", followed.out);
    assert_eq!(lines.iter().filter(|line| line.contains("threads on")).count(), 1, "no line twice: {}", followed.out);
}
