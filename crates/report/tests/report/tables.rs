//! Artifacts other than Table 4: tables of a setting of their own, other metrics, series, what cannot be run, sizes.

use std::fs;
use std::time::Duration;

use manifest::claim::Metric;
use manifest::digest::Digest;
use manifest::plan::{Input, NotRun};
use report::Error;
use report::sizes::Size;
use store::Outcome;

use crate::fixture::{Bench, plan_of};
use crate::{row, verdict};

/// The verdict that the section of a metric gives a cell.
fn said<'p>(page: &'p str, section: &str, cell: &str) -> &'p str {
    let section = page.split(section).nth(1).unwrap_or_else(|| panic!("no {section} in {page}"));
    let line =
        section.lines().find(|line| line.starts_with(&format!("| `{cell}`"))).unwrap_or_else(|| panic!("no {cell}"));
    line.split('|').nth(6).unwrap().trim()
}

#[test]
fn a_table_of_another_setting_judges_every_metric_that_has_a_claim() {
    let bench = Bench::new(plan_of("table8", &[0, 1, 2], &[]));
    for (cell, distance, precision, recall) in [
        ("imagenet/baseline", [2.0, 2.1, 2.0], [0.8, 0.81, 0.8], [0.5, 0.5, 0.51]),
        ("imagenet/finetune", [5.0, 5.2, 5.1], [0.6, 0.62, 0.61], [0.4, 0.41, 0.4]),
        ("imagenet/dmp", [1.8, 1.9, 1.81], [0.801, 0.811, 0.8], [0.5, 0.501, 0.51]),
        ("imagenet/positive_control", [9.0, 9.1, 9.0], [0.0; 3], [0.0; 3]),
    ] {
        bench.measure(cell, &distance);
        if !cell.ends_with("positive_control") {
            bench.further(cell, "coverage", &[("precision", &precision), ("recall", &recall)]);
            bench.further(cell, "extrapolation", &[("fd_faces_cnn_infinity", &distance)]);
        }
    }
    let (report, page) = bench.page();
    let left_out = "**Not measured:** the Inception score (the extractor tells no classes apart); sFID (the extractor has no spatial features).";
    assert!(page.contains(left_out), "{page}");
    assert_eq!(verdict(&report.rows, "imagenet/finetune"), "direction holds");
    assert!(page.contains("## Precision\n\nHigher is better."), "{page}");
    assert_eq!(said(&page, "## Precision", "imagenet/finetune"), "direction holds");
    // The paper's recall rises with fine-tuning.
    assert_eq!(said(&page, "## Recall", "imagenet/finetune"), "**direction contradicted**");
    // 0.83 and 0.83: almost the same, by an interval within 5%.
    assert_eq!(said(&page, "## Precision", "imagenet/dmp"), "direction holds");
    assert_eq!(said(&page, "## Precision", "imagenet/prompt_tuning"), "not run");
    // What no claim is about is shown, not judged.
    let further = page.split("## Further measures").nth(1).unwrap();
    assert!(further.contains("fd_faces_cnn_infinity") && !further.contains(" precision "), "{further}");
    assert!(bench.reports().join("table8/imagenet/precision.csv").is_file());
    assert!(page.contains("](table8/imagenet/differences.svg)"), "{page}");
    assert!(page.contains("# Class-conditional generation\n\n## ImageNet 256, DiT-XL/2\n"), "{page}");
}

