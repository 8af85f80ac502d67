//! Reports from results trees that are written through the store.

mod fixture;
mod published;
mod tables;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fixture::{Bench, finished, full, metric, operations, plan, plan_of};
use report::{Error, Row};
use store::Outcome;

fn row<'r>(rows: &'r [Row], cell: &str) -> &'r Row {
    rows.iter().find(|row| row.cell == cell).unwrap()
}

fn verdict(rows: &[Row], cell: &str) -> String {
    row(rows, cell).verdict.clone().unwrap_or_default()
}

fn contrast(rows: &[Row], cell: &str, against: &str) -> String {
    let row = row(rows, cell);
    row.contrasts.iter().find(|(other, _)| other == against).map(|(_, verdict)| verdict.clone()).unwrap_or_default()
}

/// The line of the results table that begins with a cell's id.
fn line<'p>(page: &'p str, cell: &str) -> &'p str {
    let results = page.split("## Results").nth(1).unwrap();
    results
        .lines()
        .find(|line| line.starts_with(&format!("| `{cell}`")))
        .unwrap_or_else(|| panic!("no line for {cell}"))
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_verdict_is_given_where_it_is_due() {
    let bench = full(&[0, 1, 2]);
    let (report, page) = bench.page();
    let rows = &report.rows;
    assert_eq!(report.control_shows, Some(true));
    assert_eq!(verdict(rows, "baseline"), "");
    assert_eq!(verdict(rows, "a/attention"), "direction holds");
    assert_eq!(contrast(rows, "a/attention", "a/linear"), "direction holds");
    assert_eq!(verdict(rows, "b/hard"), "direction holds");
    assert_eq!(contrast(rows, "b/hard", "b/soft"), "direction contradicted");
    assert_eq!(contrast(rows, "c/uniform", "c/distinct"), "inconclusive");
    assert_eq!(contrast(rows, "e/ib1_lb2", "e/ib1_lb1"), "identical by construction");
    assert_eq!(verdict(rows, "d/prepend"), "diverged");
    assert_eq!(contrast(rows, "d/prepend", "d/add"), "diverged");
    assert_eq!(row(rows, "d/prepend").state, "diverged at iteration 73");
    assert_eq!(verdict(rows, "reference/finetune"), "not run");
    assert_eq!(row(rows, "reference/finetune").state, "not run");
    assert_eq!(verdict(rows, "reference/prompt_tuning"), "direction contradicted");
    assert_eq!(contrast(rows, "depth/half", "depth/first"), "direction holds");

    assert!(line(&page, "b/hard").contains("**direction contradicted**"));
    assert!(line(&page, "b/hard").contains("5.96"), "the paper's value");
    assert!(line(&page, "d/prepend").contains("diverged at iteration 73"));
    assert!(line(&page, "reference/finetune").contains("not run"));
    assert!(line(&page, "b/soft").contains("same run as `a/linear`"));
    assert!(page.contains("**Positive control**") && page.contains("it shows"));
    assert!(page.contains("times their root mean square, must make it worse"));
    assert!(page.contains("`runner run experiments/table4.yaml --cell b/hard --mode force --scale tiny`"));
    // The paper's b/hard and b/soft lie 1.5% apart.
    assert!(page.contains("borderline"));
    // The load loss has no gradient, and yet the paper prints two values.
    assert!(page.contains("- `e/ib0_lb1` and `e/ib0_lb0`: 5.96 and 6.11, -2.5%"));
    // One run under several names is judged once: 9 measured differences to the baseline, 8 between cells.
    assert!(page.contains("not corrected for their number (17 on different runs)"), "{page}");
    assert!(line(&page, "b/soft").contains("| as `a/linear` "), "{}", line(&page, "b/soft"));
    assert!(line(&page, "e/ib0_lb1").contains("| as `e/ib0_lb0` "), "{}", line(&page, "e/ib0_lb1"));
    assert!(line(&page, "e/ib1_lb2").contains("identical by construction"));
    assert!(page.contains("`baseline` is not trained: its sd is of sampling seeds alone."));
    // The weights of attention to the letter are ones: the losses on weights do not act on it.
    let balance: Vec<&str> =
        page.lines().filter(|line| line.starts_with("- Importance loss") || line.starts_with("- Load loss")).collect();
    assert_eq!(balance.len(), 2);
    assert!(balance.iter().all(|line| line.contains("`a/linear` among them")), "{balance:?}");
    // No table has two columns of one name, and zero has no sign.
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if lines.peek().is_some_and(|next| next.starts_with("|--")) {
            let names: Vec<&str> = line.split('|').map(str::trim).filter(|name| !name.is_empty()).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        }
    }
    let zeros = |word: &str| {
        word.starts_with(['-', '+']) && word.contains('.') && !word.contains(|c: char| ('1'..='9').contains(&c))
    };
    assert!(!page.split([' ', '[', ']', ',']).any(zeros));
    // At this scale nothing is ever called reproduced.
    assert!(!line(&page, "a/attention").contains("reproduced"));
}

