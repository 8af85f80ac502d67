//! Every mistake in the input is named at its line and column, with what is allowed and what is nearest.

use std::path::{Path, PathBuf};
use std::{fs, io};

use manifest::digest::Digest;
use manifest::method::{Dmp, Method, Position, Prompts};
use manifest::{Error, Plan, Request, Workspace};

/// A copy of `tests/fixture`, in which files can be spoiled.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture"), folder.path()).unwrap();
        Self(folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join("experiments").join(file)
    }

    /// Replaces the only occurrence of a text in a file.
    fn spoil(self, file: &str, right: &str, wrong: &str) -> Self {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert_eq!(text.matches(right).count(), 1, "`{right}` in {file}");
        fs::write(self.path(file), text.replace(right, wrong)).unwrap();
        self
    }

    fn load(&self, scale: &str, overrides: &[&str]) -> Result<Plan, Error> {
        let overrides = overrides.iter().map(|text| text.to_string()).collect();
        let request = Request { scale: scale.into(), overrides, seeds: None };
        let folders = vec![self.0.path().to_owned()];
        Workspace::open(self.0.path()).unwrap().with_data_folders(folders).load("mini", &request)
    }

    fn lines(&self, scale: &str, overrides: &[&str]) -> Vec<String> {
        let error = self.load(scale, overrides).expect_err("a problem");
        error.to_string().lines().map(str::to_owned).collect()
    }

    /// Spoils a file; the problem is expected at the mark `«`, and all lines of the message, where its place is `@`.
    fn expect(file: &str, right: &str, wrong: &str, message: &str) {
        let fixture = Self::new().spoil(file, right, wrong);
        let text = fs::read_to_string(fixture.path(file)).unwrap();
        let before = &text[..text.find('«').expect("a mark")];
        let (line, column) = (before.split('\n').count(), before.chars().rev().take_while(|&c| c != '\n').count() + 1);
        fs::write(fixture.path(file), text.replace('«', "")).unwrap();
        let place = format!("experiments/{file}:{line}:{column}");
        assert_eq!(fixture.lines("s", &[]).join("\n"), message.replace('@', &place), "{wrong}");
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn option(text: &str) -> String {
    let lines = Fixture::new().lines("s", &[text]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.into_iter().next().unwrap()
}

#[test]
fn the_fixture_itself_is_good() {
    for scale in ["s", "t"] {
        Fixture::new().load(scale, &[]).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_table_from_scratch_trains_no_backbone() {
    let kinds = |fixture: Fixture, overrides: &[&str]| -> Vec<&'static str> {
        let plan = fixture.load("s", overrides).unwrap_or_else(|error| panic!("{error}"));
        plan.stages.iter().map(|planned| planned.stage.kind()).collect()
    };
    assert!(kinds(Fixture::new(), &[]).contains(&"pretrain"));
    // Some cells still start from it.
    assert!(kinds(Fixture::new(), &["method.backbone=from_scratch"]).contains(&"pretrain"));
    let all = Fixture::new().spoil("mini.yaml", "{kind: pretrained}", "{kind: finetune}");
    let kinds = kinds(all, &["method.backbone=from_scratch"]);
    assert!(!kinds.contains(&"pretrain") && kinds.contains(&"train"), "{kinds:?}");
}

#[test]
fn mistakes_in_a_manifest() {
    let cases = [
        (
            "title: Gating",
            "«titel: Gating",
            "@: unknown key `titel` in `groups.b`; allowed: baseline, captions, cells, paper, setting, title; did you mean `title`?\n\
             @: missing key `title` in `groups.b`",
        ),
        ("soft: {}", "soft: {}\n      «hard: {}", "@: duplicate key `hard`; it is first at experiments/mini.yaml:10:7"),
        (
            "{kind: pretrained}",
            "{kind: «pretraind}",
            "@: unknown value `pretraind` for `baseline.method.kind`; allowed: pretrained, finetune, prompt_tuning, lora, dmp; did you mean `pretrained`?",
        ),
        (
            "claim: m.hard",
            "claim: «m.herd",
            "@: unknown claim `m.herd`; allowed: m.baseline, m.hard; did you mean `m.hard`?",
        ),
        (
            "method.gate.selection: ",
            "«method.gate.selektion: ",
            "@: unknown key `selektion` in `method.gate`; allowed: architecture, selection, prompts_per_block, input, noise, learning_rate_factor; did you mean `selection`?",
        ),
        (
            "kind: top_k",
            "kind: «topk",
            "@: unknown value `topk` for `method.gate.selection.kind`; allowed: soft, top_k; did you mean `top_k`?",
        ),
        ("keep: 0.75", "keep: «0", "@: `method.gate.selection.keep` must be greater than 0, found `0`"),
        ("keep: 0.75", "keep: «1.01", "@: `method.gate.selection.keep` must be at most 1, found `1.01`"),
        (
            "keep: 0.75",
            "keep: «.nan",
            "@: `groups.b.cells.hard.set.method.gate.selection.keep` must be a finite number, found `NaN`",
        ),
        ("keep: 0.75", "keep: «0.01", "@: `gate.selection.keep` keeps no prompt: floor(0.01 * 16) = 0"),
        (
            "{method.gate.selection: {kind: top_k, keep: 0.75}}",
            "{method.prompts.position: {kind: add, «per_256_tokens: 50}}",
            "@: unknown key `per_256_tokens` in `method.prompts.position`; `kind: add` is: `x + gate * prompt`, one prompt per image token; allowed: kind",
        ),
        (
            "{method.gate.selection: {kind: top_k, keep: 0.75}}",
            "{method.prompts.position: {kind: prepend, per_256_tokens: «257}}",
            "@: `method.prompts.position.per_256_tokens` must be at most 256, found `257`",
        ),
        (
            "{method.gate.selection: {kind: top_k, keep: 0.75}}",
            "{method.prompts.position: {kind: prepend, per_256_tokens: «1}}",
            "@: `prompts.position.per_256_tokens` leaves no prompt: round(16 tokens * 1 / 256) = 0",
        ),
        (
            "{method.gate.selection: {kind: top_k, keep: 0.75}}",
            "{method.prompts.depth: {blocks: «3}}",
            "@: `prompts.depth.blocks` must be at most the backbone's blocks (2), found `3`; `all` is all of them",
        ),
        (
            "{method.gate.selection: {kind: top_k, keep: 0.75}}",
            "{method.prompts.depth: {blocks: «0}}",
            "@: `method.prompts.depth.blocks` must be at least 1, found `0`",
        ),
        (
            "{method.gate.selection: {kind: top_k, keep: 0.75}}",
            "{«train.iterations: 5}",
            "@: a cell sets paths below `method` only, not `train.iterations`: the scale fixes the rest",
        ),
        (
            "set: {method.gate.selection: {kind: top_k, keep: 0.75}}",
            "method: {kind: lora}, set: {method.rank: «17}",
            "@: `rank` must be at most the backbone's width (16), found `17`",
        ),
        (
            "set: {method.gate.selection: {kind: top_k, keep: 0.75}}",
            "method: {kind: lora}, set: {method.alpha: «0}",
            "@: `method.alpha` must be greater than 0, found `0`",
        ),
        (
            "title: Gating type",
            "title: Gating type\n    «paper: {where: T, backbone: B, dataset: D, further_iterations: 1}",
            "@: `paper` stands here only beside `setting`",
        ),
        ("soft: {}", "soft: {share: «0}", "@: `groups.b.cells.soft.share` must be greater than 0, found `0`"),
        (
            "soft: {}",
            "soft: {further_claims: [«m.hart]}",
            "@: unknown claim `m.hart`; allowed: m.baseline, m.hard; did you mean `m.hard`?",
        ),
        ("soft: {}", "soft: {classes: «[1]}", "@: `classes` has none to show: the backbone is unconditional"),
        (
            "title: Gating type",
            "title: Gating type\n    «captions: [a]",
            "@: `captions` stands here only beside `setting`",
        ),
        ("hard: ", "«Hard/x: ", "@: the name `Hard/x` must be made of lowercase letters, digits and underscores"),
        (
            "preset: paper",
            "preset: «papier",
            "@: there is no `papier` in experiments/presets; allowed: paper; did you mean `paper`?",
        ),
        ("artifact: mini", "artifact: «other", "@: `artifact` must be `mini`, the name of the file, found `other`"),
    ];
    for (right, wrong, expected) in cases {
        Fixture::expect("mini.yaml", right, wrong, expected);
    }
}

#[test]
fn mistakes_in_a_scale() {
    let cases = [
        (
            "  iterations: 10",
            "  «iteration: 10",
            "@: unknown key `iteration` in `train`; allowed: batch, horizontal_flip, iterations, learning_rate, learning_rate_multiplier; did you mean `iterations`?\n\
             @: missing key `iterations` in `train`",
        ),
        ("  iterations: 10", "  iterations: «0", "@: `train.iterations` must be at least 1, found `0`"),
        ("  iterations: 10", "  iterations: «-3", "@: `train.iterations` must be at least 1, found `-3`"),
        ("  count: 16", "  count: «0", "@: `sample.count` must be at least 4, found `0`"),
        ("  batch: 4", "  batch: «101", "@: `train.batch` must be at most the number of images (100), found `101`"),
        (
            "learning_rate: 1.0e-4",
            "learning_rate: «.inf",
            "@: `train.learning_rate` must be a finite number, found `inf`",
        ),
        (
            "steps: 5",
            "steps: «1001",
            "@: `sample.sampler.steps` must be at most the process's length (1000), found `1001`",
        ),
        (
            "kind: ddpm, steps: 5",
            "kind: pndm, steps: «1000",
            "@: `sample.sampler.steps` must be at most one less than the process's length, with PNDM (999), found `1000`",
        ),
        ("steps: 5", "steps: «1", "@: `sample.sampler.steps` must be at least 2, found `1`"),
        ("kind: ddpm, steps: 5", "kind: ddim, steps: «1", "@: `sample.sampler.steps` must be at least 2, found `1`"),
        (
            "kind: ddpm, steps: 5",
            "kind: ddim, steps: «60",
            "@: `sample.sampler.steps` must be a number of evenly spaced timesteps among 1000, with DDIM, found `60`; 59 and 63 are",
        ),
        (
            "guidance: 1.0",
            "guidance: «1.5",
            "@: `sample.sampler.guidance` must be 1: the backbone has no null label to be guided away from",
        ),
        (
            "{recipe: net}",
            "{recipe: «nett}",
            "@: there is no `nett` in experiments; allowed: cnn, net; did you mean `net`?",
        ),
        ("{recipe: net}", "{recipe: «cnn}", "@: `experiments/cnn.yaml` is the recipe of an extractor, no backbone"),
        (
            "{recipe: net}",
            "{recipe: net, weights: {file: w, sha256: «abc}}",
            "@: `backbone.weights.sha256` must be a SHA-256 (64 lowercase hexadecimal digits), found the text `abc`",
        ),
        ("seeds: [0]", "seeds: «[]", "@: `seeds` must not be empty"),
        ("seeds: [0]", "seeds: [0, 1, «0]", "@: `seeds[2]` repeats `0`"),
        (
            "image_size: 8, first: 200",
            "image_size: «9, first: 200",
            "@: `evaluation.reference.image_size` must be 8, the side of the samples, found `9`",
        ),
        (
            "image_size: 8, first: 400",
            "image_size: «9, first: 400",
            "@: `evaluation.floor.image_size` must be 8, the side of the samples, found `9`",
        ),
        (
            "first: 400, count: 32",
            "first: 400, count: «15",
            "@: `evaluation.floor.count` must be at least the number of samples (16), found `15`",
        ),
        (
            "{kind: faces, image_size: 8, first: 400, count: 32}",
            "«{kind: image_folder, folder: photos, image_size: 8}",
            "@: `evaluation.floor` must say how many images it has, so that as many as samples are taken: not a folder of images",
        ),
        (
            "first: 400, count: 32",
            "first: «263, count: 32",
            "@: `evaluation.floor.first` must leave the reference out: of its first 16 images some are in it",
        ),
        (
            "first: 400, count: 32",
            "first: «185, count: 32",
            "@: `evaluation.floor.first` must leave the reference out: of its first 16 images some are in it",
        ),
        (
            "title: a scale",
            "title: a scale\n«title: b",
            "@: duplicate key `title`; it is first at experiments/scales/s.yaml:1:1",
        ),
        ("seeds: [0]\nnumerics", "seeds: [0\nnumerics«", "@: not YAML: illegal placement of ':' indicator"),
    ];
    for (right, wrong, expected) in cases {
        Fixture::expect("scales/s.yaml", right, wrong, expected);
    }
}

#[test]
fn a_block_without_what_it_needs_is_said_to_be_incomplete() {
    let own = |setting: &str| format!("groups:\n  other: {{title: Other, setting: {setting}, cells: {{x: {{}}}}}}");
    let fixture = Fixture::new().spoil("mini.yaml", "groups:", &own("u"));
    let message = |key: &str| {
        format!(
            "experiments/mini.yaml:7:3: `{key}` is missing in `groups.other`: with `setting: u` the group has its own"
        )
    };
    assert_eq!(fixture.lines("s", &[]), [message("paper"), message("baseline")]);
    // A setting that the scale does not have leaves the block out, and nothing else.
    let whole = "paper: {where: T, backbone: B, dataset: D, further_iterations: 1}, baseline: {method: {kind: pretrained}}, cells";
    let fixture = Fixture::new().spoil("mini.yaml", "groups:", &own("u").replace("cells", whole));
    let plan = fixture.load("s", &[]).unwrap();
    assert_eq!((plan.tables.len(), plan.not_run.len()), (1, 2));
    assert_eq!(plan.not_run[1].reason, "scale `s` has no setting `u`");
    // With it, the overlay is checked like the scale's own keys.
    let text = "\nsettings:\n  u: {train: {iterations: 7}}\n";
    let scale = fs::read_to_string(fixture.path("scales/s.yaml")).unwrap();
    fs::write(fixture.path("scales/s.yaml"), scale.clone() + text).unwrap();
    let plan = fixture.load("t", &[]).unwrap();
    assert_eq!((plan.tables.len(), plan.tables[1].scale.train.iterations), (2, 7));
    fs::write(fixture.path("scales/s.yaml"), scale + &text.replace("iterations", "iteration")).unwrap();
    let lines = fixture.lines("s", &[]);
    assert!(lines[0].contains("unknown key `iteration` in `train`"), "{lines:?}");
}

#[test]
fn a_floor_may_touch_the_reference_and_be_left_out() {
    for first in ["264", "184"] {
        // 184 to 199 are judged; that the dataset goes on into the reference is no harm.
        let good =
            Fixture::new().spoil("scales/s.yaml", "first: 400, count: 32", &format!("first: {first}, count: 32"));
        assert!(good.load("s", &[]).unwrap().tables[0].floor.is_some());
    }
    let none = Fixture::new().load("s", &["evaluation.floor=~"]).unwrap();
    assert_eq!(none.tables[0].floor, None);
    let line = "  floor: {kind: faces, image_size: 8, first: 400, count: 32}\n";
    let absent = Fixture::new().spoil("scales/s.yaml", line, "").load("s", &[]).unwrap();
    assert_eq!(absent.tables[0].floor, None);
}

#[test]
fn mistakes_in_a_recipe() {
    let cases = [
        ("net.yaml", "heads: 4", "heads: «5", "@: `dit.heads` must divide the width: 16 is no multiple of 5"),
        ("net.yaml", "patch: 2", "patch: «3", "@: `dit.patch` must divide the image: 8 is no multiple of 3"),
        (
            "net.yaml",
            "label_dropout: 0.0",
            "label_dropout: «0.1",
            "@: `dit.label_dropout` must be 0 without classes: there is no label to drop",
        ),
        (
            "net.yaml",
            "classes: null\n  label_dropout: 0.0\n  learn_sigma: true\ndata: {kind: faces, image_size: 8, first: 0, count: 100}",
            "classes: 10\n  label_dropout: 0.0\n  learn_sigma: true\ndata: «{kind: image_folder, image_size: 8, folder: f}",
            "@: `data` has no labels, but the backbone is class-conditional",
        ),
        (
            "net.yaml",
            "warmup_iterations: 2",
            "warmup_iterations: «11",
            "@: `optimisation.warmup_iterations` must be at most the iterations (10), found `11`",
        ),
        ("net.yaml", "timesteps: 1000", "timesteps: «1", "@: `diffusion.timesteps` must be at least 2, found `1`"),
        (
            "net.yaml",
            "  learn_sigma: true",
            "  text_width: «16\n  learn_sigma: true",
            "@: `dit.text_width` needs an encoder: `text: {kind: clip_formula, ...}` or `{kind: clip, ...}`",
        ),
        (
            "net.yaml",
            "  learn_sigma: true",
            "  learn_sigma: true\ntext: «{kind: clip_formula, width: 16, depth: 1, heads: 4}",
            "@: `text` has embeddings of width 16: the network must say `dit.text_width: 16`, found none",
        ),
        (
            "net.yaml",
            "  learn_sigma: true",
            "  learn_sigma: true\n  text_width: 16\ntext: {kind: clip_formula, width: 16, depth: 1, heads: «3}",
            "@: `text.heads` must divide the width: 16 is no multiple of 3",
        ),
        (
            "net.yaml",
            "classes: null\n  label_dropout: 0.0\n  learn_sigma: true",
            "classes: 4\n  label_dropout: 0.0\n  learn_sigma: true\n  text_width: «16\ntext: {kind: clip_formula, width: 16, depth: 1, heads: 4}",
            "@: `dit.text_width` takes the place of classes: leave it out, or set `classes: null`",
        ),
        (
            "net.yaml",
            "  learn_sigma: true\ndata: {kind: faces, image_size: 8, first: 0, count: 100}",
            "  learn_sigma: true\n  text_width: 16\ntext: {kind: clip_formula, width: 16, depth: 1, heads: 4}\ndata: «{kind: image_folder, image_size: 8, folder: f}",
            "@: `data` has no captions, but the backbone is conditioned on text; use `kind: captions`, `web_dataset` or `faces`",
        ),
        (
            "net.yaml",
            "schedule: cosine, timesteps: 1000",
            "schedule: linear, timesteps: «20",
            "@: `diffusion.timesteps` must be at least 21 with this schedule, found `20`",
        ),
        (
            "net.yaml",
            "schedule: cosine",
            "schedule: «cosin",
            "@: unknown value `cosin` for `diffusion.schedule`; allowed: linear, scaled_linear, cosine; did you mean `cosine`?",
        ),
        (
            "net.yaml",
            "recipe: backbone",
            "recipe: «backbon",
            "@: unknown value `backbon` for `recipe`; allowed: backbone, extractor; did you mean `backbone`?",
        ),
        (
            "cnn.yaml",
            "widths: [4, 8]",
            "widths: «[4, 8, 8, 8, 8]",
            "@: `extractor.widths` halves a side of 8 4 times: nothing is left",
        ),
        ("cnn.yaml", "widths: [4, 8]", "widths: [4, «0]", "@: `extractor.widths[1]` must be at least 1, found `0`"),
        (
            "cnn.yaml",
            "target: factors}\ndata: {kind: faces, image_size: 8, first: 100, count: 100}",
            "target: «labels}\ndata: {kind: image_folder, image_size: 8, folder: f}",
            "@: `extractor.target` can be `labels` for labelled images only; use `factors`",
        ),
    ];
    for (file, right, wrong, expected) in cases {
        Fixture::expect(file, right, wrong, expected);
    }
}

#[test]
fn mistakes_in_claims_and_presets() {
    let cases = [
        (
            "claims/mini.yaml",
            "{m.baseline: lower}",
            "{«m.baseline: higher}",
            "@: `m.hard` (5.96) is not higher than `m.baseline` (6.27)",
        ),
        (
            "claims/mini.yaml",
            "{m.baseline: lower}",
            "{«m.base: lower}",
            "@: unknown claim `m.base`; allowed: m.baseline, m.hard",
        ),
        (
            "claims/mini.yaml",
            "id: m.hard",
            "id: «m.baseline",
            "@: duplicate claim `m.baseline`; it is first at experiments/claims/mini.yaml:2:10",
        ),
        (
            "presets/paper.yaml",
            "noise: none ",
            "noise: «nome ",
            "@: unknown value `nome` for `method.gate.noise`; allowed: none, learned; did you mean `none`?",
        ),
        (
            "presets/paper.yaml",
            "prepend: {per_256_tokens: 50}",
            "prepend: {per_256_tokens: «500}",
            "@: `method.prompts.position.per_256_tokens` must be at most 256, found `500`",
        ),
    ];
    for (file, right, wrong, expected) in cases {
        Fixture::expect(file, right, wrong, expected);
    }
}

#[test]
fn mistakes_on_the_command_line_name_the_option() {
    let cases = [
        ("train.iterations", "--set train.iterations: write `path=value`, e.g. `train.iterations=50`"),
        ("train..x=1", "--set train..x=1: `train..x` is not a path: keys joined by dots, e.g. `train.iterations`"),
        ("train.iterations=0", "--set train.iterations=0: `train.iterations` must be at least 1, found `0`"),
        (
            "train.iteration=5",
            "--set train.iteration=5: unknown key `iteration` in `train`; allowed: batch, horizontal_flip, iterations, learning_rate, learning_rate_multiplier; did you mean `iterations`?",
        ),
        (
            "method.gate.noise=lerned",
            "--set method.gate.noise=lerned: unknown value `lerned` for `method.gate.noise`; allowed: none, learned; did you mean `learned`?",
        ),
        (
            "method.gate.nois=learned",
            "--set method.gate.nois=learned: unknown key `nois` in `method.gate`; allowed: architecture, selection, prompts_per_block, input, noise, learning_rate_factor; did you mean `noise`?",
        ),
        (
            "method.preset=papre",
            "--set method.preset=papre: there is no `papre` in experiments/presets; allowed: paper; did you mean `paper`?",
        ),
        (
            "sample.sampler.guidance=.nan",
            "--set sample.sampler.guidance=.nan: `sample.sampler.guidance` must be a finite number, found `NaN`",
        ),
        ("seeds=[0, 0]", "--set seeds=[0, 0]: `seeds[1]` repeats `0`"),
        ("title=[", "--set title=[: not YAML: while parsing a node, did not find expected node content"),
    ];
    for (text, expected) in cases {
        assert_eq!(option(text), expected);
    }
}

#[test]
fn all_mistakes_of_a_file_are_found_at_once() {
    let fixture = Fixture::new()
        .spoil("scales/s.yaml", "  batch: 4", "  batch: 0")
        .spoil("scales/s.yaml", "kind: ddpm", "kind: ddmp")
        .spoil("scales/s.yaml", "  subsets: 2\n", "");
    let places: Vec<_> = fixture.lines("s", &["sample.count=x"]);
    assert_eq!(
        places,
        [
            "experiments/scales/s.yaml:7:10: `train.batch` must be at least 1, found `0`",
            "experiments/scales/s.yaml:12:19: unknown value `ddmp` for `sample.sampler.kind`; allowed: ddpm, ddim, pndm; did you mean `ddpm`?",
            "experiments/scales/s.yaml:16:3: missing key `subsets` in `evaluation`",
            "--set sample.count=x: `sample.count` must be an integer, found the text `x`",
        ]
    );
}

#[test]
fn an_extended_scale_keeps_the_places_of_both_files() {
    let fixture = Fixture::new().spoil("scales/t.yaml", "iterations: 3", "iterations: 3, batch: 101, stepz: 2");
    assert_eq!(
        fixture.lines("t", &[]),
        [
            "experiments/scales/t.yaml:3:36: unknown key `stepz` in `train`; allowed: batch, horizontal_flip, iterations, learning_rate, learning_rate_multiplier"
        ]
    );
    let below = Fixture::new().spoil("scales/s.yaml", "  batch: 4", "  batch: 0").lines("t", &[]);
    assert_eq!(below, ["experiments/scales/s.yaml:7:10: `train.batch` must be at least 1, found `0`"]);
    let cycle = Fixture::new().spoil("scales/s.yaml", "title: a scale", "extends: t\ntitle: a scale").lines("t", &[]);
    assert_eq!(cycle, ["experiments/scales/s.yaml:1:10: `t` extends itself"]);
    let unknown = Fixture::new().spoil("scales/t.yaml", "extends: s", "extends: r").lines("t", &[]);
    assert_eq!(
        unknown,
        ["experiments/scales/t.yaml:1:10: there is no `r` in experiments/scales; allowed: s, t; did you mean `s`?"]
    );
    let table = Fixture::new().load("t", &[]).unwrap().tables.remove(0);
    assert_eq!((table.scale.train.iterations, table.scale.train.batch), (3, 4));
}

#[test]
fn unknown_names_have_suggestions() {
    let workspace = Workspace::open(Fixture::new().0.keep()).unwrap();
    let message = |name: &str, scale: &str| {
        let request = Request { scale: scale.into(), ..Request::default() };
        workspace.load(name, &request).unwrap_err().to_string()
    };
    assert_eq!(
        message("minni", "s"),
        "minni: there is no `minni` in experiments; allowed: mini, cnn, net; did you mean `mini`?"
    );
    assert_eq!(
        message("mini", "x"),
        "--scale x: there is no `x` in experiments/scales; allowed: s, t; did you mean `s`?"
    );
    fs::remove_dir_all(workspace.root()).unwrap();
    let message = Workspace::open("/nowhere").err().unwrap().to_string();
    assert_eq!(
        message,
        "/nowhere: has no folder `experiments`; run this inside the repository or name it with `--root`"
    );
}

#[test]
fn missing_data_and_weights_are_all_listed_with_where_they_belong() {
    let fixture = Fixture::new()
        .spoil(
            "scales/s.yaml",
            "data: {kind: faces, image_size: 8, first: 0, count: 100}",
            "data: {kind: image_folder, folder: photos, image_size: 8}",
        )
        .spoil("scales/s.yaml", "{recipe: net}", "{recipe: net, weights: {file: net.safetensors, sha256: null}}");
    let error = fixture.load("s", &[]).unwrap_err();
    let Error::Missing(missing) = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 2);
    let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
    let at = |name: &str| fixture.0.path().join(name).display().to_string();
    assert_eq!(
        lines,
        [
            format!(
                "experiments/scales/s.yaml:3:41: `net.safetensors` is missing; put it at one of: {} (or set DMP_DATA)",
                at("net.safetensors")
            ),
            format!(
                "experiments/scales/s.yaml:2:36: `photos` is missing; put it at one of: {} (or set DMP_DATA)",
                at("photos")
            ),
        ]
    );
    fs::create_dir(fixture.0.path().join("photos")).unwrap();
    fs::write(fixture.0.path().join("photos/1.png"), "not looked into here").unwrap();
    fs::write(fixture.0.path().join("net.safetensors"), "weights").unwrap();
    fixture.load("s", &[]).unwrap();
}

#[test]
fn shipped_weights_with_a_wrong_hash_are_refused() {
    let pin = |content: &[u8]| {
        let weights = format!("{{recipe: net, weights: {{file: net.safetensors, sha256: {}}}}}", Digest::of(content));
        let fixture = Fixture::new().spoil("scales/s.yaml", "{recipe: net}", &weights);
        fs::write(fixture.0.path().join("net.safetensors"), "tampered").unwrap();
        fixture
    };
    let error = pin(b"genuine").load("s", &[]).unwrap_err();
    assert!(matches!(error, Error::Missing(_)));
    let expected = "experiments/scales/s.yaml:3:41: `net.safetensors` is not the file that is pinned here";
    assert!(error.to_string().starts_with(expected), "{error}");
    pin(b"tampered").load("s", &[]).unwrap();
}

#[test]
fn the_hand_written_engine_stays_on_the_processor() {
    let lines = Fixture::new().lines("s", &["numerics.engine=fast", "numerics.device=cuda"]);
    let message = "`numerics.engine` must be `reference` on `cuda`: `fast` runs on the processor alone";
    assert!(lines.iter().any(|line| line.ends_with(message)), "{lines:#?}");
    Fixture::new().load("s", &["numerics.device=cuda"]).unwrap_or_else(|error| panic!("{error}"));
}

/// Prompts that are added are one per token by construction: there is no key for another number.
#[test]
fn the_number_of_added_prompts_cannot_be_another_than_that_of_the_tokens() {
    for key in ["per_256_tokens", "count", "prompts"] {
        let line = option(&format!("method.prompts.position={{kind: add, {key}: 17}}"));
        assert!(
            line.contains(&format!("unknown key `{key}`")) && line.contains("one prompt per image token"),
            "{line}"
        );
    }
    let table = Fixture::new().load("s", &[]).unwrap().tables.remove(0);
    let mut added = 0;
    for cell in &table.cells {
        if let Method::Dmp(Dmp { prompts: Prompts { position: position @ Position::Add(_), .. }, .. }) = &cell.method {
            assert_eq!(position.prompts(table.dit.tokens()), 16, "8 x 8 pixels in patches of 2 x 2");
            added += 1;
        }
    }
    assert!(added > 0);
}

#[test]
fn published_files_lie_below_the_data_and_are_fetched_over_http() {
    let file = |file: &str, url: &str| {
        format!(
            "data:\n  v1.5:\n    title: t\n    licence: l\n    files:\n      - file: {file}\n        url: {url}\n        \
             content: null\nweights: {{}}\n"
        )
    };
    let read = |text: &str| {
        let fixture = Fixture::new();
        fs::write(fixture.path("published.yaml"), text).unwrap();
        Workspace::open(fixture.0.path()).unwrap().published().map_err(|error| error.to_string())
    };
    assert_eq!(read(&file("a/b.gz", "http://x/b.gz")).unwrap().data["v1.5"].files[0].file, "a/b.gz");
    for outside in ["../b.gz", "/etc/b.gz", "a/../../b.gz", "''"] {
        let message = read(&file(outside, "http://x/b.gz")).unwrap_err();
        assert!(message.starts_with("experiments/published.yaml:6:15: `file` must be a path below"), "{message}");
    }
    let message = read(&file("b.gz", "file:///etc/passwd")).unwrap_err();
    assert!(message.starts_with("experiments/published.yaml:7:14: `url` must begin with"), "{message}");
    let message = read(&file("b.gz", "http://x/b.gz").replace("null", "{bytes: 0, sha256: abc}")).unwrap_err();
    assert!(message.contains("bytes") && message.contains("SHA-256"), "{message}");
    let none = Workspace::open(Fixture::new().0.path()).unwrap().published().unwrap();
    assert!(none.data.is_empty() && none.weights.is_empty());
}
