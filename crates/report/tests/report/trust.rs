//! How far a report can be trusted: gates, learning rates, what may be called reproduced.

use std::collections::BTreeMap;

use manifest::autoencoder::{Autoencoder, AutoencoderFile, VaeConfig};
use manifest::dataset::{Dataset, Faces, ImageFolder, Source};
use manifest::denoiser::Denoiser;
use manifest::digest::Digest;
use manifest::dit::DitConfig;
use manifest::method::{Finetune, Method};
use manifest::plan::{Input, PlannedCell, PlannedStage, Table};
use manifest::recipe::{Latents, Space};
use manifest::reference::ReferenceFrom;
use manifest::scale::{Extractor, Inception, Optimisation, PUBLISHED_INCEPTION, Weights};
use manifest::stage::{Pretrain, Stage};

use crate::fixture::{Bench, full, plan};
use crate::{line, verdict};

#[test]
fn a_gate_that_stays_almost_uniform_is_said_beside_what_acts_through_it() {
    let heading = |page: &str, title: &str| page.lines().find(|line| line.contains(title)).unwrap().to_owned();
    let titles = [
        "(b) Gating type",
        "(c) Prompt selection",
        "(d) Prompt position",
        "(e) Prompt balancing",
        "Prompt depth (Figure 4)**",
    ];
    let bench = full(&[0, 1]);
    for cell in ["a/linear", "c/uniform", "e/ib2_lb1"] {
        bench.gate(cell, 0, (4, 64), 0.01);
        bench.gate(cell, 1, (4, 64), 0.005);
    }
    bench.gate("e/ib0_lb0", 0, (4, 64), 3.0);
    let (_, page) = bench.page();
    let gate = page.lines().find(|line| line.starts_with("**Gate.**")).unwrap();
    // Logits within 0.012 of zero: weights within 1.2% of 1/64, moving by 0.01 over t.
    assert!(
        gate.contains("`a/linear`'s 64 prompts lie between 0.0154")
            && gate.contains("1/64 = 0.01562: at most 1.2% from it"),
        "{gate}"
    );
    assert!(gate.contains("by more than 1.0% of 1/64 (2 training seeds)") && gate.contains("almost uniform"), "{gate}");
    let said = titles.map(|title| heading(&page, title).contains("gate within 1.2% of uniform"));
    assert_eq!(said, [false, true, false, true, false]);
    assert!(
        heading(&page, titles[3]).contains("of uniform, but for `e/ib0_lb0`, `e/ib0_lb1`)"),
        "{}",
        heading(&page, titles[3])
    );
    assert!(!heading(&page, titles[1]).contains("but for"));

    let bench = full(&[0, 1]);
    for cell in ["a/linear", "c/uniform"] {
        bench.gate(cell, 0, (4, 64), 3.0);
    }
    let (_, page) = bench.page();
    let gate = page.lines().find(|line| line.starts_with("**Gate.**")).unwrap();
    assert!(gate.contains("(one training seed)") && !gate.contains("almost uniform"), "{gate}");
    assert!(!heading(&page, titles[1]).contains("of uniform"));
    assert!(!full(&[0]).page().1.contains("**Gate.**"));
}

#[test]
fn real_images_are_measured_beside_the_cells() {
    let bench = full(&[0, 1]);
    assert!(!bench.page().1.contains("Real images against the reference"));
    bench.floor(0.4321);
    let (_, page) = bench.page();
    assert!(page.contains("**Real images against the reference:** 0.43"), "{page}");
    let key = bench.table().floor.unwrap();
    assert!(bench.reports().join(format!("table4/records/metrics/{}/{key}", &key.to_string()[..2])).is_dir());
}

#[test]
fn learning_rates_far_from_the_papers_are_said() {
    let note = "at 30 times the paper's learning rate";
    let (_, page) = full(&[0, 1]).page();
    assert!(page.contains("learning rate 1e-4 x 30 = 3e-3 "), "{page}");
    assert!(line(&page, "reference/finetune").contains(note));
    assert!(!line(&page, "reference/prompt_tuning").contains(note));
    // Shipped weights say nothing of their training.
    assert!(!page.contains("at its end"));

    let page = |plan| {
        let bench = Bench::new(plan);
        bench.measure("baseline", &[6.0]);
        bench.page().1
    };
    let slower = page(plan(&[0], &["train.learning_rate_multiplier=10.0"]));
    assert!(slower.contains("learning rate 1e-4 x 10 = 1e-3 "), "{slower}");
    assert!(!line(&slower, "reference/finetune").contains("times the paper's"));

    let mut trained = plan(&[0], &[]);
    let backbone = pretraining(&trained.tables[0]);
    let key = trained.tables[0].cells[0].runs[0].sample;
    let sample = trained.stages.iter_mut().find(|planned| planned.key == key).unwrap();
    sample.inputs.insert("backbone".to_owned(), Input::Stage(backbone.key));
    trained.stages.insert(0, backbone);
    assert!(page(trained).contains("at learning rate 1e-3, 2e-5 at its end)"));
}

