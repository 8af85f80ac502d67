//! Mistakes in a scale, alone and over another.

use crate::fixture::Fixture;

#[test]
fn mistakes_in_a_scale() {
    let cases = [
        (
            "  iterations: 10",
            "  «iteration: 10",
            "@: unknown key `iteration` in `train`; allowed: batch, horizontal_flip, iterations, learning_rate, learning_rate_multiplier, micro_batch; did you mean `iterations`?\n\
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
            "  floor: {kind: faces, image_size: 8,",
            "  coverage: {kind: faces, image_size: «9, first: 0, count: 4}\n  floor: {kind: faces, image_size: 8,",
            "@: `evaluation.coverage.image_size` must be 8, the side of the samples, found `9`",
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
            "{kind: faces, image_size: 8, first: 200, count: 64}",
            "{kind: «statistic, file: a.npz, sha256: ~}",
            "@: unknown value `statistic` for `evaluation.reference.kind`; allowed: faces, idx, image_folder, class_folders, captions, web_dataset, npz, statistics; did you mean `statistics`?",
        ),
        (
            "{kind: faces, image_size: 8, first: 200, count: 64}",
            "{kind: statistics, «folder: a.npz, file: a.npz, sha256: ~}",
            "@: unknown key `folder` in `evaluation.reference`; `kind: statistics` is: Mean and covariance of features in an .npz: `mu` and `sigma`, as pytorch-fid and ADM publish them; allowed: file, kind, sha256",
        ),
        (
            "{kind: faces, image_size: 8, first: 200, count: 64}",
            "{kind: npz, archive: a.npz, image_size: «9}",
            "@: `evaluation.reference.image_size` must be 8, the side of the samples, found `9`",
        ),
        (
            "data: {kind: faces, image_size: 8, first: 0, count: 100}",
            "data: {kind: «statistics, file: a.npz, sha256: ~}",
            "@: unknown value `statistics` for `data.kind`; allowed: faces, idx, image_folder, class_folders, captions, web_dataset, npz",
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
            "experiments/scales/t.yaml:3:36: unknown key `stepz` in `train`; allowed: batch, horizontal_flip, iterations, learning_rate, learning_rate_multiplier, micro_batch"
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
fn half_the_bits_are_for_the_fast_engine_on_a_gpu() {
    let message = "`numerics.dtype` must be `f32`: only the engine `fast` on `cuda` has `bf16`";
    for [engine, device] in [["fast", "cpu"], ["reference", "cuda"]] {
        let [engine, device] = [format!("numerics.engine={engine}"), format!("numerics.device={device}")];
        let lines = Fixture::new().lines("s", &[&engine, &device, "numerics.dtype=bf16"]);
        assert!(lines.iter().any(|line| line.ends_with(message)), "{lines:#?}");
    }
    let fast = ["numerics.engine=fast", "numerics.device=cuda", "numerics.dtype=bf16"];
    Fixture::new().load("s", &fast).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn parts_divide_the_batch_and_are_for_a_gpu() {
    let of = |part: &'static str| [part, "numerics.engine=fast", "numerics.device=cuda"];
    let lines = Fixture::new().lines("s", &of("train.micro_batch=3"));
    assert!(lines.iter().any(|line| line.ends_with("`train.micro_batch` must divide the batch of 4")), "{lines:#?}");
    let lines = Fixture::new().lines("s", &["train.micro_batch=2"]);
    let message = "`train.micro_batch` is for the engine `fast` on `cuda` alone: leave it out";
    assert!(lines.iter().any(|line| line.ends_with(message)), "{lines:#?}");
    Fixture::new().load("s", &of("train.micro_batch=2")).unwrap_or_else(|error| panic!("{error}"));
}