#[test]
fn means_and_differences_are_those_of_the_records() {
    let bench = Bench::new(plan(&[0, 1, 2], &[]));
    bench.measure("baseline", &[6.0, 6.2, 6.1]);
    bench.measure("a/linear", &[5.8, 5.9, 5.9]);
    bench.measure("positive_control", &[8.0, 8.2, 8.1]);
    let (report, page) = bench.page();
    let linear = row(&report.rows, "a/linear");
    assert!((linear.mean.unwrap() - 17.6 / 3.0).abs() < 1e-12);
    // Differences -0.2, -0.3, -0.2: mean -0.7/3, sd 0.1/sqrt(3), error 0.1/3; t(0.975; 2) = 4.302653.
    let [difference, low, high] = linear.to_baseline.unwrap();
    assert!((difference + 0.7 / 3.0).abs() < 1e-12);
    assert!((high - (-0.7 / 3.0 + 4.302_652_7 * 0.1 / 3.0)).abs() < 1e-6, "{high}");
    assert!((low - (-0.7 / 3.0 - 4.302_652_7 * 0.1 / 3.0)).abs() < 1e-6, "{low}");
    assert!(line(&page, "a/linear").contains("5.87 ± 0.06 (3)"), "{}", line(&page, "a/linear"));
    assert!(line(&page, "a/linear").contains("-0.23 [-0.38, -0.09]"), "{}", line(&page, "a/linear"));

    let csv = fs::read_to_string(bench.reports().join("table4.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 3 * (bench.table().cells.len() + 1));
    let name = metric(&bench.plan);
    let linear = csv.lines().find(|line| line.starts_with("table4,tiny,a/linear,linear,t4a.linear,5.87,1,")).unwrap();
    assert!(linear.contains(&format!("measured,{name},5.9,-0.29999999999999")), "{linear}");
}

#[test]
fn a_control_that_does_not_show_withholds_all_verdicts() {
    let bench = Bench::new(plan(&[0, 1, 2], &[]));
    bench.measure("baseline", &[6.0, 6.2, 6.1]);
    bench.measure("a/linear", &[5.8, 5.9, 5.9]);
    bench.measure("positive_control", &[5.9, 5.8, 5.95]);
    let (report, page) = bench.page();
    assert_eq!(report.control_shows, Some(false));
    assert_eq!(verdict(&report.rows, "a/linear"), "withheld");
    assert!(page.contains("IT DOES NOT SHOW") && page.contains("verdicts are withheld.**"));
    assert!(!line(&page, "a/linear").contains("direction"));
    // What rests on no measurement is still said.
    assert_eq!(verdict(&report.rows, "b/hard"), "not run");
    assert_eq!(contrast(&report.rows, "e/ib1_lb2", "e/ib1_lb1"), "identical by construction");
}

#[test]
fn without_the_control_verdicts_wait() {
    let bench = Bench::new(plan(&[0, 1], &[]));
    bench.measure("baseline", &[6.0, 6.2]);
    bench.measure("a/linear", &[5.8, 5.9]);
    let (report, page) = bench.page();
    assert_eq!(report.control_shows, None);
    assert_eq!(verdict(&report.rows, "a/linear"), "withheld");
    assert!(page.contains("not run yet; until then all verdicts are withheld.**"));
}

#[test]
fn one_seed_gives_the_sampling_error_and_says_so() {
    let bench = full(&[4]);
    let (report, page) = bench.page();
    assert!(page.contains("it holds the sampling error and no more"));
    assert!(row(&report.rows, "a/attention").to_baseline.is_some());
    assert_eq!(row(&report.rows, "a/attention").standard_deviation, None);
    assert!(line(&page, "a/attention").contains(" (1)"));
}

#[test]
fn missing_seeds_are_said_and_pairs_are_those_that_both_have() {
    let bench = Bench::new(plan(&[0, 1, 2], &[]));
    bench.measure("baseline", &[6.0, 6.2, 6.1]);
    bench.measure("a/linear", &[5.8, 5.9]);
    bench.measure("b/hard", &[5.9]);
    bench.measure("positive_control", &[8.0, 8.2]);
    let (report, page) = bench.page();
    assert_eq!(row(&report.rows, "a/linear").state, "2 of 3 seeds run");
    let [difference, ..] = row(&report.rows, "a/linear").to_baseline.unwrap();
    assert!((difference + 0.25).abs() < 1e-12);
    // Intervals over one common seed are marked beside those over several.
    assert!(line(&page, "b/hard").contains("]†"), "{}", line(&page, "b/hard"));
    assert!(!line(&page, "a/linear").contains("]†"));
}

#[test]
fn an_empty_tree_leaves_an_earlier_report_alone() {
    let bench = full(&[0, 1, 2]);
    bench.build().unwrap();
    let before = files(&bench.reports());
    let empty = Bench::new(plan(&[0, 1, 2], &[]));
    let error = report::build(&empty.plan, &empty.store, &bench.reports(), &operations).unwrap_err();
    assert!(matches!(&error, Error::NothingRun { .. }), "{error}");
    assert!(error.to_string().contains("`runner reproduce table4 --scale tiny`"), "{error}");
    assert!(files(&bench.reports()) == before, "the published report was touched");
    assert!(matches!(empty.build(), Err(Error::NothingRun { .. })));
    assert!(!empty.reports().exists());

    // A divergence is a result.
    empty.train("d/prepend", 0, 70, Outcome::Diverged { iteration: 73 }, |_| 0.1);
    let (_, page) = empty.page();
    assert!(page.contains("nothing has been compared yet"), "{page}");
}

#[test]
fn records_of_uncommitted_code_are_named_at_the_top() {
    let top = |page: &str| page.split("## Results").next().unwrap().to_owned();
    let bench = Bench::new(plan(&[0, 1], &[]));
    bench.measure("baseline", &[6.0, 6.1]);
    bench.measure("b/hard", &[5.9, 5.8]);
    assert!(!top(&bench.page().1).contains("uncommitted"));
    bench.dirty.set(true);
    bench.measure("a/linear", &[5.7, 5.8]);
    let page = top(&bench.page().1);
    let line = page.lines().find(|line| line.starts_with("**Records of uncommitted code.**")).unwrap();
    assert!(line.contains("`a/linear`, `b/soft`, ") && line.contains("`reference/dmp`"), "{line}");
    assert!(!line.contains("`baseline`") && !line.contains("`b/hard`") && !line.contains("share"), "{line}");
    bench.floor(0.4);
    assert!(top(&bench.page().1).contains("`reference/dmp`, what all cells share."));
}

#[test]
fn the_papers_gaps_are_those_of_its_experiments() {
    let (_, page) = full(&[0, 1]).page();
    let section = page.split("## The paper's own gaps").nth(1).unwrap().split("\n## ").next().unwrap();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let id = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        Some((id(cells.next()?)?, id(cells.next()?)?))
    };
    let gaps: Vec<(String, String)> = section.lines().filter_map(row).collect();
    let has = |cell: &str, against: &str| gaps.iter().any(|(a, b)| (a.as_str(), b.as_str()) == (cell, against));
    // Different experiments that print the same number against the same one: 5.96, 5.97 and 5.95 twice each.
    for cell in ["b/hard", "e/ib0_lb1", "c/uniform", "e/ib1_lb0", "e/ib1_lb2", "e/ib2_lb1"] {
        assert!(has(cell, "baseline"), "{cell}: {gaps:?}");
    }
    for cell in ["e/ib0_lb0", "e/ib0_lb1", "e/ib1_lb0", "e/ib1_lb2", "e/ib2_lb1"] {
        assert!(has(cell, "e/ib1_lb1"), "{cell}: {gaps:?}");
    }
    // One experiment under several names: linear = soft = distinct = add = (1, 1) = all blocks.
    assert!(has("a/linear", "baseline"));
    for cell in ["b/soft", "c/distinct", "d/add", "e/ib1_lb1"] {
        assert!(!has(cell, "baseline"), "{cell}: {gaps:?}");
    }
    assert_eq!(gaps.iter().collect::<BTreeSet<_>>().len(), gaps.len());
}

#[test]
fn the_same_records_give_the_same_bytes_and_touch_no_file() {
    let bench = full(&[0, 1]);
    for cell in ["baseline", "reference/prompt_tuning", "a/linear"] {
        bench.sample(cell, 0, 8);
    }
    bench.activation("a/linear", 0, 2, 9);
    bench.train("a/linear", 0, 300, Outcome::Completed, |i| 0.07 - i * 1e-5);
    bench.train("b/hard", 0, 300, Outcome::Completed, |i| 0.07 - i * 0.9e-5);
    let report = bench.build().unwrap();
    for name in ["differences.svg", "depth.svg", "activation.svg", "losses.svg", "samples.svg", "samples.png"] {
        assert!(report.files.contains(&bench.reports().join("table4").join(name)), "{name}");
    }
    let written = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    let (first, times) = (files(&bench.reports()), report.files.iter().map(written).collect::<Vec<_>>());
    let again = bench.build().unwrap();
    assert_eq!(again.files.iter().map(written).collect::<Vec<_>>(), times);
    let elsewhere = bench.path().join("elsewhere");
    report::build(&bench.plan, &bench.store, &elsewhere, &operations).unwrap();
    assert!(files(&elsewhere) == first, "the same records gave other bytes");

    // Links of the page lead to files of the report.
    let page = fs::read_to_string(&report.files[0]).unwrap();
    let inline = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let defined = page.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).map(|(_, path)| path);
    let links: Vec<&str> = inline.chain(defined).collect();
    assert!(links.len() > 20, "{links:?}");
    for link in links {
        assert!(bench.reports().join(link).is_file(), "{link}");
    }
}

