//! What table 4 expands to: every cell differs from the default in the intended parameter, and equal runs are one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use manifest::dataset::{Faces, Source};
use manifest::digest::Key;
use manifest::plan::{Input, PlannedCell, Table};
use manifest::stage::Stage;
use manifest::{Plan, Request, Workspace};
use serde_json::Value;

fn workspace() -> Workspace {
    Workspace::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn plan(overrides: &[&str]) -> (Plan, Table) {
    let overrides = overrides.iter().map(|text| text.to_string()).collect();
    let request = Request { scale: "tiny".into(), overrides, seeds: Some(vec![0, 1]) };
    let plan = workspace().load_artifact("table4", &request).unwrap_or_else(|error| panic!("{error}"));
    let table = plan.tables[0].clone();
    (plan, table)
}

fn cell<'a>(table: &'a Table, id: &str) -> &'a PlannedCell {
    table.cell(id).unwrap_or_else(|| panic!("no cell {id}"))
}

/// Dotted paths at which two values differ, with both sides.
fn differences(path: &str, left: &Value, right: &Value, found: &mut BTreeMap<String, (Value, Value)>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) if a.get("kind") == b.get("kind") => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let at = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or(Value::Null);
                differences(&inner, &at(a), &at(b), found);
            }
        }
        _ if left == right => {}
        _ => _ = found.insert(path.to_owned(), (left.clone(), right.clone())),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap()
}

/// What the training stage of a cell has, and that of the default cell has not.
fn training_difference(plan: &Plan, cell: &PlannedCell, default: &PlannedCell) -> Vec<String> {
    let train = |cell: &PlannedCell| json(&plan.stage(cell.runs[0].trained.unwrap()).unwrap().stage);
    let mut found = BTreeMap::new();
    differences("", &train(default), &train(cell), &mut found);
    found.into_iter().map(|(path, (_, new))| format!("{path} = {new}")).collect()
}

