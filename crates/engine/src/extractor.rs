//! The stage `train_extractor`: a small CNN learns factors or labels.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Tensor};
use data::{Images, Order};
use manifest::extractor::{ExtractorConfig, Target};
use manifest::scale::Optimisation;
use manifest::stage;
use models::extractor::Extractor;
use models::weights::{self, Weights};
use rayon::prelude::*;

use crate::artifact;
use crate::images::Reader;
use crate::job::{EngineError, Finished, Job};
use crate::losses::Losses;
use crate::trainables::Layout;
use crate::training::{Objective, Trained, train};

/// Images between two looks at the clock.
pub(crate) const BATCH: usize = 320;

/// Images that go through the network together.
pub(crate) const PART: usize = 16;

/// What the head should say.
enum Answers {
    /// Factors `[n, F]`: mean squared error.
    Factors(Vec<f32>, usize),
    /// Labels `[n]`: cross entropy.
    Labels(Vec<u32>, usize),
}

impl Answers {
    fn of(images: &Images, target: Target) -> Result<Self> {
        match target {
            Target::Factors => {
                let factors = images.factors.clone().context("these images have no known factors to learn")?;
                let count = factors.len() / images.len();
                Ok(Self::Factors(factors, count))
            }
            Target::Labels => {
                let labels = images.labels.clone().context("these images have no labels to learn")?;
                let count = labels.iter().max().map_or(0, |&last| last as usize + 1);
                Ok(Self::Labels(labels, count))
            }
        }
    }

    /// Those of images that the network has not seen, to be judged by its outputs.
    ///
    /// # Errors
    /// One of them has a label above all that were seen: the network has no output for it.
    fn of_unseen(&self, images: &Images) -> Result<Self> {
        match self {
            Self::Factors(..) => Self::of(images, Target::Factors),
            Self::Labels(_, count) => match Self::of(images, Target::Labels)? {
                Self::Labels(labels, wanted) if wanted <= *count => Ok(Self::Labels(labels, *count)),
                other => anyhow::bail!(
                    "a held-out image has label {}, but those of the training images end at {}; raise `data.count`, or \
                     change `held_out`, so that every label is learned",
                    other.outputs() - 1,
                    count - 1
                ),
            },
        }
    }

    fn outputs(&self) -> usize {
        match self {
            Self::Factors(_, count) | Self::Labels(_, count) => *count,
        }
    }

    /// Mean loss of `answers` `[B, outputs]` for the images `indices`.
    fn loss(&self, answers: &Tensor, indices: &[usize]) -> candle_core::Result<Tensor> {
        let device = answers.device();
        match self {
            Self::Factors(all, count) => {
                let rows = indices.iter().flat_map(|&i| &all[i * count..(i + 1) * count]).copied();
                let truth = Tensor::from_iter(rows, device)?.reshape(answers.shape())?;
                (answers - truth)?.sqr()?.mean_all()
            }
            Self::Labels(all, _) => {
                let truth = Tensor::from_iter(indices.iter().map(|&i| all[i]), device)?;
                let log_p = candle_nn::ops::log_softmax(answers, D::Minus1)?;
                log_p.gather(&truth.unsqueeze(1)?, 1)?.mean_all()?.neg()
            }
        }
    }
}

/// The loss of the network on random batches of its training images.
struct ExtractorObjective<'a> {
    config: &'a ExtractorConfig,
    images: &'a Images,
    answers: Answers,
    order: Order,
    layout: &'a Layout,
    device: Device,
    batch: usize,
}

impl ExtractorObjective<'_> {
    /// Mean loss of some images, and its gradient in the layout's order.
    fn part(&self, indices: &[usize], trained: &Weights) -> Result<(f64, Vec<f32>)> {
        let tensors = weights::variables(trained, DType::F32, &self.device)?;
        let network = Extractor::new(self.config, self.answers.outputs(), &tensors)?;
        let features = network.features(&pixels(self.images, indices, &self.device)?)?;
        let loss = self.answers.loss(&network.head(&features)?, indices)?;
        let gradients = weights::from_tensors(&weights::gradients(&loss, &tensors)?)?;
        Ok((f64::from(loss.to_scalar::<f32>()?), self.layout.flatten(&gradients)?))
    }
}