#[test]
fn figures_are_whole_and_small() {
    let bench = full(&[0, 1, 2]);
    for cell in ["baseline", "reference/prompt_tuning", "a/linear"] {
        bench.sample(cell, 0, 24);
    }
    bench.activation("a/linear", 0, 4, 64);
    let report = bench.build().unwrap();
    let folder = bench.reports().join("table4");
    for path in report.files.iter().filter(|path| path.extension().is_some_and(|e| e == "svg")) {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.trim_end().ends_with("</svg>") && text.len() < 100_000, "{}", path.display());
        // Any letters may stand together in an embedded image.
        let drawn: String = text.lines().filter(|line| !line.contains("base64,")).collect();
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{}", path.display());
    }
    let grid = image::open(folder.join("samples.png")).unwrap();
    // Twelve columns of 24 pixels with gaps of one, three rows and their difference, each pixel three wide.
    assert_eq!((grid.width(), grid.height()), (3 * (12 * 25 - 1), 3 * (4 * 25 - 1)));
    let drawn = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert!(drawn("samples.svg").contains("DMP \u{2212} baseline, x "));
    assert!(drawn("activation.svg").contains("every row of a panel sums to 1 over its 64 prompts"));
    // Our network has four blocks, the paper's DiT-B twelve.
    let depth = drawn("depth.svg");
    for label in ["half (2)", "all (4)", "half (6)", "all (12)"] {
        assert_eq!(depth.matches(label).count(), 1, "{label}");
    }
}

