//! Embeddings and modulations of `R` rows, and the way back: `kernels`' condition, with one product for the modulations of all blocks.

use kernels::Shape;

use super::{NONE, Trunk};
use crate::arguments::{Features, Label, LabelGradient, Silu};
use crate::array::{Array, Numbers};
use crate::machine::{Error, Machine, Matrix, Precision};

/// Timesteps that the table of features has: those of training.
const TIMESTEPS: usize = 1000;

pub(super) struct Condition<M: Machine> {
    pub(super) rows: usize,
    /// `[1000, 256]`, with the CPU's bits.
    table: Array<M>,
    pub(super) timesteps: Numbers<M>,
    pub(super) labels: Numbers<M>,
    features: Array<M>,
    hidden: Array<M>,
    hidden_active: Array<M>,
    pub(super) t_emb: Array<M>,
    pub(super) c: Array<M>,
    active: Array<M>,
    /// `[R, (6 L + 2) D]`.
    pub(super) modulations: Array<M>,
}

impl<M: Machine> Condition<M> {
    pub(super) fn new(machine: &M, precision: Precision, shape: &Shape, rows: usize) -> Result<Self, Error> {
        let mut table = vec![0.0; TIMESTEPS * Shape::TIMESTEP_FEATURES];
        for (t, features) in table.chunks_exact_mut(Shape::TIMESTEP_FEATURES).enumerate() {
            kernels::timestep_features(t as f32, features);
        }
        let array = |width: usize| Array::new(machine, precision, rows * width);
        let d = shape.hidden;
        Ok(Self {
            rows,
            table: Array::from(machine, Precision::F32, &table)?,
            timesteps: Numbers::from(machine, &vec![0; rows])?,
            labels: Numbers::from(machine, &vec![0; rows])?,
            features: array(Shape::TIMESTEP_FEATURES)?,
            hidden: array(d)?,
            hidden_active: array(d)?,
            t_emb: array(d)?,
            c: array(d)?,
            active: array(d)?,
            modulations: array(shape.modulations())?,
        })
    }
}

impl<M: Machine> Trunk<'_, M> {
    /// `t_emb = W2 silu(W0 features + b0) + b2`, `c = t_emb + table[label]`, `modulations = A silu(c) + a`.
    pub(crate) fn embed(&self) -> Result<(), Error> {
        let (l, c, at, w) = (self.l, &self.condition, &self.places, &self.weights);
        let (rows, d, waves) = (c.rows, self.shape.hidden, Shape::TIMESTEP_FEATURES);
        let (count, all) = (rows as i32, self.shape.modulations());
        // SAFETY: the arrays are as large as the shape and the rows say; timesteps and labels were checked when they were set.
        unsafe {
            l.timestep_features(&Features {
                table: c.table.start(),
                timesteps: c.timesteps.start(),
                features: c.features.start(),
                rows: count,
                width: waves as i32,
            })?;
            let (x, weight) = (Matrix::plain(c.features.start()), Matrix::transposed(w.at(at.time0)));
            l.multiply(c.hidden.start(), [rows, d, waves], x, weight, w.at(at.time0_bias))?;
            l.silu_forward(&Silu { x: c.hidden.start(), out: c.hidden_active.start(), count: rows * d })?;
            let (x, weight) = (Matrix::plain(c.hidden_active.start()), Matrix::transposed(w.at(at.time2)));
            l.multiply(c.t_emb.start(), [rows, d, d], x, weight, w.at(at.time2_bias))?;
            l.label_sum(&Label {
                table: w.at(at.label),
                labels: c.labels.start(),
                t_emb: c.t_emb.start(),
                c: c.c.start(),
                active: c.active.start(),
                rows: count,
                width: d as i32,
            })?;
            let (x, weight) = (Matrix::plain(c.active.start()), Matrix::transposed(w.at(at.adaln)));
            l.multiply(c.modulations.start(), [rows, all, d], x, weight, w.at(at.adaln_bias))
        }
    }

    /// From the modulations' gradient to that of the weights that made them. `scratch.branch` and `scratch.again` are overwritten.
    pub(super) fn embed_backward(&self) -> Result<(), Error> {
        let (l, c, at, w) = (self.l, &self.condition, &self.places, &self.weights);
        let Some(full) = &self.full else { return Ok(()) };
        let (rows, d, waves) = (c.rows, self.shape.hidden, Shape::TIMESTEP_FEATURES);
        let all = self.shape.modulations();
        let (d_modulations, g) = (full.d_modulations.start(), &full.gradient);
        let (d_c, d_hidden) = (self.scratch.branch.start(), self.scratch.again.start());
        // SAFETY: as above; a batch has at least as many tokens as rows.
        unsafe {
            l.weight_gradient(g.at(at.adaln), [all, d, rows], d_modulations, c.active.start())?;
            self.bias_gradient(at.adaln_bias, d_modulations, rows, all)?;
            l.multiply(d_c, [rows, d, all], Matrix::plain(d_modulations), Matrix::plain(w.at(at.adaln)), NONE)?;
            l.silu_backward(&Silu { x: c.c.start(), out: d_c, count: rows * d })?;
            let gradient = LabelGradient {
                d_label: d_c,
                labels: c.labels.start(),
                d_table: g.at(at.label),
                rows: rows as i32,
                width: d as i32,
            };
            l.label_gradient(&gradient, self.shape.label_rows)?;
            l.weight_gradient(g.at(at.time2), [d, d, rows], d_c, c.hidden_active.start())?;
            self.bias_gradient(at.time2_bias, d_c, rows, d)?;
            l.multiply(d_hidden, [rows, d, d], Matrix::plain(d_c), Matrix::plain(w.at(at.time2)), NONE)?;
            l.silu_backward(&Silu { x: c.hidden.start(), out: d_hidden, count: rows * d })?;
            l.weight_gradient(g.at(at.time0), [d, waves, rows], d_hidden, c.features.start())?;
            self.bias_gradient(at.time0_bias, d_hidden, rows, d)
        }
    }
}
