//! Every table and figure of the paper: all load from a clone alone, and every claim is some cell's.

use std::collections::BTreeSet;
use std::path::Path;

use manifest::claim::{Claim, Metric};
use manifest::digest::Key;
use manifest::plan::{Input, Table};
use manifest::scale::DeviceKind;
use manifest::stage::{Captions, Stage};
use manifest::{Error, Plan, Request, Workspace};

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The repository, with no data but what it ships.
fn workspace() -> Workspace {
    Workspace::open(root()).unwrap().with_data_folders(vec![root()])
}

fn plan(artifact: &str, scale: &str) -> Plan {
    let request = Request { scale: scale.into(), seeds: Some(vec![0]), ..Request::default() };
    workspace().load_artifact(artifact, &request).unwrap_or_else(|error| panic!("{artifact} at {scale}: {error}"))
}

#[test]
fn every_artifact_is_planned_from_a_clone_alone_and_every_claim_is_tied_to_a_cell() {
    let workspace = workspace();
    let counted = workspace.load_count("table1").unwrap();
    let networks = counted.count.networks.values();
    let mut tied: BTreeSet<String> =
        networks.flat_map(|n| n.base.iter().chain(&n.whole).chain(&n.share)).cloned().collect();
    let artifacts = workspace.artifacts();
    for name in
        ["table2", "table3", "table4", "table5", "table6", "table7", "table8", "table9", "figure6", "figure8", "words"]
    {
        assert!(artifacts.iter().any(|artifact| artifact == name), "{name}");
    }
    for artifact in &artifacts {
        for scale in ["tiny", "smoke"] {
            let plan = plan(artifact, scale);
            let cells = plan.tables.iter().flat_map(|table| &table.cells);
            let claims = cells.flat_map(|cell| cell.claim.iter().chain(&cell.further_claims));
            let not_run = plan.not_run.iter().flat_map(|cell| &cell.claims);
            tied.extend(claims.chain(not_run).map(|claim: &Claim| claim.id.clone()));
            assert!(plan.missing.is_none());
        }
    }
    let ids: BTreeSet<String> = counted.claims.iter().map(|claim| claim.id.clone()).collect();
    assert_eq!(tied, ids, "claims and cells");
    assert!(ids.len() > 90, "{}", ids.len());
    assert_eq!(counted.claims.iter().filter(|claim| claim.metric == Metric::Fid && claim.value.is_some()).count(), 58);
}

/// With files in the place of Fashion-MNIST's, which no plan reads.
#[test]
fn every_artifact_is_planned_whole_at_the_scale_of_one_gpu() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("fashion-mnist")).unwrap();
    for name in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
        std::fs::write(folder.path().join(format!("fashion-mnist/{name}-ubyte.gz")), name).unwrap();
    }
    let workspace = workspace().with_data_folders(vec![folder.path().to_owned(), root()]);
    let request = Request { scale: "small".into(), ..Request::default() };
    for artifact in workspace.artifacts() {
        let plan = workspace.load_artifact(&artifact, &request).unwrap();
        assert!(plan.not_run.is_empty(), "{artifact}: {:?}", plan.not_run);
        assert!(
            plan.tables.iter().all(|table| table.scale.numerics.device == DeviceKind::Cuda && table.seeds.len() == 3)
        );
        // A table of another setting is of another network.
        let hidden = |table: &Table| table.denoiser.dit().map(|dit| (dit.hidden, dit.depth));
        let wide = plan.tables.iter().filter(|table| hidden(table) == Some((768, 12))).count();
        assert_eq!(wide, usize::from(artifact == "table3"), "{artifact}");
    }
}

#[test]
fn a_group_with_a_setting_is_a_table_of_its_own() {
    let table8 = plan("table8", "smoke");
    let [table] = &table8.tables[..] else { panic!("{} tables", table8.tables.len()) };
    assert_eq!(table.cells[0].id, "imagenet/baseline");
    assert_eq!((table.denoiser.classes(), table.scale.sample.sampler.guidance), (Some(4), 1.5));
    assert_eq!(table.default_cell.as_deref(), Some("imagenet/dmp"));
    assert_eq!(table.contrasts.iter().filter(|contrast| contrast.metric == Metric::Precision).count(), 3);
    // A backbone that no one ships is trained first.
    assert!(matches!(table8.stages[0].stage, Stage::Pretrain(_)));

    let table2 = plan("table2", "tiny");
    let baselines: Vec<&str> = table2.tables.iter().map(|table| table.cells[0].id.as_str()).collect();
    assert_eq!(baselines, ["baseline", "coco/baseline", "laion/baseline"]);
    assert!(table2.not_run.is_empty());
}