#[test]
fn every_cell_differs_from_the_default_in_the_intended_parameter_only() {
    let (plan, table) = plan(&[]);
    assert_eq!(table.default_cell.as_deref(), Some("a/linear"));
    let default = cell(&table, "a/linear");
    let top_k = r#"method.gate.selection = {"gradient":"straight_through","keep":0.75,"kind":"top_k","weights":"one"}"#;
    let finetune = r#"method = {"kind":"finetune"}"#;
    let prompts = r#"{"depth":"all","init":{"kind":"zero"},"position":{"kind":"add"}}"#;
    let tuning = format!(r#"method = {{"kind":"prompt_tuning","prompts":{prompts}}}"#);
    let intended: [(&str, &[&str]); 19] = [
        // Attention to the letter has no weights that could be balanced.
        ("a/attention", &["method.balance.importance = 0.0", r#"method.gate.architecture = "attention_literal""#]),
        ("a/linear", &[]),
        ("b/hard", &[top_k]),
        ("b/soft", &[]),
        ("c/uniform", &[r#"method.gate.prompts_per_block = "uniform""#]),
        ("c/distinct", &[]),
        ("d/prepend", &[r#"method.prompts.position = {"kind":"prepend","per_256_tokens":50}"#]),
        ("d/add", &[]),
        ("e/ib0_lb0", &["method.balance.importance = 0.0"]),
        ("e/ib0_lb1", &["method.balance.importance = 0.0"]),
        ("e/ib1_lb0", &[]),
        ("e/ib1_lb2", &[]),
        ("e/ib2_lb1", &["method.balance.importance = 2.0"]),
        ("e/ib1_lb1", &[]),
        ("depth/first", &[r#"method.prompts.depth = "first""#]),
        ("depth/half", &[r#"method.prompts.depth = "half""#]),
        ("depth/all", &[]),
        ("reference/finetune", &[finetune]),
        ("reference/prompt_tuning", &[&tuning]),
    ];
    for (id, expected) in intended {
        assert_eq!(training_difference(&plan, cell(&table, id), default), expected, "{id}");
    }
    let ids: Vec<_> = table.cells.iter().map(|cell| cell.id.as_str()).collect();
    let expected: Vec<_> =
        ["baseline"].into_iter().chain(intended.map(|(id, _)| id)).chain(["reference/dmp"]).collect();
    assert_eq!(ids, expected);
    assert_eq!(cell(&table, "baseline").runs[0].trained, None);
}

#[test]
fn written_parameters_differ_too_where_the_runs_do_not() {
    let (_, table) = plan(&[]);
    let default = json(&cell(&table, "a/linear").written);
    let written = |id| {
        let mut found = BTreeMap::new();
        differences("method", &default, &json(&cell(&table, id).written), &mut found);
        found.into_iter().map(|(path, (_, new))| format!("{path} = {new}")).collect::<Vec<_>>()
    };
    assert_eq!(written("e/ib0_lb1"), ["method.balance.importance = 0.0"]);
    assert_eq!(written("e/ib0_lb0"), ["method.balance.importance = 0.0", "method.balance.load = 0.0"]);
    assert_eq!(written("e/ib1_lb0"), ["method.balance.load = 0.0"]);
    assert_eq!(written("e/ib1_lb2"), ["method.balance.load = 2.0"]);
}

#[test]
fn equal_cells_are_one_run() {
    let (plan, table) = plan(&[]);
    let default = "a/linear".to_owned();
    for id in ["b/soft", "c/distinct", "d/add", "e/ib1_lb1", "depth/all", "reference/dmp"] {
        let cell = cell(&table, id);
        assert_eq!(cell.runs, self::cell(&table, &default).runs, "{id}");
        assert_eq!(cell.same_run_as.as_ref(), Some(&default), "{id}");
        assert_eq!(cell.identical_by_construction, None, "{id}");
    }
    for (id, other) in [("e/ib1_lb0", "a/linear"), ("e/ib1_lb2", "a/linear"), ("e/ib0_lb1", "e/ib0_lb0")] {
        let cell = cell(&table, id);
        assert_eq!(cell.runs, self::cell(&table, other).runs, "{id}");
        assert_eq!(cell.identical_by_construction.as_deref(), Some(other), "{id}");
    }
    // The default, attention, hard, uniform, prepend, (0, 0), (2, 1), first, half, fine-tuning, prompt tuning.
    let trainings: BTreeSet<Key> = table.cells.iter().filter_map(|cell| cell.runs[0].trained).collect();
    assert_eq!(trainings.len(), 11);
    let count = |kind| plan.stages.iter().filter(|planned| planned.stage.kind() == kind).count();
    assert_eq!(count("train"), 2 * 11);
    assert_eq!(count("sample"), 2 * (11 + 2)); // and the baseline and the positive control
    assert_eq!(count("metrics"), 2 * (11 + 2) + 1); // and the floor
    assert_eq!(count("activation"), 2 * 9); // neither fine-tuning nor prompt tuning has a gate
    assert_eq!(count("statistics"), 1);
}

#[test]
fn stages_are_unique_and_come_after_their_inputs() {
    let (plan, _) = plan(&[]);
    let mut seen = BTreeSet::new();
    for planned in &plan.stages {
        assert!(planned.dependencies().all(|key| seen.contains(&key)), "{} comes too early", planned.stage.kind());
        assert!(seen.insert(planned.key), "{} is there twice", planned.key);
    }
}

#[test]
fn a_chain_is_backbone_training_samples_features_distance() {
    let (plan, table) = plan(&["backbone.weights=~"]);
    let stage = |key: Key| plan.stage(key).unwrap();
    let input = |key: Key, name: &str| match &stage(key).inputs[name] {
        Input::Stage(key) => *key,
        Input::File { path, .. } => panic!("{name} is {}", path.display()),
    };
    let run = &cell(&table, "b/hard").runs[1];
    assert_eq!(run.seed, 1);
    assert_eq!(input(run.metrics, "features"), run.features);
    assert_eq!(input(run.metrics, "reference"), table.reference.statistics);
    assert_eq!(Some(input(table.reference.statistics, "features")), table.reference.features);
    assert_eq!(input(run.features, "samples"), run.sample);
    assert_eq!(input(run.sample, "trained"), run.trained.unwrap());
    assert_eq!(input(run.activation.unwrap(), "trained"), run.trained.unwrap());
    let backbone = input(run.trained.unwrap(), "backbone");
    assert_eq!(stage(backbone).stage.kind(), "pretrain");
    assert_eq!(input(run.sample, "backbone"), backbone);

    let (Stage::Train(train), Stage::Sample(sample)) = (&stage(run.trained.unwrap()).stage, &stage(run.sample).stage)
    else {
        panic!("of another kind")
    };
    assert_eq!(train.seed, 1);
    assert_eq!(sample.seed, table.scale.sample.seed + 1);
    assert_eq!(train.method, sample.method);
    let rate = table.scale.train.learning_rate * table.scale.train.learning_rate_multiplier;
    assert_eq!((train.optimisation.learning_rate, train.optimisation.final_learning_rate), (rate, rate));

    let baseline = &cell(&table, "baseline").runs[1];
    assert_eq!(stage(baseline.sample).inputs.keys().collect::<Vec<_>>(), ["backbone"]);
}

#[test]
fn the_positive_control_is_the_default_with_noise_on_its_prompts() {
    let (plan, table) = plan(&[]);
    let (control, default) = (cell(&table, "positive_control"), cell(&table, "a/linear"));
    for (control, default) in control.runs.iter().zip(&default.runs) {
        assert_eq!(control.trained, default.trained);
        let (left, right) =
            (json(&plan.stage(default.sample).unwrap().stage), json(&plan.stage(control.sample).unwrap().stage));
        let mut found = BTreeMap::new();
        differences("", &left, &right, &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["prompt_noise"]);
    }
}

#[test]
fn the_floor_is_as_many_real_images_as_samples_against_the_same_reference() {
    let (plan, table) = plan(&["sample.count=64"]);
    let floor = plan.stage(table.floor.unwrap()).unwrap();
    let run = plan.stage(cell(&table, "a/linear").runs[0].metrics).unwrap();
    assert_eq!(floor.stage, run.stage);
    assert_eq!(floor.inputs["reference"], run.inputs["reference"]);
    let Input::Stage(features) = floor.inputs["features"] else { panic!("a file") };
    let Stage::Features(features) = &plan.stage(features).unwrap().stage else { panic!("of another kind") };
    let expected = Source::Faces(Faces { image_size: 24, first: 3_000_000, count: 64 });
    assert_eq!(features.data, Some(expected));
}

#[test]
fn every_published_gap_is_a_contrast() {
    let (_, table) = plan(&[]);
    let contrast = |cell: &str, against: &str| {
        let found = table.contrasts.iter().find(|contrast| contrast.cell == cell && contrast.against == against);
        let contrast = found.unwrap_or_else(|| panic!("{cell} is not compared with {against}"));
        (contrast.expected.to_string(), contrast.paper_gap.map(|gap| (gap * 100.0).round()))
    };
    let is = |side: &str, gap: f64| (side.to_owned(), Some(gap));
    assert_eq!(contrast("b/hard", "b/soft"), is("higher", 9.0));
    assert_eq!(contrast("d/prepend", "d/add"), is("higher", 92.0));
    assert_eq!(contrast("a/attention", "baseline"), is("higher", 14.0));
    assert_eq!(contrast("c/uniform", "c/distinct"), is("higher", 10.0));
    assert_eq!(contrast("e/ib0_lb0", "e/ib1_lb1"), is("higher", 24.0));
    assert_eq!(contrast("reference/dmp", "reference/finetune"), is("lower", -70.0));
    assert_eq!(contrast("depth/half", "depth/first"), ("lower".to_owned(), None));
    for cell in &table.cells[1..] {
        let against_baseline = table.contrasts.iter().any(|c| c.cell == cell.id && c.against == "baseline");
        assert!(against_baseline, "{} is not compared with the baseline", cell.id);
    }
}

#[test]
fn the_presets_differ_in_the_documented_keys_only() {
    let preset = |name: &str| {
        let text =
            std::fs::read_to_string(workspace().root().join(format!("experiments/presets/{name}.yaml"))).unwrap();
        serde_yaml::from_str::<Value>(&text).unwrap()
    };
    let mut found = BTreeMap::new();
    differences("", &preset("paper"), &preset("official-code"), &mut found);
    let keys: Vec<_> = found.keys().map(String::as_str).collect();
    let documented = [
        "alternatives.method.gate.selection.top_k.gradient", // 5, and our reading of the paper
        "alternatives.method.gate.selection.top_k.weights",  // 5
        "method.balance.importance_formula",                 // balancing losses
        "method.balance.load_formula",                       // 1
        "method.gate.input",                                 // 4
        "method.gate.learning_rate_factor",                  // 3
        "method.gate.noise",                                 // 2
        "scale.sample.sampler.guidance_channels",            // 9
        "title",
    ];
    assert_eq!(keys, documented);
}

#[test]
fn the_preset_is_chosen_on_the_command_line() {
    let (plan, table) = plan(&["method.preset=official-code"]);
    assert_eq!(table.preset, "official-code");
    let hard = json(&cell(&table, "b/hard").written);
    assert_eq!(hard.pointer("/gate/selection/weights").unwrap(), "softmax");
    assert_eq!(json(&cell(&table, "a/linear").written).pointer("/gate/input").unwrap(), "as_released");
    // In the released code too, rows that differ in the load only are one run where all prompts are kept.
    assert_eq!(cell(&table, "e/ib1_lb2").identical_by_construction.as_deref(), Some("a/linear"));
    // Baseline, fine-tuning and prompt tuning are what they were.
    let (_, paper) = self::plan(&[]);
    for id in ["baseline", "reference/finetune", "reference/prompt_tuning"] {
        assert_eq!(cell(&table, id).runs, cell(&paper, id).runs, "{id}");
    }
    assert_ne!(cell(&table, "a/linear").runs, cell(&paper, "a/linear").runs);
    assert!(plan.stages.len() > 50);
}

#[test]
fn options_reach_the_scale_and_every_method_that_has_the_key() {
    let (plan, table) = plan(&["train.iterations=50", "sample.count=64", "method.prompts.depth=half"]);
    let Stage::Train(train) = &plan.stage(cell(&table, "a/linear").runs[0].trained.unwrap()).unwrap().stage else {
        panic!()
    };
    assert_eq!(train.optimisation.iterations, 50);
    assert_eq!(json(&train.method).pointer("/prompts/depth").unwrap(), "half");
    assert_eq!(table.default_cell.as_deref(), Some("a/linear"));
    assert_eq!(json(&cell(&table, "reference/prompt_tuning").method).pointer("/prompts/depth").unwrap(), "half");

    let (_, one) = self::plan(&["method.gate.selection.kind=top_k"]);
    assert_eq!(json(&cell(&one, "a/linear").method).pointer("/gate/selection/keep").unwrap(), 0.75);
    // A field of a kind that only a cell chooses, where the cell leaves it out.
    let (_, softmax) = self::plan(&["method.gate.selection.weights=softmax"]);
    assert_eq!(json(&cell(&softmax, "b/hard").method).pointer("/gate/selection/weights").unwrap(), "softmax");
    assert_eq!(json(&cell(&softmax, "b/soft").method).pointer("/gate/selection/kind").unwrap(), "soft");
}

#[test]
fn no_option_changes_what_a_cell_is_about() {
    let at = |table: &Table, id: &str, path: &str| json(&cell(table, id).written).pointer(path).cloned().unwrap();
    let (_, table) = plan(&["method.balance.importance=0"]);
    assert_eq!(at(&table, "a/linear", "/balance/importance"), 0.0);
    assert_eq!(at(&table, "e/ib1_lb1", "/balance/importance"), 1.0);
    assert_eq!(at(&table, "e/ib2_lb1", "/balance/importance"), 2.0);
    assert_eq!(cell(&table, "e/ib0_lb1").runs, cell(&table, "a/linear").runs);
    assert_ne!(cell(&table, "e/ib1_lb1").runs, cell(&table, "a/linear").runs);

    let (_, table) = plan(&["method.gate.architecture=attention_over_prompts"]);
    assert_eq!(at(&table, "a/linear", "/gate/architecture"), "linear");
    assert_eq!(table.default_cell.as_deref(), Some("b/soft"));

    let (_, table) = plan(&["method.prompts.depth=half"]);
    for (cell, depth) in [("first", "first"), ("half", "half"), ("all", "all")] {
        assert_eq!(at(&table, &format!("depth/{cell}"), "/prompts/depth"), depth);
    }
    let (_, table) = plan(&["method.kind=dmp"]);
    assert_eq!(at(&table, "baseline", "/kind"), "pretrained");
    assert_eq!(at(&table, "reference/finetune", "/kind"), "finetune");
}

#[test]
fn from_scratch_reads_no_backbone() {
    let (plan, table) = plan(&["method.backbone=from_scratch"]);
    let reads = |key: Key| plan.stage(key).unwrap().inputs.contains_key("backbone");
    for (id, scratch) in [("a/linear", true), ("reference/finetune", true), ("reference/prompt_tuning", false)] {
        let run = &cell(&table, id).runs[0];
        let keys = [run.trained, Some(run.sample), run.activation];
        assert!(keys.into_iter().flatten().all(|key| reads(key) != scratch), "{id}");
        let written = json(&cell(&table, id).method);
        assert_eq!(written.get("backbone").is_some_and(|backbone| backbone == "from_scratch"), scratch, "{id}");
    }
    // Where nothing is said, keys are what they were.
    let (_, usual) = self::plan(&["method.backbone=pretrained"]);
    assert_eq!(cell(&usual, "a/linear").runs, cell(&self::plan(&[]).1, "a/linear").runs);
    assert_eq!(json(&cell(&usual, "a/linear").method).get("backbone"), None);
}

#[test]
fn prompts_may_be_in_the_first_n_blocks() {
    let (_, table) = plan(&["method.prompts.depth={blocks: 3}"]);
    for id in ["a/linear", "reference/prompt_tuning"] {
        assert_eq!(*json(&cell(&table, id).method).pointer("/prompts/depth/blocks").unwrap(), 3, "{id}");
    }
    assert_eq!(*json(&cell(&table, "depth/half").method).pointer("/prompts/depth").unwrap(), "half");
    assert_ne!(cell(&table, "a/linear").runs, cell(&table, "depth/all").runs);
}

#[test]
fn an_option_that_every_cell_overrules_is_an_error() {
    let request = |text: &str| Request { scale: "tiny".into(), overrides: vec![text.to_owned()], seeds: None };
    let message = |text: &str| workspace().load_artifact("table4", &request(text)).unwrap_err().to_string();
    assert_eq!(
        message("method.gate.selection.keep=0.5"),
        "--set method.gate.selection.keep=0.5: has no effect: every cell that has `method.gate.selection.keep` sets it \
         itself (b/hard); change it there"
    );
    assert!(
        message("method.prompts.position.per_256_tokens=25").ends_with("sets it itself (d/prepend); change it there")
    );
}

#[test]
fn a_plan_survives_json() {
    let (plan, _) = plan(&[]);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn all_artifacts_recipes_and_scales_are_listed_and_load() {
    let workspace = workspace();
    assert!(workspace.artifacts().contains(&"table4".to_owned()));
    assert!(
        ["fashion", "paper", "small", "smoke", "tiny"]
            .iter()
            .all(|name| workspace.scales().contains(&name.to_string()))
    );
    for scale in ["tiny", "smoke"] {
        let request = Request { scale: scale.into(), ..Request::default() };
        workspace.load("experiments/table4.yaml", &request).unwrap_or_else(|error| panic!("{scale}: {error}"));
    }
    for recipe in ["tiny-backbone", "tiny-extractor"] {
        let plan = workspace.load(recipe, &Request::default()).unwrap_or_else(|error| panic!("{recipe}: {error}"));
        assert_eq!((plan.artifact.as_str(), plan.stages.len(), plan.is_recipe()), (recipe, 1, true));
    }
}

#[test]
fn a_recipe_alone_is_the_stage_that_a_scale_plans() {
    let (table, _) = plan(&["backbone.weights=~"]);
    let recipe = workspace().load_recipe("tiny-backbone", &[]).unwrap();
    assert!(table.stage(recipe.stages[0].key).is_some());
}

/// Pixels know nothing of latents: their stages have the parameters that they had.
#[test]
fn in_pixels_no_stage_speaks_of_latents() {
    let (plan, table) = plan(&[]);
    assert!(plan.stages.iter().all(|planned| json(&planned.stage).get("latents").is_none()));
    assert!(table.cells.iter().flat_map(|cell| &cell.runs).all(|run| run.decoded.is_none()));
}
