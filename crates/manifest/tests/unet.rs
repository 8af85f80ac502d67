//! Table 2's Stable Diffusion: a UNet among diffusion transformers.

use std::path::Path;

use manifest::denoiser::Denoiser;
use manifest::digest::{Digest, Key};
use manifest::extractor::WeightsFrom;
use manifest::gate::GateInput;
use manifest::method::{Lora, Method};
use manifest::plan::{CellRun, Input, Table};
use manifest::scale::{Engine, PUBLISHED_INCEPTION, SamplerKind};
use manifest::stage::{Captions, Stage};
use manifest::text::TextVectors;
use manifest::unet::UnetConfig;
use manifest::{Plan, Request, Workspace};
use serde_json::json;

fn workspace() -> Workspace {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Workspace::open(&root).unwrap().with_data_folders(vec![root])
}

fn request(scale: &str, overrides: &[&str]) -> Request {
    let overrides = overrides.iter().map(|&text| text.to_owned()).collect();
    Request { scale: scale.to_owned(), overrides, seeds: Some(vec![0]) }
}

fn plan(overrides: &[&str]) -> Plan {
    workspace().load_artifact("table2", &request("smoke", overrides)).unwrap_or_else(|error| panic!("{error}"))
}

fn laion(plan: &Plan) -> &Table {
    plan.tables.iter().find(|table| table.block.as_ref().is_some_and(|block| block.id == "laion")).unwrap()
}

fn run<'p>(plan: &'p Plan, cell: &str) -> &'p CellRun {
    &plan.cell(cell).unwrap().1.runs[0]
}

fn inputs(plan: &Plan, key: Key) -> Vec<&str> {
    plan.stage(key).unwrap().inputs.keys().map(String::as_str).collect()
}

/// Every stage that reads weights by formula has no input for them; captions are embedded token by token, and the reference
/// engine, which alone knows the network, is in the keys of what it runs.
#[test]
fn it_has_the_stages_of_a_diffusion_transformer() {
    let plan = plan(&[]);
    let table = laion(&plan);
    assert!(matches!(&table.denoiser, Denoiser::Unet(unet) if unet.weights == WeightsFrom::Formula));
    assert_eq!((table.denoiser.tokens(), table.denoiser.blocks()), (144, 5));
    assert!(plan.not_run.is_empty() && table.positive_control.is_some());
    let dmp = run(&plan, "laion/dmp");
    assert_eq!(inputs(&plan, dmp.trained.unwrap()), ["embeddings", "latents"]);
    assert_eq!(inputs(&plan, dmp.sample), ["embeddings", "trained"]);
    assert_eq!(inputs(&plan, run(&plan, "laion/baseline").sample), ["embeddings"]);
    assert_eq!(inputs(&plan, dmp.activation.unwrap()), ["embeddings", "trained"]);
    for planned in &plan.stages {
        match &planned.stage {
            Stage::Train(stage) if stage.denoiser.dit().is_none() => {
                assert_eq!(stage.numerics.engine, Engine::Reference);
                let json = serde_json::to_value(&planned.stage).unwrap();
                assert_eq!((&json["unet"]["weights"], json.get("dit")), (&json!("formula"), None));
                assert_eq!(serde_json::from_value::<Stage>(json).unwrap(), planned.stage);
            }
            Stage::Train(stage) => assert_eq!(stage.numerics.engine, Engine::Fast),
            Stage::Features(stage) => assert_eq!(stage.numerics.engine, Engine::Fast),
            Stage::Embeddings(stage) if matches!(&stage.captions, Captions::Of(_)) => {
                let pooled = run(&plan, "coco/dmp").trained.unwrap();
                let is_pooled = plan.stage(pooled).unwrap().dependencies().any(|key| key == planned.key);
                assert_eq!(stage.of, if is_pooled { TextVectors::Pooled } else { TextVectors::Tokens });
            }
            _ => {}
        }
    }
}

/// Keys of records that exist: a formula's network is what it was before there were trained ones.
#[test]
fn keys_of_weights_by_formula_stand() {
    let plan = plan(&[]);
    let dmp = run(&plan, "laion/dmp");
    assert_eq!(dmp.trained.unwrap().to_string(), "743961f352a7a97d9e4ca5840ec246237deea656d2f09bba0642f2c2f564da93");
    assert_eq!(dmp.sample.to_string(), "f873ea4076e99a448020ce64fb4383fd49feb3e3695682edcaea9e0e3d4dc383");
}