#[test]
fn a_cell_stands_for_the_method_even_where_none_trains_it_as_the_manifest_names_it() {
    for (artifact, table, default) in
        [("table2", 1, "coco/dmp"), ("figure6", 1, "coco/dmp"), ("table6", 0, "scratch/dmp_100k")]
    {
        let planned = plan(artifact, "smoke");
        let table = &planned.tables[table];
        assert_eq!(table.default_cell.as_deref(), Some(default), "{artifact}");
        let (default, control) = (table.cell(default).unwrap(), table.positive_control.as_ref().unwrap());
        assert_ne!(default.written, table.method);
        assert_eq!((&control.method, control.runs[0].trained), (&default.method, default.runs[0].trained));
    }
}

#[test]
fn captions_are_embedded_before_what_they_condition() {
    let figure6 = plan("figure6", "smoke");
    let [usual, coco] = &figure6.tables[..] else { panic!("{} tables", figure6.tables.len()) };
    assert!(usual.cells.iter().flat_map(|cell| &cell.runs).all(|run| run.captions.is_empty()));
    assert_eq!((coco.denoiser.classes(), coco.denoiser.text_width()), (None, Some(64)));
    let stage = |key| &figure6.stage(key).unwrap().stage;
    let embedded = |key: Key| {
        let Input::Stage(key) = figure6.stage(key).unwrap().inputs["embeddings"] else { panic!("a file") };
        let Stage::Embeddings(embeddings) = stage(key) else { panic!("no embeddings") };
        embeddings.captions.clone()
    };
    for cell in &coco.cells {
        let run = &cell.runs[0];
        // The scale's own captions stand in the place of the paper's seven.
        assert_eq!(
            run.captions.iter().map(|(text, _)| text).collect::<Vec<_>>(),
            coco.scale.sample.captions.iter().collect::<Vec<_>>()
        );
        assert_eq!(embedded(run.captions[6].1), Captions::Listed(coco.scale.sample.captions.clone()));
        let Stage::Sample(shown) = stage(run.captions[6].1) else { panic!("no samples") };
        let Stage::Sample(drawn) = stage(run.sample) else { panic!("no samples") };
        assert_eq!((shown.class, drawn.class, shown.seed), (Some(6), None, drawn.seed));
        let Captions::Of(source) = embedded(run.sample) else { panic!("listed") };
        if let Some(train) = run.trained {
            let Stage::Train(training) = stage(train) else { panic!("no training") };
            assert_eq!(training.data, source, "samples are drawn from the captions of the training images");
            assert_eq!(embedded(train), embedded(run.sample));
        }
    }
    let pretrain = figure6.stages.iter().find(|planned| matches!(planned.stage, Stage::Pretrain(_))).unwrap();
    assert!(matches!(embedded(pretrain.key), Captions::Of(_)));

    // Without captions of its own, a scale shows the manifest's.
    let request = Request { scale: "smoke".into(), overrides: vec!["sample.captions=[]".into()], seeds: None };
    let plain = workspace().load_artifact("figure6", &request).unwrap();
    assert_eq!(plain.tables[1].cells[0].runs[0].captions[4].0, "A herd of sheep gathered in one area.");
    // And Table 9 shows none.
    assert!(plan("table9", "smoke").tables[1].cells.iter().all(|cell| cell.runs[0].captions.is_empty()));
}

