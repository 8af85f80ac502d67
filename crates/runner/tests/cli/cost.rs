//! What the paper's scale would cost: the numbers of docs/paper-scale.md, from the plan of each table.

use std::path::Path;

use crate::repository::{Repository, files};

/// Floating-point operations a second of one H100-class GPU in dense bf16.
const PEAK: f64 = 790e12;

/// The repository's experiments with stand-ins for all files of the paper's scale, none of them pinned.
fn repository() -> Repository {
    let repository = Repository::new();
    for name in ["nano.yaml", "nano-backbone.yaml", "nano-extractor.yaml"] {
        std::fs::remove_file(repository.path("experiments").join(name)).unwrap();
    }
    let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut wanted = Vec::new();
    for path in files(&experiments).into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&experiments).unwrap().display().to_string();
        let of_paper = name.starts_with("paper") || name == "scales/paper.yaml";
        let unpinned = |line: &str| match line.split_once("sha256: ") {
            Some((before, hash)) if of_paper && !hash.starts_with("null") => format!("{before}sha256: null"),
            _ => line.to_owned(),
        };
        repository.write(&format!("experiments/{name}"), &text.lines().map(|line| unpinned(line) + "\n").collect::<String>());
        if of_paper {
            let after = |key: &str| text.match_indices(key).map(|(at, _)| text[at + key.len()..].to_owned()).collect::<Vec<_>>();
            let value = |rest: String| rest.split([',', '}', '\n', ' ']).next().unwrap_or_default().to_owned();
            wanted.extend(["file: ", "captions: "].into_iter().flat_map(after).map(value));
            wanted.extend(after("folder: ").into_iter().map(|folder| value(folder) + "/class/0.png"));
        }
    }
    for file in wanted.iter().filter(|file| !file.starts_with('{')) {
        repository.write(file, "a stand-in");
    }
    repository
}

/// Prints the table: `just paper-cost`.
#[test]
#[ignore = "prints a table for docs/paper-scale.md, and checks only that everything is planned"]
fn what_the_papers_scale_costs() {
    let repository = repository();
    println!("| `NAME` | training runs, sets of 50,000 (3 seeds) | training, Eflop | sampling, Eflop | decoding and features, Eflop | floor, hours | one seed: Eflop | floor, hours |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for name in ["table2", "table3", "table4", "table5", "table6", "table7", "table8", "table9", "figure6", "figure8", "words"] {
        let plan = |more: &[&str]| {
            let arguments = [&["plan", name, "--scale", "paper", "--explain", "--json"][..], more].concat();
            let mut stages = repository.exits(0, &arguments).json_lines();
            stages.retain(|line| line.get("kind").is_some());
            stages
        };
        let (all, one) = (plan(&[]), plan(&["--seeds", "0"]));
        let of = |stages: &[serde_json::Value], kind: &str| -> Vec<(f64, f64)> {
            let number = |stage: &serde_json::Value, key: &str| stage[key].as_f64().unwrap();
            let wanted = stages.iter().filter(|stage| stage["kind"] == kind);
            wanted.map(|stage| (number(stage, "flops") / 1e18, number(stage, "units"))).collect()
        };
        let sum = |stages: &[serde_json::Value], kind: &str| of(stages, kind).iter().map(|(flops, _)| flops).sum::<f64>();
        let total = |stages: &[serde_json::Value]| {
            ["train", "sample", "features", "encode", "decode", "embeddings"].map(|kind| sum(stages, kind)).iter().sum::<f64>()
        };
        let sets = |count: f64| of(&all, "sample").iter().filter(|(_, units)| *units == count).count();
        let hours = |eflop: f64| eflop * 1e18 / PEAK / 3600.0;
        let (whole, single) = (total(&all), total(&one));
        let shown = match sets(16.0) {
            0 => String::new(),
            some => format!(" and {some} of 16"),
        };
        println!(
            "| `{name}` | {}, {}{shown} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            of(&all, "train").len(),
            sets(50_000.0),
            sum(&all, "train"),
            sum(&all, "sample"),
            sum(&all, "features") + sum(&all, "decode"),
            hours(whole),
            single,
            hours(single),
        );
        assert!(sets(50_000.0) > 0 && whole > single, "{name}");
    }
}