/// Where its recipe trains it and the scale has no weights, a stage does, and whoever patches it reads its artifact.
#[test]
fn it_is_trained_first_where_its_recipe_says_how() {
    let plan = workspace().load_artifact("table2", &request("tiny", &[])).unwrap_or_else(|error| panic!("{error}"));
    let table = laion(&plan);
    assert!(plan.not_run.is_empty() && table.positive_control.is_some());
    assert!(matches!(&table.denoiser, Denoiser::Unet(unet) if unet.weights == WeightsFrom::File));
    let is_unet = |stage: &Stage| matches!(stage, Stage::Pretrain(pretrain) if pretrain.denoiser == table.denoiser);
    let trained = plan.stages.iter().find(|planned| is_unet(&planned.stage)).unwrap();
    let Stage::Pretrain(pretrain) = &trained.stage else { unreachable!("found") };
    assert_eq!((pretrain.numerics.engine, pretrain.latents.is_none()), (Engine::Reference, true));
    assert_eq!(inputs(&plan, trained.key), ["embeddings"]);
    let json = serde_json::to_value(&trained.stage).unwrap();
    assert_eq!((json["unet"]["shape"]["channels"].as_u64(), json.get("dit")), (Some(3), None));
    assert_eq!(serde_json::from_value::<Stage>(json).unwrap(), trained.stage);
    let dmp = run(&plan, "laion/dmp");
    let baseline = run(&plan, "laion/baseline").sample;
    for key in [dmp.trained.unwrap(), dmp.sample, dmp.activation.unwrap(), baseline] {
        let reader = plan.stage(key).unwrap();
        assert_eq!(reader.inputs["backbone"], Input::Stage(trained.key), "{:?}", reader.stage.kind());
    }
    // The recipe alone has the same stage, the same key.
    let recipe = workspace().load_recipe("tiny-unet-backbone", &[]).unwrap();
    assert_eq!(recipe.stages.last().unwrap().key, trained.key);
    assert_eq!(recipe.numerics_key(), Some("training.numerics"));
    let formula = workspace().load_recipe("smoke-unet-backbone", &[]).unwrap();
    assert_eq!((formula.stages.len(), formula.numerics_key()), (0, None));
    let seed = workspace().load_recipe("tiny-unet-backbone", &["training.seed=1".to_owned()]).unwrap();
    assert_ne!(seed.stages.last().unwrap().key, trained.key);
}

/// All that a training needs, or nothing of it; each value at its place below `training`.
#[test]
fn mistakes_in_its_training() {
    let recipe = |option: &str| workspace().load_recipe("tiny-unet-backbone", &[option.to_owned()]);
    for (option, message) in [
        (
            "training.optimisation.batch=20001",
            "`optimisation.batch` must be at most the number of images (20000), found `20001`",
        ),
        ("training.optimisation.warmup_iterations=1000000", "found `1000000`"),
        ("training.optimisation.micro_batch=2", "is for the engine `fast` on `cuda` alone: leave it out"),
        ("training.data.image_size=32", "`data.image_size` must be 24, which the backbone sees, found `32`"),
        (
            "training.data={kind: image_folder, folder: f, image_size: 24}",
            "use `kind: captions`, `web_dataset` or `faces`",
        ),
        ("training.sead=1", "did you mean `seed`?"),
        ("seed=1", "space, text, title, training, unet"),
    ] {
        let error = recipe(option).expect_err(option).to_string();
        assert!(error.lines().any(|line| line.contains(message)), "{option}: {error}");
    }
    let error =
        workspace().load_recipe("smoke-unet-backbone", &["training={seed: 0}".to_owned()]).unwrap_err().to_string();
    for key in ["data", "optimisation", "ema_halflife_iterations", "numerics"] {
        assert!(error.contains(&format!("missing key `{key}` in `training`")), "{error}");
    }
}

/// The released code patches no UNet: its preset plans all the same, and the gate reads what there is.
#[test]
fn as_released_the_gate_reads_the_timestep() {
    let plan = plan(&["method.preset=official-code"]);
    let input = |cell: &str| match &plan.cell(cell).unwrap().1.method {
        Method::Dmp(dmp) => dmp.gate.input,
        other => panic!("{other:?}"),
    };
    assert_eq!((input("laion/dmp"), input("ffhq/dmp")), (GateInput::T, GateInput::TPlusC));
}

#[test]
fn what_has_no_meaning_on_it_is_refused() {
    for (option, message) in [
        (
            "method.backbone=from_scratch",
            "`backbone` must be `pretrained` on a UNet, whose weights do not learn together with",
        ),
        ("method.prompts.position={kind: prepend}", "`prompts.position.kind` must be `add` on a UNet"),
        ("method.prompts.depth=half", "`prompts.depth` must be `all` on a UNet"),
        ("method.gate.architecture=attention_literal", "`gate.architecture` must be `linear` on a UNet"),
        ("method.gate.selection={kind: top_k, keep: 0.75}", "`gate.selection.kind` must be `soft` on a UNet"),
        ("method.gate.prompts_per_block=uniform", "`gate.prompts_per_block` must be `distinct` on a UNet"),
    ] {
        let Err(error) = workspace().load_artifact("table2", &request("smoke", &[option])) else { panic!("{option}") };
        let error = error.to_string();
        assert!(error.starts_with(&format!("--set {option}: {message}")), "{error}");
    }
    // Table 2 sets the gate's input where captions have one vector, so that no option says it for all its groups.
    let plan = plan(&[]);
    let (_, coco) = plan.cell("coco/dmp").unwrap();
    assert_eq!(coco.method.unfit_for_unet().unwrap().0, "gate.input");
    assert_eq!(plan.cell("laion/dmp").unwrap().1.method.unfit_for_unet(), None);
    assert_eq!(Method::Lora(Lora { rank: 4, alpha: 4.0 }).unfit_for_unet().unwrap().0, "kind");
}

