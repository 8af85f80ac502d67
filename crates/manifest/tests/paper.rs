//! The paper's own scale: which files it asks for, and what is planned where they are. Here others stand in their place.

use std::collections::BTreeSet;
use std::path::Path;

use manifest::dataset::Source;
use manifest::digest::{Digest, Key};
use manifest::gate::GateInput;
use manifest::method::Method;
use manifest::plan::{CellRun, Input, Plan};
use manifest::scale::{GuidanceChannels, SamplerKind, Schedule};
use manifest::stage::{FeatureKind, Sample, Stage, Train};
use manifest::{Error, Request, Workspace};

const AUTOENCODER: &str = "weights/sd-vae-ft-mse.safetensors";
const INCEPTION: &str = "weights/pt_inception-2015-12-05-6726825d.pth";
const FFHQ: [&str; 2] = ["ffhq256/00000.png", "weights/dit-b2-ffhq256.safetensors"];
const IMAGENET: [&str; 2] = ["imagenet256/n01440764/0.JPEG", "weights/DiT-XL-2-256x256.pt"];
const ADM: &str = "VIRTUAL_imagenet256_labeled.npz";

/// The repository with these files and no others.
fn workspace(folder: &Path, files: &[&str]) -> Workspace {
    for file in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
    let pinned: [(&str, Digest); 2] = [
        (AUTOENCODER, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815".parse().unwrap()),
        (INCEPTION, manifest::scale::PUBLISHED_INCEPTION.parse().unwrap()),
    ];
    let hash = move |path: &Path| match pinned.iter().find(|(file, _)| path.ends_with(file)) {
        Some((_, sha256)) => Ok(*sha256),
        None => Digest::of_file(path),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Workspace::open(root).unwrap().with_data_folders(vec![folder.to_owned()]).with_hash(Box::new(hash))
}

fn load(workspace: &Workspace, artifact: &str, overrides: &[&str]) -> Result<Plan, Error> {
    let overrides = overrides.iter().map(|&one| one.to_owned()).collect();
    workspace.load_artifact(artifact, &Request { scale: "paper".into(), overrides, seeds: None })
}

/// The plan of an artifact for which all files of FFHQ and ImageNet are there.
fn plan(artifact: &str, overrides: &[&str]) -> Plan {
    let folder = tempfile::tempdir().unwrap();
    let files = [&[AUTOENCODER, INCEPTION][..], &FFHQ, &IMAGENET, &[ADM]].concat();
    load(&workspace(folder.path(), &files), artifact, overrides).unwrap_or_else(|error| panic!("{artifact}: {error}"))
}

fn run<'p>(plan: &'p Plan, cell: &str) -> &'p CellRun {
    &plan.cell(cell).unwrap_or_else(|| panic!("no cell {cell}")).1.runs[0]
}

fn train<'p>(plan: &'p Plan, cell: &str) -> &'p Train {
    let Stage::Train(train) = &plan.stage(run(plan, cell).trained.unwrap()).unwrap().stage else {
        panic!("no training")
    };
    train
}

fn sample(plan: &Plan, key: Key) -> &Sample {
    let Stage::Sample(sample) = &plan.stage(key).unwrap().stage else { panic!("no sampling") };
    sample
}

/// What an artifact lacks where there are only `files`.
fn missing(artifact: &str, files: &[&str]) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    match load(&workspace(folder.path(), files), artifact, &[]) {
        Err(Error::Missing(missing)) => missing.into_iter().map(|missing| missing.wanted).collect(),
        _ => panic!("nothing is missing for {artifact}"),
    }
}

