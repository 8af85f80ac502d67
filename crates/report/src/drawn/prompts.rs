//! Figures of the default cell's prompts: when the gate uses them, how strongly they act where.

use std::path::PathBuf;

use manifest::digest::Key;
use manifest::plan::{CellRun, PlannedCell};
use safetensors::Dtype;
use store::StoreError;

use super::{Drawn, Sources, failed, first};
use crate::artifact::{odd, open, read, tensor};
use crate::error::Error;
use crate::figures::{activation, bias};
use crate::gate;

/// Trained tensors.
const WEIGHTS: &str = "weights.safetensors";

/// What a cell's figure is of.
fn trained(cell: &PlannedCell, seed: u64) -> String {
    match cell.trained {
        Some(_) => format!("{}, trained elsewhere", cell.id),
        None => format!("{}, training seed {seed}", cell.id),
    }
}

impl Sources<'_, '_> {
    pub(super) fn activation(&self) -> Result<Option<Drawn>, Error> {
        let Some(cell) = self.default_cell() else { return Ok(None) };
        let recorded = |run: &CellRun| Ok(run.activation.zip(Some(run.seed)).filter(|(key, _)| self.has(*key)));
        let Some((key, seed)) = first(&cell.runs, recorded)? else { return Ok(None) };
        let gate::Weights { timesteps, blocks, prompts, values: weights } = gate::read(self.store, key)?;
        let steps = timesteps.len();
        let title = trained(cell, seed);
        let figure =
            activation::Activation { title: &title, timesteps: &timesteps, blocks, prompts, weights: &weights };
        let text = activation::draw(&figure).map_err(failed("activation"))?;
        let caption = format!(
            "The gate's weight of every prompt at {steps} timesteps. The paper finds many prompts active at high t and few at \
             low t. The colours span the weights that occur, however close they are: read the bar."
        );
        Ok(Some(Drawn::svg("activation", "Prompt activation (the paper's Figure 5)", &caption, text)))
    }

    /// How strongly the default cell's prompts act over timesteps and patches: the gate's weight times the prompt's length,
    /// since weights alone sum to 1 at every timestep.
    pub(super) fn bias(&self) -> Result<Option<Drawn>, Error> {
        let Some(cell) = self.default_cell() else { return Ok(None) };
        let recorded = |run: &CellRun| {
            let keys = run
                .activation
                .zip(run.trained)
                .filter(|(activation, train)| self.has(*activation) && self.weights(*train).is_ok());
            Ok(keys.map(|keys| (keys, run.seed)))
        };
        let Some(((activation, train), seed)) = first(&cell.runs, recorded)? else { return Ok(None) };
        let gate::Weights { timesteps, blocks, prompts, values } = gate::read(self.store, activation)?;
        let side = prompts.isqrt();
        // Only prompts that are added lie at a place of the image; a UNet's blocks have places of their own.
        if self.table.denoiser.dit().is_none_or(|dit| side * side != dit.tokens()) {
            return Ok(None);
        }
        let path = self.weights(train)?;
        let bytes = read(&path)?;
        let (shape, data) = tensor(&open(&bytes, &path)?, &path, "prompt_embeddings", Dtype::F32)?;
        let &[prompted, count, width] = shape.as_slice() else {
            return Err(odd(&path, "`prompt_embeddings` has not three axes"));
        };
        if (prompted, count) != (blocks, prompts) || width == 0 {
            return Err(odd(&path, "`prompt_embeddings` do not fit the gate's weights"));
        }
        let data: Vec<f32> = data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let length = |prompt: &[f32]| prompt.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let lengths: Vec<f64> = data.chunks_exact(width).map(length).collect();
        let strengths = |block: usize| -> Vec<f32> {
            let rows = values.chunks_exact(blocks * prompts).map(|row| &row[block * prompts..(block + 1) * prompts]);
            let own = &lengths[block * prompts..(block + 1) * prompts];
            rows.flat_map(|row| row.iter().zip(own).map(|(w, l)| (f64::from(*w) * l) as f32)).collect()
        };
        let of = |block: usize| {
            let bias = metrics::StructuralBias::of(&strengths(block), prompts);
            bias.map(|bias| (bias.temporal, bias.spatial)).map_err(|error| odd(&path, &error.to_string()))
        };
        let blocks = (0..blocks).map(of).collect::<Result<Vec<_>, Error>>()?;
        let title = trained(cell, seed);
        let figure = bias::Bias { title: &title, timesteps: &timesteps, side, blocks: &blocks };
        let text = bias::draw(&figure).map_err(failed("bias"))?;
        let caption = "Above: over the timesteps, averaged over patches. Below: over the patches as they lie in the image, averaged over \
                       timesteps; brighter is stronger, all blocks share one scale. The gate's weights alone sum to 1 at every timestep, so \
                       each is multiplied with the length of its prompt: that is what is added to a patch.";
        Ok(Some(Drawn::svg("bias", "Structural bias of prompts (the paper's Figure 7)", caption, text)))
    }

    /// The file of what a stage has trained, or taken from a file.
    fn weights(&self, key: Key) -> Result<PathBuf, StoreError> {
        let planned = self.plan.stage(key).expect("a plan has the stages of its cells");
        self.store.open_artifact(key, planned.stage.kind(), WEIGHTS)
    }
}
