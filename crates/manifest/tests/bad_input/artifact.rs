//! Mistakes in a manifest, and in the claims and presets that it names.

use std::fs;

use manifest::method::{Dmp, Method, Position, Prompts};

use crate::fixture::{Fixture, option};

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

/// Any file stands for weights, which no plan reads.
#[test]
fn what_was_trained_elsewhere_takes_the_place_of_a_training() {
    let trained = "{file: experiments/net.yaml, sha256: ~}";
    let cells = format!("soft: {{}}\n      theirs: {{trained: {trained}}}\n      again: {{trained: {trained}}}");
    let fixture = Fixture::new().spoil("mini.yaml", "soft: {}", &cells);
    let plan = fixture.load("s", &[]).unwrap_or_else(|error| panic!("{error}"));
    let table = &plan.tables[0];
    let [soft, theirs, again] = ["b/soft", "b/theirs", "b/again"].map(|id| table.cell(id).unwrap());
    let import = plan.stage(theirs.runs[0].trained.unwrap()).unwrap();
    assert_eq!(
        (import.stage.kind(), import.inputs.keys().map(String::as_str).collect::<Vec<_>>()),
        ("import", vec!["backbone", "trained"])
    );
    assert_eq!(theirs.trained.as_ref(), import.inputs.get("trained"));
    assert_eq!((theirs.method.clone(), theirs.same_run_as.clone()), (soft.method.clone(), None));
    assert_eq!(again.same_run_as.as_deref(), Some("b/theirs"));
    assert_eq!(again.identical_by_construction, None);
    assert!(theirs.runs[0].activation.is_some());
    // What is trained here stands for the method, unless nothing is.
    assert_eq!(table.default_cell.as_deref(), Some("b/soft"));
    let from_file = || Fixture::new().spoil("mini.yaml", "soft: {}", &format!("soft: {{trained: {trained}}}"));
    assert_eq!(from_file().load("s", &[]).unwrap().tables[0].default_cell.as_deref(), Some("b/soft"));
    let fixture = from_file().spoil(
        "mini.yaml",
        "      hard: {claim: m.hard, set: {method.gate.selection: {kind: top_k, keep: 0.75}}}\n",
        "",
    );
    let plan = fixture.load("s", &[]).unwrap_or_else(|error| panic!("{error}"));
    let table = &plan.tables[0];
    assert_eq!(table.default_cell.as_deref(), Some("b/soft"));
    let control = &table.positive_control.as_ref().unwrap().runs[0];
    assert_eq!(control.trained, table.cell("b/soft").unwrap().runs[0].trained);
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
            "soft: {trained: {file: net.yaml, sha256: ~}, share: «0.5}",
            "@: `share` is of a training, and what `trained` names has none here",
        ),
        (
            "{kind: pretrained}}",
            "{kind: pretrained}, trained: «{file: net.yaml, sha256: ~}}",
            "@: `trained` has nothing to hold: the method `pretrained` trains nothing",
        ),
        (
            "soft: {}",
            "soft: {further_claims: [«m.hart]}",
            "@: unknown claim `m.hart`; allowed: m.baseline, m.hard; did you mean `m.hard`?",
        ),
        (
            "soft: {}",
            "soft: {classes: [1, «1000]}",
            "@: `groups.b.cells.soft.classes[1]` must be at most 999, found `1000`",
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
            assert_eq!(position.prompts(table.denoiser.tokens()), 16, "8 x 8 pixels in patches of 2 x 2");
            added += 1;
        }
    }
    assert!(added > 0);
}
