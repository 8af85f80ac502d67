//! `runner bench`: the works it knows, and what it says of one.

use serde_json::Value;

use crate::repository::Repository;

const WORKS: [&str; 7] = ["nano-dmp", "nano-full", "nano-sample", "s2-dmp", "s2-full", "s2-sample", "frechet"];

#[test]
fn an_unknown_work_exits_with_2_and_names_those_there_are() {
    let said = Repository::new().exits(2, &["bench", "--work", "nano-dmpp"]);
    for work in WORKS {
        assert!(said.err.contains(work), "{work}: {}", said.err);
    }
    assert!(said.err.contains("--work") && said.out.is_empty(), "{}", said.err);
}

#[test]
fn one_line_of_json_a_work_with_every_field() {
    let arguments = ["bench", "--json", "--seconds", "0", "--work", "nano-dmp", "--work", "nano-full"];
    let said = Repository::new().exits(0, &arguments);
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["work"].as_str().unwrap()).collect();
    assert_eq!(names, ["nano-dmp", "nano-full"]);
    for line in &lines {
        for field in ["step_ms", "least_ms", "images_per_s", "gflop", "gflop_per_s", "peak_gflop_per_s", "floor_ms"] {
            assert!(line[field].as_f64().unwrap() > 0.0, "{field}: {line}");
        }
        assert_eq!((&line["engine"], &line["repetitions"]), (&Value::from("fast"), &Value::from(1)));
        assert!(line["threads"].as_u64().unwrap() >= 1 && line["title"].as_str().unwrap().contains("batch 64"));
        // How large it is depends on what else the machine does meanwhile.
        assert!(line["share_of_peak"].as_f64().unwrap() > 0.0, "{line}");
        if cfg!(target_os = "linux") {
            assert!(line["peak_bytes"].as_u64().unwrap() >= line["step_bytes"].as_u64().unwrap(), "{line}");
        }
    }
    assert_eq!(lines[0]["activation_bytes"].as_u64(), Some(4 * 64 * 64 * 64 * 41));
    assert!(lines[1]["activation_bytes"].is_null());
}

#[test]
fn people_get_a_table_with_the_floor_beside_the_time() {
    let said = Repository::new().exits(0, &["bench", "--seconds", "0", "--work", "nano-dmp", "--engine", "reference"]);
    let head: Vec<&str> = said.out.lines().next().unwrap().split_whitespace().take(3).collect();
    assert_eq!(head, ["work", "ms", "floor"]);
    for part in ["nano-dmp", "DMP step (depth 4, width 64, 64 tokens, batch 64)", "engine reference"] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
}