/// A stage that trains the table's backbone.
fn pretraining(table: &Table) -> PlannedStage {
    let optimisation = Optimisation {
        iterations: 10,
        batch: 4,
        learning_rate: 1e-3,
        final_learning_rate: 2e-5,
        warmup_iterations: 0,
        weight_decay: 0.0,
        horizontal_flip: true,
        micro_batch: None,
    };
    let stage = Stage::Pretrain(Pretrain {
        denoiser: table.denoiser.clone(),
        data: Source::Faces(Faces { image_size: 24, first: 0, count: 100 }),
        latents: None,
        diffusion: table.diffusion.clone(),
        optimisation,
        ema_halflife_iterations: 0.0,
        seed: 0,
        numerics: table.scale.numerics.clone(),
    });
    PlannedStage::new(stage, BTreeMap::new()).unwrap()
}

/// Makes a table of the tiny scale one of the paper's.
fn as_in_the_paper(table: &mut Table) {
    let (scale, further) = (&mut table.scale, table.paper.further_iterations);
    let folder = Dataset::ImageFolder(ImageFolder { folder: "ffhq256".to_owned(), image_size: 256, count: None });
    (scale.data, scale.evaluation.reference) = (folder.clone(), ReferenceFrom::Images(folder));
    (scale.train.iterations, scale.train.batch, scale.train.learning_rate_multiplier) = (further, 128, 1.0);
    (scale.sample.count, scale.sample.sampler.steps, scale.sample.sampler.clip_x0) = (50_000, 250, false);
    let weights = Weights { file: "inception.pth".to_owned(), sha256: Some(PUBLISHED_INCEPTION.parse().unwrap()) };
    scale.extractor = Extractor::Inception(Inception { weights });
    let weights = Weights { file: "dit.safetensors".to_owned(), sha256: Some(Digest::of(b"backbone")) };
    scale.backbone.weights = Some(weights);
    let weights = Weights { file: "vae.safetensors".to_owned(), sha256: Some(Digest::of(b"autoencoder")) };
    let autoencoder = Autoencoder::File(AutoencoderFile { shape: VaeConfig::stable_diffusion(), weights });
    table.space = Space::Latents(Latents { autoencoder, scale_factor: 0.18215 });
    table.denoiser = Denoiser::Dit(DitConfig {
        image_size: 32,
        channels: 4,
        patch: 2,
        hidden: 768,
        depth: 12,
        heads: 12,
        classes: None,
        text_width: None,
        label_dropout: 0.0,
        learn_sigma: true,
    });
    table.scale_name = "paper".to_owned();
}

