//! Extractors, sample counts, references, seeds and numerics are never mixed in one table.

use std::collections::BTreeMap;

use manifest::plan::Plan;
use manifest::scale::Optimisation;
use manifest::stage::{FeatureKind, Stage};
use serde::Serialize;
use store::{Record, Tree};

use crate::error::Error;
use crate::observed::{Cell, State, name, record};

/// Checks the records behind every measured run against each other.
///
/// # Errors
/// [`Error::Mixed`] names the first two records that must not stand beside each other.
pub(crate) fn check(plan: &Plan, cells: &[Cell], tree: &Tree) -> Result<(), Error> {
    let mut seen: BTreeMap<String, (String, String)> = BTreeMap::new();
    let measured = cells.iter().flat_map(|cell| &cell.runs).filter(|run| matches!(run.state, State::Measured(_)));
    for run in measured {
        let keys = run.keys;
        // Causes before their consequences: another device gives another reference, too.
        let chain = [
            keys.trained.map(|key| (key, "train")),
            Some((keys.sample, "sample")),
            Some((keys.features, "features")),
            Some((keys.metrics, "metrics")),
        ];
        let measures = keys.measures.iter().filter_map(|key| Some((*key, plan.stage(*key)?.stage.kind())));
        for (key, kind) in chain.into_iter().flatten().chain(measures) {
            // Intermediate results may have been cleared away; then the next ones vouch for them by their inputs' keys.
            let Some(record) = record(tree, key, kind)? else { continue };
            for (what, value) in facts(&record, keys.seed)? {
                match seen.get(&what) {
                    None => _ = seen.insert(what, (name(key, kind), value)),
                    Some((first, first_value)) if *first_value != value => {
                        let (first, first_value) = (first.clone(), first_value.clone());
                        return Err(Error::Mixed {
                            what,
                            first,
                            first_value,
                            second: name(key, kind),
                            second_value: value,
                        });
                    }
                    Some(_) => {}
                }
            }
        }
    }
    Ok(())
}

/// What records of one table must have in common, by name.
fn facts(record: &Record, training_seed: u64) -> Result<Vec<(String, String)>, Error> {
    let stage = stage(record)?;
    let input = |role: &str| record.inputs.get(role).map_or("none".to_owned(), json);
    let mut facts = vec![("the version of ".to_owned() + &record.kind, record.version.clone())];
    let mut add = |what: &str, value: String| facts.push((what.to_owned(), value));
    match &stage {
        Stage::Metrics(metrics) => {
            let name = &metrics.name;
            // A second distance, of other features, has its own name and reference.
            let of = if metrics.of == FeatureKind::Pooled { String::new() } else { format!(" of {name}") };
            add(&format!("the metric{of}"), name.clone());
            add(&format!("the subsets{of}"), format!("{} from seed {}", metrics.subsets, metrics.seed));
            add(&format!("the reference{of}"), input("reference"));
        }
        Stage::Extrapolation(_) | Stage::Coverage(_) | Stage::InceptionScore(_) | Stage::Similarity(_) => {
            add(&format!("the settings of {}", record.kind), json(&stage));
            add(&format!("the reference of {}", record.kind), input("reference"));
        }
        Stage::Features(features) => {
            add("the numerics of features", json(&features.numerics));
            add("the extractor", format!("{} {}", json(&features.extractor), input("extractor")));
        }
        Stage::Sample(sample) => {
            add("the numerics of sampling", json(&sample.numerics));
            add("the number of samples", sample.count.to_string());
            add("the sampler", json(&sample.sampler));
            add("the diffusion process", json(&sample.diffusion));
            add("the network", json(&sample.denoiser));
            add("what the network sees", json(&sample.latents));
            if sample.denoiser.text_width().is_some() {
                add("the captions", input("embeddings"));
            }
            // From scratch there is none, which is what Table 6 compares.
            if !sample.method.from_scratch() {
                add("the backbone", input("backbone"));
            }
            add(&format!("the sampling seed beside training seed {training_seed}"), sample.seed.to_string());
        }
        Stage::Train(train) => {
            add("the numerics of training", json(&train.numerics));
            // How long it is trained is what a series is about; its curve shows it.
            add("the training settings", json(&Optimisation { iterations: 0, ..train.optimisation.clone() }));
            add("the training images", json(&train.data));
        }
        Stage::Embeddings(_)
        | Stage::Pretrain(_)
        | Stage::TrainExtractor(_)
        | Stage::Encode(_)
        | Stage::Import(_)
        | Stage::Decode(_)
        | Stage::Statistics(_)
        | Stage::Activation(_) => {}
    }
    Ok(facts)
}

/// The stage that a record is of.
pub(crate) fn stage(record: &Record) -> Result<Stage, Error> {
    serde_json::from_value(record.params.clone())
        .map_err(|error| Error::Lacks { record: name(record.key, &record.kind), what: format!("parameters ({error})") })
}

/// Compact JSON.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("parameters have a JSON form")
}
