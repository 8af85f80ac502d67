//! Mistakes on the command line: options and names.

use std::fs;

use manifest::{Request, Workspace};

use crate::fixture::{Fixture, option};

#[test]
fn mistakes_on_the_command_line_name_the_option() {
    let cases = [
        ("train.iterations", "--set train.iterations: write `path=value`, e.g. `train.iterations=50`"),
        ("train..x=1", "--set train..x=1: `train..x` is not a path: keys joined by dots, e.g. `train.iterations`"),
        ("train.iterations=0", "--set train.iterations=0: `train.iterations` must be at least 1, found `0`"),
        (
            "train.iteration=5",
            "--set train.iteration=5: unknown key `iteration` in `train`; allowed: batch, horizontal_flip, iterations, learning_rate, learning_rate_multiplier, micro_batch; did you mean `iterations`?",
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
        message("experiments/minni.yaml", "s"),
        "experiments/minni.yaml: there is no such file; allowed: mini, cnn, net"
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
