//! More samples than are drawn at once.

use std::collections::BTreeMap;

use engine::artifact;
use manifest::method::Method;
use manifest::plan::PlannedStage;
use manifest::stage::{Sample, Stage};

use crate::run;

fn frozen(planned: &PlannedStage) -> Option<&Sample> {
    match &planned.stage {
        Stage::Sample(sample) if matches!(sample.method, Method::Pretrained(_)) => Some(sample),
        _ => None,
    }
}

/// The images neither depend on the batches that they are drawn in nor on a stop between these.
#[test]
fn batches_leave_no_trace() {
    let stages = run::table4(&["sample.sampler.steps=2"]);
    let (sample, inputs) = stages.iter().find_map(|stage| Some((frozen(stage)?, &stage.inputs))).unwrap();
    let of = |count: usize| Stage::Sample(Sample { count, ..sample.clone() });
    let draw = |stage: &Stage, threads: usize, folder: &std::path::Path| {
        run::execute(stage, inputs, &BTreeMap::new(), threads, folder).unwrap();
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "nothing but the samples");
        artifact::read_images(&folder.join(artifact::SAMPLES)).unwrap().pixels
    };
    let [whole, stopped, fewer] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let all = draw(&of(130), 2, whole.path());

    run::stop_at_first_progress(&of(130), inputs, stopped.path());
    assert_eq!(std::fs::read_dir(stopped.path()).unwrap().count(), 1, "the first batch is kept");
    assert!(draw(&of(130), 1, stopped.path()) == all, "gone on with");

    let first = draw(&of(30), 2, fewer.path());
    assert!(all.starts_with(&first) && first.len() * 130 == all.len() * 30, "fewer samples are the first ones");
}