#[test]
fn all_files_that_are_missing_are_named() {
    let wanted = |files: &[&str]| files.iter().map(|&file| file.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(missing("table4", &[]), wanted(&["ffhq256", FFHQ[1], AUTOENCODER, INCEPTION]));
    assert_eq!(missing("table6", &[AUTOENCODER, INCEPTION]), wanted(&["ffhq256", FFHQ[1]]));
    let usual = [AUTOENCODER, INCEPTION, FFHQ[0], FFHQ[1]];
    assert_eq!(missing("figure8", &usual), wanted(&["imagenet256", IMAGENET[1]]));
    assert_eq!(missing("table8", &usual), wanted(&["imagenet256", ADM, IMAGENET[1]]));
    let folder = tempfile::tempdir().unwrap();
    let empty = workspace(folder.path(), &[]);
    for recipe in ["paper-backbone", "paper-classes-backbone"] {
        assert!(
            matches!(empty.load_recipe(recipe, &[]), Err(Error::Missing(missing)) if missing.len() == 2),
            "{recipe}"
        );
    }
}

#[test]
fn what_nobody_has_pinned_is_for_its_user_to_download() {
    let folder = tempfile::tempdir().unwrap();
    let Err(Error::Missing(missing)) = load(&workspace(folder.path(), &[]), "table8", &[]) else { panic!("a plan") };
    let said = |wanted: &str| missing.iter().find(|one| one.wanted == wanted).unwrap().to_string();
    assert!(said(IMAGENET[1]).ends_with("/DiT-XL-2-256x256.pt there"), "{}", said(IMAGENET[1]));
    assert!(said(INCEPTION).ends_with("; `runner weights fetch inception` gets it"), "{}", said(INCEPTION));
    assert!(said("imagenet256").ends_with("(or set DMP_DATA)"), "{}", said("imagenet256"));
}

#[test]
fn the_chain_has_the_papers_numbers() {
    let plan = plan("table4", &[]);
    let run = run(&plan, "b/soft");
    let inputs = |key: Key| plan.stage(key).unwrap().inputs.keys().map(String::as_str).collect::<Vec<_>>();
    let train = train(&plan, "b/soft");
    assert_eq!((train.optimisation.iterations, train.optimisation.batch), (30_000, 128));
    assert_eq!((train.optimisation.learning_rate, train.optimisation.weight_decay), (1e-4, 0.0));
    let dit = train.denoiser.dit().unwrap();
    assert_eq!((dit.tokens(), dit.hidden, dit.depth, dit.heads), (256, 768, 12, 12));
    assert_eq!(train.latents.as_ref().unwrap().scale_factor, 0.18215);
    assert_eq!(inputs(run.trained.unwrap()), ["backbone", "latents"]);
    assert_eq!(inputs(run.sample), ["backbone", "trained"]);
    assert_eq!(inputs(run.features), ["autoencoder", "extractor", "samples"]);
    assert_eq!(inputs(run.decoded.unwrap()), ["autoencoder", "samples"]);
    let sample = sample(&plan, run.sample);
    assert_eq!((sample.count, sample.sampler.steps, sample.sampler.clip_x0), (50_000, 250, false));
    let encodes: Vec<_> = plan.stages.iter().filter(|planned| planned.stage.kind() == "encode").collect();
    let [encode] = encodes.as_slice() else { panic!("{} encodings", encodes.len()) };
    assert_eq!(inputs(encode.key), ["autoencoder", "folder"]);
    let Stage::Encode(encode) = &encode.stage else { panic!("no encoding") };
    assert!(encode.horizontal_flip);
}

#[test]
fn imagenet_has_the_papers_numbers() {
    let table8 = plan("table8", &[]);
    assert!(table8.not_run.is_empty() && table8.missing.is_none());
    let dmp = train(&table8, "imagenet/dmp");
    let dit = dmp.denoiser.dit().unwrap();
    let trunk = (dit.tokens(), dit.hidden, dit.depth, dit.heads);
    assert_eq!((trunk, dit.classes, dit.label_dropout), ((256, 1152, 28, 16), Some(1000), 0.1));
    assert_eq!((dmp.diffusion.schedule, dmp.diffusion.timesteps), (Schedule::Linear, 1000));
    let optimisation = &dmp.optimisation;
    assert_eq!((optimisation.iterations, optimisation.batch, optimisation.horizontal_flip), (20_000, 128, true));
    assert_eq!((optimisation.learning_rate, optimisation.final_learning_rate), (1e-4, 1e-4));
    assert_eq!((optimisation.weight_decay, optimisation.warmup_iterations), (0.0, 0));
    assert_eq!(dmp.data, Source::ClassFolders { image_size: 256, count: None });
    for cell in ["imagenet/baseline", "imagenet/finetune", "imagenet/prompt_tuning", "imagenet/dmp"] {
        let drawn = sample(&table8, run(&table8, cell).sample);
        assert_eq!((drawn.count, drawn.class, drawn.sampler.steps), (50_000, None, 250), "{cell}");
        assert_eq!((drawn.sampler.kind, drawn.sampler.clip_x0), (SamplerKind::Ddpm, false), "{cell}");
        assert_eq!((drawn.sampler.guidance, drawn.sampler.guidance_channels), (1.5, GuidanceChannels::All), "{cell}");
        let measures: Vec<_> =
            run(&table8, cell).measures.iter().map(|key| table8.stage(*key).unwrap().stage.kind()).collect();
        assert_eq!(measures, ["coverage", "inception_score", "metrics"], "{cell}");
        // Precision and recall are against ADM's images, distances against the training set.
        let coverage = table8.stage(run(&table8, cell).measures[0]).unwrap();
        let Input::Stage(against) = coverage.inputs["reference"] else { panic!("a file") };
        assert_ne!(Some(against), table8.tables[0].reference.features);
        let Stage::Features(features) = &table8.stage(against).unwrap().stage else { panic!("no features") };
        assert_eq!(features.data, Some(Source::Npz { image_size: 256 }));
    }
    // ADM's evaluator takes distances to the statistics in the same file: its images are looked at for precision and recall alone.
    let adm = plan("table8", &[&format!("evaluation.reference={{kind: statistics, file: {ADM}, sha256: ~}}")]);
    let reference = &adm.tables[0].reference;
    assert_eq!(reference.features, None);
    for (key, of) in [(reference.statistics, FeatureKind::Pooled), (reference.spatial.unwrap(), FeatureKind::Spatial)] {
        let planned = adm.stage(key).unwrap();
        let Stage::Statistics(statistics) = &planned.stage else { panic!("no statistics") };
        assert_eq!((statistics.of, statistics.published.is_some()), (of, true));
        let Input::File { sha256, .. } = &planned.inputs["published"] else { panic!("a stage") };
        assert_eq!((*sha256, planned.inputs.len()), (Digest::of(ADM.as_bytes()), 1));
    }
    let measures = &run(&adm, "imagenet/dmp").measures;
    assert_eq!(measures.len(), run(&table8, "imagenet/dmp").measures.len());
    assert_eq!(measures[0], run(&table8, "imagenet/dmp").measures[0], "the same coverage");
    // Without images there is nothing that samples could cover.
    let alone = plan("table4", &[&format!("evaluation.reference={{kind: statistics, file: {ADM}, sha256: ~}}")]);
    let kinds = |plan: &Plan| -> Vec<&str> {
        run(plan, "b/soft").measures.iter().map(|key| plan.stage(*key).unwrap().stage.kind()).collect()
    };
    let usual = kinds(&plan("table4", &[]));
    assert!(usual.contains(&"coverage") && !kinds(&alone).contains(&"coverage"), "{usual:?}");
    // As the authors released it, DiT's guidance is kept: three of the four channels.
    let released = plan("table8", &["method.preset=official-code"]);
    let drawn = sample(&released, run(&released, "imagenet/dmp").sample);
    assert_eq!(drawn.sampler.guidance_channels, GuidanceChannels::FirstThree);

    // Table 9 without the files of COCO: the group of ImageNet alone.
    let table9 = plan("table9", &[]);
    let reads = |cell: &str| match &train(&table9, cell).method {
        Method::Dmp(dmp) => dmp.gate.input,
        _ => panic!("{cell} has no gate"),
    };
    assert_eq!((reads("imagenet/t"), reads("imagenet/t_plus_c")), (GateInput::T, GateInput::TPlusC));
    assert_eq!(run(&table9, "imagenet/t").trained, run(&table8, "imagenet/dmp").trained, "the same training");
    assert!(table9.not_run.iter().all(|cell| cell.cell.starts_with("coco/")) && table9.not_run.len() == 3);

    let figure8 = plan("figure8", &[]);
    for cell in ["imagenet/baseline", "imagenet/dmp"] {
        let run = run(&figure8, cell);
        assert_eq!(run.classes.iter().map(|(class, _)| *class).collect::<Vec<_>>(), [207, 1, 94, 9]);
        for (class, shown) in &run.classes {
            let decode = figure8.stage(*shown).unwrap();
            assert_eq!(decode.stage.kind(), "decode");
            let drawn = sample(&figure8, decode.dependencies().next().unwrap());
            assert_eq!((drawn.class, drawn.count, drawn.sampler.guidance), (Some(*class), 16, 1.5), "{cell}");
        }
    }
}

#[test]
fn from_scratch_takes_the_papers_iterations() {
    let table6 = plan("table6", &[]);
    for (share, iterations) in [("80k", 80_000), ("90k", 90_000), ("100k", 100_000)] {
        for what in ["dit", "dmp"] {
            let train = train(&table6, &format!("scratch/{what}_{share}"));
            assert_eq!((train.optimisation.iterations, train.optimisation.batch), (iterations, 128), "{what}_{share}");
            assert!(train.method.from_scratch() && train.denoiser.dit().unwrap().hidden == 768);
        }
    }
    assert_eq!(table6.tables[0].scale.train.iterations, table6.tables[0].paper.further_iterations);
}