#[test]
fn a_claimed_divergence_holds_where_it_diverges() {
    let bench = Bench::new(plan_of("words", &[0, 1], &[]));
    bench.measure("baseline", &[2.0, 2.1]);
    bench.measure("initialisation/zero", &[1.9, 2.0]);
    bench.measure("position/prepend_256", &[2.5, 2.61]);
    bench.measure("positive_control", &[9.0, 9.1]);
    for seed in [0, 1] {
        bench.train("initialisation/random", seed, 20, Outcome::Diverged { iteration: 23 }, |i| i);
    }
    bench.activation("initialisation/zero", 0, 4, 64);
    bench.activation("initialisation/zero", 1, 4, 64);
    let (report, page) = bench.page();
    assert_eq!(verdict(&report.rows, "initialisation/random"), "direction holds");
    assert_eq!(row(&report.rows, "initialisation/random").state, "diverged at iteration 23");
    assert_eq!(verdict(&report.rows, "position/prepend_256"), "inconclusive", "worse is not diverged");
    assert!(
        page.contains("The paper says that `position/prepend_256` diverges; being worse is no divergence"),
        "{page}"
    );
    // Without a gate there is a zero only where something was sampled.
    assert_eq!(said(&page, "## Prompts used at high t", "initialisation/zero"), "not run");
    bench.sample("baseline", 0, 8);
    bench.sample("baseline", 1, 8);
    let (_, page) = bench.page();
    // The fixture's gate is broad at high t; both seeds have the same one.
    assert!(page.contains("## Prompts used at high t beside low t"), "{page}");
    assert_eq!(said(&page, "## Prompts used at high t", "initialisation/zero"), "direction holds");
}

#[test]
fn a_gate_that_hardly_moves_is_not_broader_at_high_t() {
    let judged = |size: f64, from_a_file: bool| {
        let mut bench = Bench::new(plan_of("words", &[0, 1], &[]));
        let cells = &mut bench.table_mut().cells;
        let zero = cells.iter_mut().find(|cell| cell.id == "initialisation/zero").unwrap();
        let file = Input::File { sha256: Digest::of(b"theirs"), path: "theirs.pt".into() };
        zero.trained = from_a_file.then_some(file);
        for (cell, distance) in [("baseline", [2.0, 2.1]), ("initialisation/zero", [1.9, 2.0])] {
            bench.measure(cell, &distance);
        }
        bench.measure("positive_control", &[9.0, 9.1]);
        for seed in [0, 1] {
            bench.gate("initialisation/zero", seed, (4, 64), size * (1.0 + 0.01 * seed as f64));
            bench.sample("baseline", seed, 8);
        }
        let (_, page) = bench.page();
        assert!(page.contains("A gain of less than 0.001 either way is none"), "{page}");
        said(&page, "## Prompts used at high t beside low t", "initialisation/zero").to_owned()
    };
    assert_eq!([judged(3.0, false), judged(0.01, false)], ["direction holds", "inconclusive"]);
    // One gate from a file is one, whatever the number of seeds.
    assert_eq!(judged(3.0, true), "inconclusive");
}

#[test]
fn a_claimed_divergence_is_judged_by_its_own_seeds() {
    let bench = Bench::new(plan_of("words", &[0, 1], &[]));
    bench.measure("initialisation/zero", &[1.9, 2.0]);
    bench.measure("position/prepend_256", &[2.5, 2.61]);
    bench.measure("positive_control", &[9.0, 9.1]);
    bench.measure("baseline", &[2.0, 2.1]);
    bench.train("initialisation/random", 0, 20, Outcome::Diverged { iteration: 23 }, |i| i);
    let report = bench.page().0;
    assert_eq!(verdict(&report.rows, "position/prepend_256"), "inconclusive", "worse, but finite");
    assert_eq!(verdict(&report.rows, "initialisation/random"), "inconclusive", "one seed of two");
}

#[test]
fn no_verdict_rests_on_a_clock() {
    let bench = Bench::new(plan_of("words", &[0, 1, 2], &[]));
    bench.measure("baseline", &[2.0, 2.1, 2.05]);
    // By these times, prepended prompts would be slower and added ones would not.
    for (cell, milliseconds) in [("baseline", 1), ("initialisation/zero", 1), ("position/prepend_50", 40)] {
        bench.took.set(Duration::from_millis(milliseconds));
        for seed in [0, 1, 2] {
            bench.sample(cell, seed, 8);
        }
    }
    let (_, page) = bench.page();
    for cell in ["initialisation/zero", "position/prepend_50"] {
        assert_eq!(said(&page, "## Seconds a sample takes", cell), "inconclusive", "{page}");
    }
    assert!(page.contains("No record knows what else the machine did meanwhile"), "{page}");
    // Operations need no clock, and change no verdict.
    let counted = "**Counted, not timed:** at the paper's size (DiT-B/2), a forward pass takes 1.0008 times (`initialisation/zero`) and \
                   1.2500 times (`position/prepend_50`) the operations of one without a patch;";
    assert_eq!(page.matches(counted).count(), 1, "{page}");
    assert!(!page.contains("**Not measured:**"), "{page}");
}

