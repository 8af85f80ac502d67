//! How far from uniform the gates are: what acts through a uniform gate alone acts on nothing.

use std::collections::{BTreeMap, BTreeSet};

use manifest::digest::Key;
use manifest::method::{Dmp, Method};
use manifest::plan::{Plan, PlannedCell, Table};
use safetensors::Dtype;
use store::Store;

use crate::artifact::{self, odd, open, tensor};
use crate::error::Error;
use crate::markdown::code;
use crate::observed::record;

/// A gate that stays closer to uniform than this share of `1/N` is called almost uniform.
const ALMOST_UNIFORM: f64 = 0.05;

/// A gate's weights over the timesteps.
pub(crate) struct Weights {
    /// The timesteps, ascending.
    pub(crate) timesteps: Vec<i64>,
    /// Number of prompted blocks `L'`.
    pub(crate) blocks: usize,
    /// Number of prompts `N`.
    pub(crate) prompts: usize,
    /// `[timesteps, L', N]`.
    pub(crate) values: Vec<f32>,
}

impl Weights {
    /// How many more prompts are used in the quarter of highest timesteps than in that of the lowest, as a share of all:
    /// `exp(entropy) / N`, averaged over blocks and timesteps.
    pub(crate) fn gain(&self) -> f64 {
        let row = self.blocks * self.prompts;
        let quarter = self.timesteps.len().div_ceil(4);
        let breadth = |weights: &[f32]| {
            let entropy: f64 = weights.iter().map(|&w| f64::from(w)).filter(|w| *w > 0.0).map(|w| -w * w.ln()).sum();
            entropy.exp() / self.prompts as f64
        };
        let mean = |values: &[f32]| {
            values.chunks_exact(self.prompts).map(breadth).sum::<f64>() / (values.len() / self.prompts) as f64
        };
        mean(&self.values[self.values.len() - quarter * row..]) - mean(&self.values[..quarter * row])
    }
}

/// Where the weights of a cell lie, over all its recorded seeds and blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reach {
    prompts: usize,
    seeds: usize,
    least: f64,
    most: f64,
    /// How far one prompt's weight moves over the timesteps, at most.
    moves: f64,
}

impl Reach {
    /// Of one seed.
    fn of(weights: &Weights) -> Self {
        let row = weights.blocks * weights.prompts;
        let over_t = (0..row).map(|place| ends(weights.values.iter().skip(place).step_by(row)));
        let moves = over_t.map(|(low, high)| high - low).fold(0.0, f64::max);
        let (least, most) = ends(weights.values.iter());
        Self { prompts: weights.prompts, seeds: 1, least, most, moves }
    }

    /// Of this and further seeds.
    fn and(self, other: Self) -> Self {
        Self {
            prompts: self.prompts,
            seeds: self.seeds + other.seeds,
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            moves: self.moves.max(other.moves),
        }
    }

    /// The largest distance of a weight from `1/N`, as a share of it.
    fn off_uniform(&self) -> f64 {
        let count = self.prompts as f64;
        (self.most * count - 1.0).max(1.0 - self.least * count)
    }
}

fn ends<'w>(weights: impl Iterator<Item = &'w f32>) -> (f64, f64) {
    let all = weights.map(|weight| f64::from(*weight));
    all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), weight| (low.min(weight), high.max(weight)))
}

/// The recorded weights of one run.
pub(crate) fn read(store: &Store, key: Key) -> Result<Weights, Error> {
    let path = store.open_artifact(key, "activation", "activation.safetensors")?;
    let bytes = artifact::read(&path)?;
    let tensors = open(&bytes, &path)?;
    let (shape, weights) = tensor(&tensors, &path, "weights", Dtype::F32)?;
    let (_, timesteps) = tensor(&tensors, &path, "timesteps", Dtype::I64)?;
    let values: Vec<f32> = weights.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let timesteps: Vec<i64> = timesteps.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let &[steps, blocks, prompts] = shape.as_slice() else {
        return Err(odd(&path, "`weights` has not three axes"));
    };
    if steps != timesteps.len() || steps * blocks * prompts == 0 {
        return Err(odd(&path, "`weights` and `timesteps` do not fit"));
    }
    Ok(Weights { timesteps, blocks, prompts, values })
}

/// Where every cell's weights lie, by cell; cells without a recorded gate are not among them.
pub(crate) struct Gates(BTreeMap<String, Reach>);

impl Gates {
    /// Reads the gates of the default cell and of those that differ from it in the gate alone.
    pub(crate) fn of(plan: &Plan, table: &Table, store: &Store) -> Result<Self, Error> {
        let mut gates = BTreeMap::new();
        for cell in table.cells.iter().filter(|cell| through_gate(table, cell)) {
            // Seeds of what was trained elsewhere share one.
            let keys: BTreeSet<Key> = cell.runs.iter().filter_map(|run| run.activation).collect();
            for key in keys.into_iter().filter(|key| plan.stage(*key).is_some()) {
                if record(store.tree(), key, "activation")?.is_none() {
                    continue;
                }
                let reach = Reach::of(&read(store, key)?);
                gates.entry(cell.id.clone()).and_modify(|known: &mut Reach| *known = known.and(reach)).or_insert(reach);
            }
        }
        Ok(Self(gates))
    }