impl Objective for ExtractorObjective<'_> {
    fn gradient(&mut self, iteration: usize, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        let indices: Vec<usize> =
            (0..self.batch).map(|place| self.order.index(iteration as u64, place, self.batch)).collect();
        let trained = self.layout.unflatten(values);
        // candle works on one thread here; parts of a fixed size, added up in order, use the others.
        let parts: Vec<(f64, Vec<f32>)> =
            indices.par_chunks(PART).map(|part| self.part(part, &trained)).collect::<Result<_>>()?;
        gradient.fill(0.0);
        let mut total = 0.0;
        for (part, (loss, ours)) in indices.chunks(PART).zip(parts) {
            let share = part.len() as f64 / indices.len() as f64;
            total += share * loss;
            gradient.iter_mut().zip(ours).for_each(|(sum, ours)| *sum += share as f32 * ours);
        }
        Ok(Losses { mse: total, total, ..Losses::default() })
    }
}

/// Trains the extractor and judges it on images it has not seen: `r2.<factor>` or `accuracy`.
///
/// # Errors
/// Those of the data and of training.
pub fn train_extractor(job: &Job, stage: &stage::TrainExtractor) -> Result<Finished, EngineError> {
    let images = Reader::open(job, &stage.data)?.load()?;
    let device = job.tensor_device()?;
    let held_out = images.len().checked_sub(stage.held_out).filter(|&n| n > 0 && stage.held_out > 0);
    let split = held_out.with_context(|| format!("{} images cannot hold {} out", images.len(), stage.held_out))?;
    let (seen, unseen) = (images.slice(0..split), images.slice(split..images.len()));
    let answers = Answers::of(&seen, stage.extractor.target)?;
    let (outputs, unseen_answers) = (answers.outputs(), answers.of_unseen(&unseen)?);

    let initial = models::extractor::initial_weights(&stage.extractor, outputs, stage.seed);
    let layout = Layout::new(initial.iter().map(|(name, t)| (name.clone(), t.shape.clone(), 1.0)));
    let Optimisation { batch, .. } = stage.optimisation;
    let order = Order::new(seen.len(), stage.seed);
    let mut objective = ExtractorObjective {
        config: &stage.extractor,
        images: &seen,
        answers,
        order,
        layout: &layout,
        device: device.clone(),
        batch,
    };
    let start = layout.flatten(&initial)?;
    let (values, curve) = match train(job, &layout, start, &stage.optimisation, 0.0, &mut objective)? {
        Trained::Completed(state) => (state.values, state.curve),
        Trained::Diverged(iteration, curve) => return Ok(Finished::diverged(iteration, curve)),
    };
    let trained = layout.unflatten(&values);
    weights::write(&job.directory.join(artifact::WEIGHTS), &trained).map_err(anyhow::Error::from)?;
    let network = network(&stage.extractor, &trained, &device)?;
    let metrics = judge(&network, &unseen, &unseen_answers, &device)?;
    Ok(Finished { metrics, curve, ..Finished::completed(artifact::WEIGHTS) })
}