#[test]
fn cells_from_scratch_stand_beside_a_backbone_and_two_backbones_do_not() {
    let bench = Bench::new(plan_of("table6", &[0, 1], &[]));
    let cells = ["scratch/baseline", "scratch/dit_100k", "scratch/dmp_100k"];
    for (i, cell) in cells.into_iter().enumerate() {
        bench.measure(cell, &[2.0 + i as f64, 2.1 + i as f64]);
        for seed in [0, 1] {
            bench.sample(cell, seed, 8);
        }
    }
    let report = bench.page().0;
    assert!(cells.iter().all(|cell| row(&report.rows, cell).state == "measured"));

    let mut mixed = plan_of("table4", &[0, 1], &["numerics.engine=reference"]);
    let weights = "backbone.weights={file: experiments/weights/tiny-extractor.safetensors, sha256: null}";
    let other = plan_of("table4", &[0, 1], &["numerics.engine=reference", weights]);
    let foreign = other.tables[0].cell("b/hard").unwrap().runs.clone();
    mixed.tables[0].cells.iter_mut().find(|cell| cell.id == "b/hard").unwrap().runs = foreign;
    mixed.stages.extend(other.stages);
    let bench = Bench::new(mixed);
    for cell in ["baseline", "b/hard"] {
        bench.measure(cell, &[6.0, 6.1]);
        bench.sample(cell, 0, 8);
    }
    let error = bench.build().unwrap_err();
    assert!(matches!(&error, Error::Mixed { what, .. } if what == "the backbone"), "{error}");
}

#[test]
fn what_cannot_be_run_says_why_beside_the_papers_values() {
    // As a scale without the setting plans it.
    let mut plan = plan_of("table2", &[0], &[]);
    let laion = plan.tables.pop().unwrap();
    plan.not_run.extend(laion.cells.into_iter().map(|cell| NotRun {
        cell: cell.id,
        title: cell.title,
        claims: cell.claim.into_iter().collect(),
        reason: "scale `tiny` has no setting `laion`".to_owned(),
    }));
    let bench = Bench::new(plan);
    bench.measure("baseline", &[2.0]);
    let (report, page) = bench.page();
    let not_run = page.split("## Not run").nth(1).unwrap();
    for part in
        ["`laion/dmp` DMP", "35.44", "scale \\`tiny\\` has no setting \\`laion\\`", "`laion/prompt_tuning`", "35.93"]
    {
        assert!(not_run.contains(part), "{part}: {not_run}");
    }
    assert_eq!(report.not_run.len(), 4);
    // One measured run tells no spread of what has no subsets.
    assert_eq!(row(&report.rows, "ffhq/dmp").state, "not run");
}

/// As of a DiT's: the stage that trains it, and its learning rates; and its cells are judged as others are.
#[test]
fn a_unet_that_was_trained_is_said_to_be() {
    let mut plan = plan_of("table2", &[0, 1, 2], &[]);
    plan.tables = plan.tables.split_off(2);
    let bench = Bench::new(plan);
    for (i, cell) in ["baseline", "finetune", "prompt_tuning", "dmp"].into_iter().enumerate() {
        let distance = 6.0 + i as f64;
        bench.measure(&format!("laion/{cell}"), &[distance, distance + 0.01, distance + 0.02]);
    }
    bench.measure("laion/positive_control", &[20.0, 20.1, 20.2]);
    let (_, page) = bench.page();
    let backbone = "backbone `tiny-unet-backbone` (trained by stage `";
    assert!(page.contains(backbone) && page.contains(" at learning rate 2e-3, 2e-5 at its end)"), "{page}");
    assert!(
        !page.contains("backbone `tiny-unet-backbone` (weights by formula") && page.contains("engine reference/"),
        "{page}"
    );
    assert!(page.contains("direction contradicted"), "{page}");
}