    /// A paragraph on the default cell's gate; empty where none is recorded.
    pub(crate) fn paragraph(&self, table: &Table) -> String {
        let Some((id, reach)) = table.default_cell.as_ref().and_then(|id| Some((id, self.0.get(id)?))) else {
            return String::new();
        };
        let count = reach.prompts;
        let uniform = 1.0 / count as f64;
        let decimals = (3.0 - uniform.log10().floor()) as usize;
        let mut text = format!(
            "**Gate.** The weights of {}'s {count} prompts lie between {:.decimals$} and {:.decimals$}, where a uniform gate has \
             1/{count} = {uniform:.decimals$}: at most {} from it. Over t no weight moves by more than {} of 1/{count} ({}).",
            code(id),
            reach.least,
            reach.most,
            percent(reach.off_uniform()),
            percent(reach.moves / uniform),
            match (table.cell(id).and_then(|cell| cell.trained.as_ref()), reach.seeds) {
                (Some(_), _) => "trained elsewhere".to_owned(),
                (None, 1) => "one training seed".to_owned(),
                (None, seeds) => format!("{seeds} training seeds"),
            },
        );
        if reach.off_uniform() < ALMOST_UNIFORM {
            text.push_str(
                " So this gate is almost uniform: it hardly selects prompts, and hardly tells timesteps apart. What acts through \
                 the gate alone has little to act on here; the groups concerned say so.",
            );
        }
        text
    }

    /// What to say beside a group all of whose cells act through the gate alone, if gates stayed almost uniform.
    pub(crate) fn beside(&self, table: &Table, group: &str) -> Option<String> {
        let cells: Vec<&PlannedCell> = table.cells.iter().filter(|cell| cell.group.as_deref() == Some(group)).collect();
        let default = table.default_cell.as_ref().and_then(|id| table.cell(id))?;
        let only_gate = cells.iter().all(|cell| through_gate(table, cell));
        if !only_gate || cells.iter().all(|cell| cell.written == default.written) {
            return None;
        }
        let (mut largest, mut others) = (None, Vec::new());
        for (cell, reach) in cells.iter().filter_map(|cell| Some((cell, self.0.get(&cell.id)?))) {
            match reach.off_uniform() {
                share if share < ALMOST_UNIFORM => largest = Some(share.max(largest.unwrap_or(0.0))),
                _ => others.push(code(&cell.id)),
            }
        }
        let except = if others.is_empty() { String::new() } else { format!(", but for {}", others.join(", ")) };
        Some(format!("gate within {} of uniform{except}", percent(largest?)))
    }
}

/// Whether a cell is the default, or differs from it only in what its gate computes and how that is trained.
fn through_gate(table: &Table, cell: &PlannedCell) -> bool {
    let default = table.default_cell.as_ref().and_then(|id| table.cell(id));
    let (Some(Method::Dmp(default)), Method::Dmp(own)) = (default.map(|cell| &cell.written), &cell.written) else {
        return false;
    };
    let mut gate = own.gate.clone();
    gate.prompts_per_block = default.gate.prompts_per_block;
    gate.input = default.gate.input;
    gate.noise = default.gate.noise;
    gate.learning_rate_factor = default.gate.learning_rate_factor;
    Dmp { gate, balance: default.balance.clone(), ..own.clone() } == *default
}

/// A share with two significant digits.
fn percent(share: f64) -> String {
    let value = 100.0 * share;
    let decimals = (1.0 - value.max(1e-4).log10().floor()).clamp(0.0, 5.0) as usize;
    format!("{value:.decimals$}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_is_broad_at_high_t_gains() {
        // Four timesteps, one block, two prompts: one prompt alone at the lowest t, both at the highest.
        let values = vec![1.0, 0.0, 0.9, 0.1, 0.7, 0.3, 0.5, 0.5];
        let weights = Weights { timesteps: vec![0, 3, 6, 9], blocks: 1, prompts: 2, values };
        assert!((weights.gain() - 0.5).abs() < 1e-12, "{}", weights.gain());
    }

    #[test]
    fn a_reach_is_over_blocks_seeds_and_timesteps() {
        let weights = |values: Vec<f32>| Weights { timesteps: vec![0, 9], blocks: 2, prompts: 2, values };
        // [t][block][prompt]: the first block moves by 0.25, the second does not.
        let one = Reach::of(&weights(vec![0.5, 0.5, 0.75, 0.25, 0.75, 0.25, 0.75, 0.25]));
        assert_eq!((one.least, one.most, one.moves), (0.25, 0.75, 0.25));
        assert_eq!(one.off_uniform(), 0.5);
        let both = one.and(Reach::of(&weights(vec![0.125, 0.875, 0.5, 0.5, 0.125, 0.875, 0.5, 0.5])));
        assert_eq!((both.seeds, both.least, both.most, both.moves), (2, 0.125, 0.875, 0.25));
        assert_eq!([percent(0.0123), percent(0.5), percent(0.0)], ["1.2%", "50%", "0.00000%"]);
    }
}