/// How well the head answers for unseen images: `r2.<factor>` (1 - residual / total sum of squares) and `r2.least`, or `accuracy`.
fn judge(network: &Extractor, images: &Images, answers: &Answers, device: &Device) -> Result<BTreeMap<String, f64>> {
    let outputs = answers.outputs();
    let mut said: Vec<f32> = Vec::with_capacity(images.len() * outputs);
    let all: Vec<usize> = (0..images.len()).collect();
    for indices in all.chunks(BATCH) {
        let features = network.features(&pixels(images, indices, device)?)?;
        said.extend(network.head(&features)?.flatten_all()?.to_vec1::<f32>()?);
    }
    let rows = said.chunks_exact(outputs);
    match answers {
        Answers::Factors(truth, count) => {
            let r2 = |f: usize| {
                let column = || truth.iter().skip(f).step_by(*count).map(|&v| f64::from(v));
                let mean = column().sum::<f64>() / images.len() as f64;
                let spread: f64 = column().map(|v| (v - mean).powi(2)).sum();
                let residual: f64 = rows.clone().zip(column()).map(|(row, v)| (f64::from(row[f]) - v).powi(2)).sum();
                1.0 - residual / spread
            };
            let named = data::faces::FACTORS.iter().enumerate();
            let mut metrics: BTreeMap<_, _> = named.map(|(f, name)| (format!("r2.{name}"), r2(f))).collect();
            let least = metrics.values().copied().fold(f64::INFINITY, f64::min);
            metrics.insert("r2.least".to_owned(), least);
            Ok(metrics)
        }
        Answers::Labels(truth, _) => {
            let best = |row: &[f32]| (0..outputs).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let right = rows.zip(truth).filter(|(row, label)| best(row) == Some(**label as usize)).count();
            Ok(BTreeMap::from([("accuracy".to_owned(), right as f64 / images.len() as f64)]))
        }
    }
}

/// The network of trained weights; the head's width is the weights'.
pub(crate) fn network(config: &ExtractorConfig, trained: &Weights, device: &Device) -> Result<Extractor> {
    let outputs = trained.get("head.bias").context("the extractor's weights have no head.bias")?.values.len();
    let tensors = weights::constants(trained, DType::F32, device)?;
    Extractor::new(config, outputs, &tensors).context("the weights do not fit the extractor of this scale")
}

/// Images `[B, C, side, side]` in [-1, 1].
pub(crate) fn pixels(images: &Images, indices: &[usize], device: &Device) -> Result<Tensor> {
    let elements = images.elements();
    let mut x = vec![0.0; indices.len() * elements];
    for (&i, out) in indices.iter().zip(x.chunks_exact_mut(elements)) {
        images.normalised(i, false, out);
    }
    Ok(Tensor::from_vec(x, (indices.len(), images.channels, images.side, images.side), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One image of 4 x 4 per label, all of the label's brightness.
    fn images(labels: &[u32]) -> Images {
        let pixels = labels.iter().flat_map(|&label| [60 * label as u8; 16]).collect();
        Images { labels: Some(labels.to_vec()), ..Images::new(1, 4, pixels) }
    }

    /// Rows are as wide as the network's head, also where the unseen images lack the last labels.
    #[test]
    fn labels_that_are_not_among_the_unseen_leave_the_accuracy_right() {
        let config = ExtractorConfig {
            name: "small".to_owned(),
            image_size: 4,
            channels: 1,
            widths: vec![2],
            target: Target::Labels,
        };
        let seen = Answers::of(&images(&[0, 3, 2, 1]), Target::Labels).unwrap();
        assert_eq!(seen.outputs(), 4);
        let mut trained = models::extractor::initial_weights(&config, seen.outputs(), 1);
        // The head says 1 whatever it sees.
        trained.get_mut("head.weight").unwrap().values.fill(0.0);
        trained.get_mut("head.bias").unwrap().values.copy_from_slice(&[0.0, 1.0, 0.0, 0.0]);
        let device = Device::Cpu;
        let network = network(&config, &trained, &device).unwrap();
        let unseen = images(&[1, 0, 1, 1]);
        let answers = seen.of_unseen(&unseen).unwrap();
        assert_eq!(judge(&network, &unseen, &answers, &device).unwrap()["accuracy"], 0.75);
    }

    #[test]
    fn a_label_beyond_those_that_were_learned_is_refused() {
        let seen = Answers::of(&images(&[0, 2]), Target::Labels).unwrap();
        let error = seen.of_unseen(&images(&[1, 3])).err().unwrap().to_string();
        assert!(error.contains("label 3") && error.contains("end at 2"), "{error}");
        assert!(seen.of_unseen(&images(&[1])).is_ok(), "a gap has an output");
    }
}