/// Figure 6: under each caption a row for each method.
#[test]
fn captions_have_a_grid_each() {
    let mut plan = plan_of("figure6", &[0], &[]);
    plan.tables.retain(|table| table.denoiser.text_width().is_some());
    let bench = Bench::new(plan);
    for (cell, value) in [("coco/baseline", 6.0), ("coco/prompt_tuning", 6.1), ("coco/dmp", 5.9)] {
        bench.measure(cell, &[value]);
        bench.sample(cell, 0, 24);
    }
    let (report, page) = bench.page();
    let drawn: Vec<_> = report.files.iter().filter(|path| path.to_string_lossy().contains("caption-")).collect();
    let captions = &bench.table().scale.sample.captions;
    assert_eq!((drawn.len(), captions.len()), (7, 7));
    for (file, caption) in drawn.iter().zip(captions) {
        let text = fs::read_to_string(file).unwrap();
        for part in [caption.as_str(), "baseline", "prompt tuning", "DMP", "training seed 0"] {
            assert!(text.contains(part), "{}: {part}", file.display());
        }
        assert!(page.contains(caption.as_str()), "{caption}");
    }
    assert!(
        page.contains("first caption (of 64 numbers, from an encoder of CLIP's structure with weights by formula"),
        "{page}"
    );
}