#[test]
fn sizes_are_judged_at_the_papers_scale_only() {
    let measured = |seeds: &[u64], change: fn(&mut Table)| {
        let mut bench = Bench::new(plan(seeds, &[]));
        as_in_the_paper(bench.table_mut());
        change(bench.table_mut());
        bench.measure("baseline", &[6.27, 6.25, 6.29]);
        // The paper's difference is -0.40; one interval holds it, the other does not.
        bench.measure("a/linear", &[5.87, 5.86, 5.88]);
        bench.measure("b/hard", &[5.77, 5.75, 5.80]);
        bench.measure("positive_control", &[8.0, 8.2, 8.1]);
        bench.page()
    };
    let (report, page) = measured(&[0, 1, 2], |_| {});
    assert_eq!(verdict(&report.rows, "a/linear"), "reproduced");
    assert_eq!(verdict(&report.rows, "b/hard"), "direction holds");
    assert_eq!(report.files[0].parent().unwrap().file_name().unwrap(), "paper");
    assert!(page.contains("moreover the paper's difference lies in the interval"));

    let changes: [fn(&mut Table); 15] = [
        |table| table.scale.extractor = plan(&[0], &[]).tables.remove(0).scale.extractor,
        |table| {
            let Extractor::Inception(inception) = &mut table.scale.extractor else { unreachable!() };
            inception.weights.sha256 = None;
        },
        |table| table.scale.backbone.weights = None,
        |table| table.scale.backbone.weights.as_mut().unwrap().sha256 = None,
        |table| table.denoiser = Denoiser::Dit(DitConfig::published("DiT-S/2", None).unwrap()),
        |table| table.scale.sample.count = 10_000,
        |table| table.scale.sample.sampler.steps = 50,
        |table| table.scale.sample.sampler.clip_x0 = true,
        |table| table.scale.train.iterations = 400,
        |table| table.scale.train.learning_rate_multiplier = 30.0,
        |table| table.scale.data = plan(&[0], &[]).tables.remove(0).scale.data,
        |table| table.scale_name = "large".to_owned(),
        |table| table.space = plan(&[0], &[]).tables.remove(0).space,
        |table| {
            let Space::Latents(Latents { autoencoder: Autoencoder::File(file), .. }) = &mut table.space else {
                unreachable!()
            };
            file.weights.sha256 = None;
        },
        |table| from_a_file(table, "a/linear"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (report, _) = measured(&[0, 1, 2], change);
        assert_eq!(verdict(&report.rows, "a/linear"), "direction holds", "change {number}");
    }
    // One training seed has a sampling error only, however well it fits.
    let (report, _) = measured(&[0], |_| {});
    assert_eq!(verdict(&report.rows, "a/linear"), "direction holds");
}

/// As if a cell had been trained elsewhere.
fn from_a_file(table: &mut Table, cell: &str) {
    let own = |other: &&mut PlannedCell| other.id == cell || other.same_run_as.as_deref() == Some(cell);
    for cell in table.cells.iter_mut().filter(own) {
        cell.trained = Some(Input::File { sha256: Digest::of(b"theirs"), path: "elsewhere/theirs.pt".into() });
    }
}

#[test]
fn what_was_trained_elsewhere_varies_with_sampling_seeds_alone() {
    let report = |seeds: &[u64], cells: &[&str], change: fn(&mut Table)| {
        let mut bench = Bench::new(plan(seeds, &[]));
        change(bench.table_mut());
        for (number, cell) in cells.iter().enumerate() {
            let values = [0.0, 0.03, -0.02].map(|noise| 6.0 + 0.4 * number as f64 + noise * number as f64);
            bench.measure(cell, &values);
        }
        bench.measure("positive_control", &[8.0, 8.2, 8.1]);
        bench.gate("a/linear", 0, (4, 64), 3.0);
        bench.page().1
    };
    let page = report(&[0, 1, 2], &["baseline", "a/linear", "b/hard"], |table| from_a_file(table, "a/linear"));
    let theirs = line(&page, "a/linear");
    assert!(theirs.contains("trained elsewhere (`theirs.pt`, sha256 `") && theirs.contains("]†"), "{theirs}");
    let marked: Vec<bool> = line(&page, "b/hard").split('|').map(|column| column.contains('†')).collect();
    assert_eq!(
        (marked[4], marked[7]),
        (false, true),
        "against the baseline, and against `b/soft`, which is `a/linear`: {page}"
    );
    assert!(
        page.contains("over training seeds (†: less than that, for one seed is common to both or one is a single"),
        "{page}"
    );
    assert!(page.contains("`baseline`, `a/linear` are not trained: their sds are of sampling seeds alone."), "{page}");
    assert!(page.contains("(trained elsewhere)"), "{page}");

    // Nothing else: the usual interval, and no mark.
    let page = report(&[0, 1, 2], &["baseline", "a/linear"], |table| from_a_file(table, "a/linear"));
    assert!(page.contains("over sampling seeds, where one of the two is a single training from a file"), "{page}");
    assert!(!page.contains('†'), "{page}");
    // A baseline from a file.
    let page = report(&[0, 1, 2], &["baseline", "b/hard"], |table| from_a_file(table, "baseline"));
    assert!(page.contains("`baseline` is not trained: its sd is of sampling seeds alone."), "{page}");
    assert!(page.contains("over sampling seeds, where one of the two"), "{page}");
}

#[test]
fn verdicts_are_withheld_where_no_cell_is_there_to_disturb() {
    let without_control = |method: Option<Method>| {
        let mut bench = Bench::new(plan(&[0, 1], &[]));
        let table = bench.table_mut();
        (table.default_cell, table.positive_control) = (None, None);
        table.method = method.unwrap_or_else(|| table.method.clone());
        bench.measure("baseline", &[6.0, 6.1]);
        bench.measure("b/hard", &[7.0, 7.11]);
        let (report, page) = bench.page();
        (verdict(&report.rows, "b/hard"), page)
    };
    let (said, page) = without_control(None);
    assert!(page.contains("none: no cell of this table trains the method as the manifest names it"), "{page}");
    assert_eq!(said, "withheld");
    // It is the manifest's method that has no prompts, whatever single cells have.
    let (said, page) = without_control(Some(Method::Finetune(Finetune::default())));
    assert!(page.contains("none, since the table's method has no prompts to disturb"), "{page}");
    assert_eq!(said, "direction contradicted");
}