#[test]
fn a_series_is_drawn_over_the_iterations() {
    let bench = Bench::new(plan_of("table3", &[0, 1], &[]));
    bench.measure("large/baseline", &[2.0, 2.1]);
    for (i, cell) in ["large/dmp_10k", "large/dmp_20k", "large/dmp_50k"].into_iter().enumerate() {
        bench.measure(cell, &[1.9 - 0.1 * i as f64, 2.01 - 0.1 * i as f64]);
    }
    let (_, page) = bench.page();
    assert!(page.contains("](table3/large/series.svg)"), "{page}");
    let svg = fs::read_to_string(bench.reports().join("table3/large/series.svg")).unwrap();
    // Ours: three curves' starts and three points; the paper's: three starts and fifteen points.
    assert_eq!(svg.matches("<circle").count(), 3 + 3 + 3 + 15);
}

#[test]
fn what_is_trained_from_scratch_neither_starts_at_the_backbone_nor_is_subtracted_from_it() {
    let bench = Bench::new(plan_of("table6", &[0, 1], &[]));
    for (cell, distance) in [
        ("scratch/baseline", [1.2, 1.3]),
        ("scratch/dit_80k", [19.0, 20.0]),
        ("scratch/dmp_80k", [15.0, 16.1]),
        ("scratch/dit_100k", [14.0, 15.0]),
        ("scratch/dmp_100k", [11.0, 12.01]),
        ("scratch/positive_control", [30.0, 31.1]),
    ] {
        bench.measure(cell, &distance);
    }
    for cell in ["scratch/baseline", "scratch/dit_100k", "scratch/dmp_100k"] {
        bench.sample(cell, 0, 8);
    }
    let (_, page) = bench.page();
    let drawn = |name: &str| fs::read_to_string(bench.reports().join("table6/scratch").join(name)).unwrap();
    // Two points of two curves, and three of two in the paper: no beginning.
    assert_eq!(drawn("series.svg").matches("<circle").count(), 10);
    assert!(page.contains("All begin as the same network, untrained."), "{page}");
    let samples = drawn("samples.svg");
    assert!(samples.contains(": baseline, from scratch, DMP, from scratch<"), "{samples}");
    assert!(!page.contains("Last row: what the method changes"), "{page}");
    let row = page.lines().find(|line| line.starts_with("| `scratch/dmp_80k`")).unwrap();
    assert!(row.contains("at 30 times the paper's learning rate"), "{row}");
    assert!(row.contains("`scratch/dit_80k`: -3.95 ") && row.ends_with("| direction holds |"), "{row}");
}

#[test]
fn sizes_are_compared_digit_by_digit() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let loaded = manifest::Workspace::open(root).unwrap().load_count("table1").unwrap();
    let size = |patch: usize| Size { base: 130_000_000, patch, noise: 0, flops: (1e9, 1e6), kept: (1 << 20, 1) };
    let sizes = [size(2_556_416), size(6_554_112), size(8_552_960), size(1)];
    let folder = tempfile::tempdir().unwrap();
    let report = report::sizes::write(&loaded.count, &loaded.claims, &sizes, folder.path()).unwrap();
    let wrong: Vec<&str> = report.claims.iter().filter(|claim| !claim.3).map(|claim| claim.0.as_str()).collect();
    assert_eq!(wrong, ["t1.dit_l2.base", "t1.sd15.base", "t1.sd15.dmp", "t1.sd15.relative"]);
    let page = fs::read_to_string(&report.files[0]).unwrap();
    assert!(
        page.contains("132.5 M, paper 132.5 M: reproduced") && page.contains("890 M, paper 892 M: **contradicted**"),
        "{page}"
    );
    assert!(loaded.claims.iter().any(|claim| claim.metric == Metric::ParametersAdded));
}