#[test]
fn numerics_are_never_mixed() {
    for (overrides, what) in [
        ("numerics.device=cuda", "numerics"),
        ("sample.count=500", "number of samples"),
        ("evaluation.subset_seed=9", "subsets"),
    ] {
        let engine = "numerics.engine=reference";
        let mut mixed = plan(&[0, 1], &[engine]);
        let other = plan(&[0, 1], &[engine, overrides]);
        let id = "b/hard";
        let foreign = other.tables[0].cell(id).unwrap().runs.clone();
        mixed.tables[0].cells.iter_mut().find(|cell| cell.id == id).unwrap().runs = foreign;
        mixed.stages.extend(other.stages);
        let bench = Bench::new(mixed);
        for cell in ["baseline", id] {
            bench.measure(cell, &[6.0, 6.1]);
            for run in &bench.cell(cell).runs {
                bench.commit(run.sample, finished(), &[]);
            }
        }
        let error = bench.build().unwrap_err();
        assert!(matches!(&error, Error::Mixed { what: found, .. } if found.contains(what)), "{error}");
        let text = error.to_string();
        let key = bench.run(id, 0);
        assert!(text.contains(&key.sample.short()) || text.contains(&key.metrics.short()), "{text}");
        assert!(!bench.reports().exists(), "nothing is written before everything has been read");
    }
}

#[test]
fn a_damaged_record_is_refused() {
    let bench = full(&[0, 1]);
    let key = bench.run("b/hard", 0).metrics;
    let path = bench.store.tree().dir(key, "metrics").join("record.json");
    let text = fs::read_to_string(&path).unwrap().replacen("10000.0", "10001.0", 1);
    fs::write(&path, text).unwrap();
    assert!(matches!(bench.build(), Err(Error::Store(store::StoreError::Corrupt { .. }))));
}

#[test]
fn samples_of_an_unknown_shape_are_refused() {
    let bench = Bench::new(plan(&[0], &[]));
    for cell in ["baseline", "reference/prompt_tuning"] {
        bench.sample(cell, 0, 8);
    }
    bench.sample("a/linear", 0, 10);
    bench.measure("baseline", &[6.0]);
    let error = bench.build().unwrap_err();
    assert!(matches!(&error, Error::Artifact { reason, .. } if reason.contains("one size")), "{error}");
}

#[test]
fn markup_in_titles_is_shown_as_written() {
    let mut bench = full(&[0, 1]);
    let cells = &mut bench.table_mut().cells;
    cells.iter_mut().find(|cell| cell.id == "b/hard").unwrap().title = "top | <b>75%</b> *kept*".to_owned();
    let (_, page) = bench.page();
    let line = line(&page, "b/hard");
    assert!(line.contains("top \\| &lt;b&gt;75%&lt;/b&gt; \\*kept\\*"), "{line}");
    let svg = fs::read_to_string(bench.reports().join("table4/differences.svg")).unwrap();
    assert!(svg.contains("&lt;b&gt;75%"));
}

#[test]
fn trials_do_not_replace_reproductions() {
    let table = plan(&[0], &["train.iterations=50"]).tables.remove(0);
    assert_eq!(report::folder(&table, Path::new("reports")), Path::new("reports/tiny+train.iterations=50"));
    let table = plan(&[0], &[]).tables.remove(0);
    assert_eq!(report::folder(&table, Path::new("reports")), Path::new("reports"));
    let mut table = plan(&[0, 5], &[]).tables.remove(0);
    table.scale.seeds = vec![0, 1, 2];
    assert_eq!(report::folder(&table, Path::new("reports")), Path::new("reports/tiny+seeds=0-5"));
}

#[test]
fn a_recipe_has_no_report() {
    let mut plan = plan(&[0], &[]);
    plan.tables.clear();
    assert!(matches!(Bench::new(plan).build(), Err(Error::NoTable(_))));
}
