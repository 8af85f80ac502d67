//! What the paper's scale would cost: the table of docs/paper-scale.md is what `runner plan` counts where all files are there.

use std::path::Path;

use serde_json::Value;

use crate::repository::{Repository, files};

/// Floating-point operations a second of one H100-class GPU in dense bf16.
const PEAK: f64 = 790e12;

const ARTIFACTS: [&str; 11] =
    ["table2", "table3", "table4", "table5", "table6", "table7", "table8", "table9", "figure6", "figure8", "words"];

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The project's experiments and, for all files of the paper's scale, others in their place; none of them is pinned.
fn repository() -> Repository {
    let (repository, experiments) = (Repository::new(), root().join("experiments"));
    for path in files(&experiments).into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml")) {
        let name = path.strip_prefix(&experiments).unwrap().display().to_string();
        let mut text = std::fs::read_to_string(&path).unwrap();
        if name.starts_with("paper") || name == "scales/paper.yaml" {
            let pins = text.match_indices("sha256: ").map(|(at, key)| text[at + key.len()..].split(['}', '\n']).next());
            for pin in pins.map(Option::unwrap).map(str::to_owned).collect::<Vec<_>>() {
                text = text.replace(&pin, "null");
            }
            let named = |key: &'static str| text.match_indices(key).map(|(at, key)| &text[at + key.len()..]);
            let value = |rest: &str| rest[..rest.find([',', '}', '\n']).unwrap()].to_owned();
            let folders = named(" folder: ").map(|rest| value(rest) + "/class/0.png");
            let single = named("file: ").chain(named(", captions: ")).chain(named(", archive: ")).map(value);
            folders.chain(single).for_each(|file| repository.write(&file, "in its place"));
        }
        repository.write(&format!("experiments/{name}"), &text);
    }
    repository
}

/// Stages of an artifact's plan.
fn plan(repository: &Repository, artifact: &str, more: &[&str]) -> Vec<Value> {
    let arguments = [&["plan", artifact, "--scale", "paper", "--explain", "--json"][..], more].concat();
    let mut lines = repository.exits(0, &arguments).json_lines();
    lines.retain(|line| line.get("kind").is_some());
    lines
}

/// Eflop of the stages of some kinds.
fn work(stages: &[Value], kinds: &[&str]) -> f64 {
    let wanted = stages.iter().filter(|stage| kinds.iter().any(|kind| stage["kind"] == *kind));
    wanted.map(|stage| stage["flops"].as_f64().unwrap() / 1e18).sum()
}

fn row(repository: &Repository, artifact: &str) -> String {
    let (all, one) = (plan(repository, artifact, &[]), plan(repository, artifact, &["--seeds", "0"]));
    let count = |kind: &str, units: Option<f64>| {
        let of_kind = all.iter().filter(|stage| stage["kind"] == kind);
        of_kind.filter(|stage| units.is_none_or(|units| stage["units"].as_f64() == Some(units))).count()
    };
    let shown = match count("sample", Some(16.0)) {
        0 => String::new(),
        some => format!(" and {some} of 16"),
    };
    let parts: [&[&str]; 3] = [&["train"], &["sample"], &["features", "decode"]];
    let [train, sample, judge] = parts.map(|kinds| work(&all, kinds));
    let (all, one) = (train + sample + judge, work(&one, &parts.concat()));
    let hours = |eflop: f64| eflop * 1e18 / PEAK / 3600.0;
    format!(
        "| `{artifact}` | {}, {}{shown} | {train:.1} | {sample:.1} | {judge:.1} | {:.1} | {one:.1} | {:.1} |",
        count("train", None),
        count("sample", Some(50_000.0)),
        hours(all),
        hours(one)
    )
}

#[test]
fn the_documented_cost_is_the_plans() {
    let repository = repository();
    let rows: Vec<String> = ARTIFACTS.iter().map(|artifact| row(&repository, artifact)).collect();
    let page = std::fs::read_to_string(root().join("docs/paper-scale.md")).unwrap();
    assert!(
        rows.iter().all(|row| page.contains(row)),
        "docs/paper-scale.md should have these rows:\n{}",
        rows.join("\n")
    );
}