#[test]
fn mistakes_in_its_recipe() {
    let recipe = |option: &str| workspace().load_recipe("smoke-unet-backbone", &[option.to_owned()]);
    for (option, message) in [
        ("unet.heads=5", "`unet.heads` must divide the widths that attend: 16 is no multiple of 5"),
        ("unet.groups=3", "`unet.groups` must divide all widths: 16 is no multiple of 3"),
        ("unet.attending=[true]", "`unet.attending` must have a switch for each of 2 widths, found 1"),
        (
            "unet.image_size=13",
            "`unet.image_size` must be a multiple of 2, so that 1 halvings leave whole maps, found `13`",
        ),
        ("unet.channels=3", "`unet.channels` must be 4, the channels of a latent, found `3`"),
        ("unet.context=16", "`text` has embeddings of width 32: the network must say `unet.context: 32`, found `16`"),
        ("unet.label_dropout=2", "`unet.label_dropout` must be at most 1, found `2`"),
    ] {
        let error = recipe(option).expect_err(option).to_string();
        assert!(error.lines().any(|line| line.ends_with(message)), "{error}");
    }
    // Without a training nothing is trained.
    assert!(workspace().load_recipe("smoke-unet-backbone", &[]).unwrap().stages.is_empty());
    let plain = "data={kind: image_folder, folder: f, image_size: 24}";
    let Err(error) = workspace().load_artifact("table2", &request("smoke", &[plain])) else { panic!("no captions") };
    assert!(error.to_string().contains("`data` has no captions, but the backbone is conditioned on text"), "{error}");
    let guidance = "sample.sampler.guidance=7.5";
    assert!(workspace().load_artifact("table2", &request("smoke", &[guidance])).is_err(), "no null label elsewhere");
}

/// With stand-ins that have the pinned hashes, the block has the paper's numbers; what else is missing leaves its own blocks
/// out.
#[test]
fn the_paper_scale_plans_it_as_soon_as_its_files_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint =
        ("weights/v1-5-pruned-emaonly.safetensors", "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa");
    let inception = ("weights/pt_inception-2015-12-05-6726825d.pth", PUBLISHED_INCEPTION);
    let vocabulary =
        ("clip/bpe_simple_vocab_16e6.txt.gz", "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a");
    for (file, _) in [checkpoint, inception, vocabulary, ("laion512/00000.tar", "")] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
    let hash =
        move |path: &Path| match [checkpoint, inception, vocabulary].iter().find(|(file, _)| path.ends_with(file)) {
            Some((_, sha256)) => Ok(sha256.parse().unwrap()),
            None => Digest::of_file(path),
        };
    let workspace = workspace().with_data_folders(vec![folder.path().to_owned()]).with_hash(Box::new(hash));
    let plan = workspace.load_artifact("table2", &request("paper", &[])).unwrap_or_else(|error| panic!("{error}"));
    assert!(plan.missing.as_deref().is_some_and(|missing| missing.contains("ffhq256")));
    let [table] = &plan.tables[..] else { panic!("{} tables", plan.tables.len()) };
    assert_eq!(
        table.cells.iter().map(|cell| cell.id.as_str()).collect::<Vec<_>>(),
        ["laion/baseline", "laion/finetune", "laion/prompt_tuning", "laion/dmp"]
    );
    let Denoiser::Unet(unet) = &table.denoiser else { panic!("a DiT") };
    assert_eq!((&unet.shape, unet.weights), (&UnetConfig::stable_diffusion(), WeightsFrom::File));
    let dmp = run(&plan, "laion/dmp");
    assert_eq!(inputs(&plan, dmp.trained.unwrap()), ["backbone", "embeddings", "latents"]);
    assert_eq!(inputs(&plan, dmp.sample), ["backbone", "embeddings", "trained"]);
    assert_eq!(inputs(&plan, dmp.features), ["autoencoder", "extractor", "samples"]);
    let Stage::Train(train) = &plan.stage(dmp.trained.unwrap()).unwrap().stage else { panic!("no training") };
    let optimisation = &train.optimisation;
    assert_eq!((optimisation.iterations, optimisation.batch, optimisation.learning_rate), (50_000, 128, 1e-4));
    let Stage::Sample(sample) = &plan.stage(dmp.sample).unwrap().stage else { panic!("no sampling") };
    assert_eq!((sample.sampler.kind, sample.sampler.steps, sample.sampler.guidance), (SamplerKind::Pndm, 50, 7.5));
    assert_eq!((sample.count, train.latents.as_ref().unwrap().scale_factor), (50_000, 0.18215));
}