#[test]
fn a_vocabulary_that_is_missing_or_another_file_says_which_command_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let pin = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a";
        let vocabulary = format!("{{file: clip/bpe_simple_vocab_16e6.txt.gz, sha256: {pin}}}");
        let text = format!("text={{kind: clip, weights: {{file: w, sha256: ~}}, vocabulary: {vocabulary}}}");
        let workspace = workspace().with_data_folders(vec![folder.path().to_owned(), root()]);
        workspace.load_recipe("smoke-captions-backbone", &[text, "dit.text_width=768".to_owned()])
    };
    let missing = || {
        let Err(Error::Missing(missing)) = load() else { panic!("accepted") };
        missing.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let [weights, vocabulary] = &missing()[..] else { panic!("both are missing") };
    assert!(weights.contains("`w` is missing") && !weights.contains("gets it"), "{weights}");
    let command = "; `runner weights fetch clip-vocabulary` gets it";
    assert!(vocabulary.contains("is missing") && vocabulary.ends_with(command), "{vocabulary}");
    std::fs::create_dir(folder.path().join("clip")).unwrap();
    std::fs::write(folder.path().join("clip/bpe_simple_vocab_16e6.txt.gz"), "another").unwrap();
    std::fs::write(folder.path().join("w"), "weights").unwrap();
    let [vocabulary] = &missing()[..] else { panic!("one is wrong") };
    assert!(
        vocabulary.contains("is not the file that is pinned here") && vocabulary.ends_with(command),
        "{vocabulary}"
    );
}

#[test]
fn a_series_is_judged_after_shares_of_the_iterations() {
    let table3 = plan("table3", "tiny");
    let table = &table3.tables[0];
    let iterations = |id: &str| {
        let train = table.cell(id).unwrap().runs[0].trained.unwrap();
        let Stage::Train(train) = &table3.stage(train).unwrap().stage else { panic!("no training") };
        train.optimisation.iterations
    };
    let whole = table.scale.train.iterations;
    assert_eq!((iterations("large/dmp_10k"), iterations("large/dmp_50k")), (whole / 5, whole));
    assert_eq!(table.default_cell.as_deref(), Some("large/dmp_50k"));
    assert_eq!(table.cell("large/dmp_10k").unwrap().same_run_as, None);
}

#[test]
fn measures_are_planned_where_they_can_be_taken() {
    let kinds = |plan: &Plan| -> BTreeSet<&str> {
        let run = &plan.tables[0].cells[1].runs[0];
        run.measures.iter().map(|key| plan.stage(*key).unwrap().stage.kind()).collect()
    };
    // The features of faces know factors, no classes, and nothing spatial.
    assert_eq!(kinds(&plan("table8", "smoke")), BTreeSet::from(["coverage", "extrapolation"]));
    assert_eq!(kinds(&plan("table5", "smoke")), BTreeSet::from(["coverage", "similarity"]));
    let formula = "extractor={kind: inception_formula}".to_owned();
    let request = Request { scale: "smoke".into(), overrides: vec![formula], seeds: None };
    let plan = workspace().load_artifact("table2", &request).unwrap();
    assert_eq!(kinds(&plan), BTreeSet::from(["coverage", "extrapolation", "inception_score", "metrics"]));
    let run = &plan.tables[0].cells[0].runs[0];
    let Stage::Metrics(metrics) = &plan.stage(run.metrics).unwrap().stage else { panic!("no distance") };
    assert_eq!(metrics.name, "fd_inception_formula");
    assert!(!plan.stage(run.features).unwrap().inputs.contains_key("extractor"), "nothing is read");
}

#[test]
fn only_the_published_weights_make_an_fid() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("inception.pth"), "no weights at all").unwrap();
    let load = |sha256: &str| {
        let overrides =
            vec![format!("extractor={{kind: inception, weights: {{file: inception.pth, sha256: {sha256}}}}}")];
        let workspace = workspace().with_data_folders(vec![folder.path().to_owned(), root()]);
        workspace.load_artifact("table7", &Request { scale: "smoke".into(), overrides, seeds: None })
    };
    let name = |plan: &Plan| match &plan.stage(plan.tables[0].cells[0].runs[0].metrics).unwrap().stage {
        Stage::Metrics(metrics) => metrics.name.clone(),
        _ => unreachable!("the stage of a metrics key"),
    };
    assert_eq!(name(&load("~").unwrap()), "fd_inception");
    // Other bytes under the published hash are refused before anything runs.
    let Err(Error::Missing(missing)) = load(manifest::scale::PUBLISHED_INCEPTION) else { panic!("accepted") };
    assert!(missing[0].to_string().contains("is not the file that is pinned"), "{}", missing[0]);
}
