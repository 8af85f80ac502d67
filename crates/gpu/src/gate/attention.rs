//! Gates of attention, by both readings of the paper (`patches`' `AttentionOverPrompts` and `AttentionLiteral`).

use super::gating::Extent;
use super::projection::{Eye, Told};
use crate::arguments::Accumulate;
use crate::array::Array;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Matrix, Precision};

/// Scores of the prompts under one key: `q(prompt) . k([embedding; block]) / sqrt(D)`.
pub(super) struct OverPrompts<M: Machine> {
    extent: Extent,
    /// `[L', R, D]`, divided by the square root.
    keys: Told<M>,
    /// `[L' N, D]`.
    queries: Array<M>,
    /// `[L', R, N]`.
    logits: Array<M>,
    /// Like the queries, which are made of the prompts; empty unless it trains.
    d_queries: Array<M>,
    d_prompts: Array<M>,
}

impl<M: Machine> OverPrompts<M> {
    pub(super) fn new(machine: &M, extent: Extent, trains: bool) -> Result<Self, Error> {
        let Extent { blocks, prompts, width, rows, .. } = extent;
        let array = |wanted: bool, count| Array::new(machine, Precision::F32, if wanted { count } else { 0 });
        let queries = |wanted| array(wanted, blocks * prompts * width);
        Ok(Self {
            extent,
            keys: Told::new(machine, extent, (1.0 / (width as f64).sqrt()) as f32, trains)?,
            queries: queries(true)?,
            logits: array(true, blocks * rows * prompts)?,
            d_queries: queries(trains)?,
            d_prompts: queries(trains)?,
        })
    }

    /// The logits, `[L', R, N]`.
    pub(super) fn logits(&self) -> Address {
        self.logits.start()
    }

    /// Makes them of the weights of queries `[D, D]` and keys `[D, inputs]`, and of the prompts `[L', N, D]`.
    ///
    /// # Safety
    /// The addresses are as large as that.
    pub(super) unsafe fn forward(
        &self,
        l: Launcher<M>,
        eye: &Eye<M>,
        [q, k]: [Address; 2],
        prompts: Address,
    ) -> Result<(), Error> {
        let Extent { blocks, prompts: n, width: d, rows, .. } = self.extent;
        let (keys, queries) = (self.keys.out(), &self.queries);
        // SAFETY: the caller's promise; our arrays were made for the extent.
        unsafe {
            self.keys.forward(l, eye, k)?;
            let (prompts, weight) = (Matrix::plain(prompts), Matrix::transposed(q));
            l.multiply(queries.start(), [blocks * n, d, d], prompts, weight, Address::NULL)?;
            for block in 0..blocks {
                let (key, query) = (keys.at(block * rows * d), queries.at(block * n * d));
                let (key, query, out) =
                    (Matrix::plain(key), Matrix::transposed(query), self.logits.at(block * rows * n));
                l.multiply(out, [rows, n, d], key, query, Address::NULL)?;
            }
        }
        Ok(())
    }

    /// From the gradient of the logits to those of both weights; that of the prompts is added to `d_prompts`.
    ///
    /// # Safety
    /// As [`OverPrompts::forward`], which came before.
    pub(super) unsafe fn backward(
        &self,
        l: Launcher<M>,
        eye: &Eye<M>,
        d_logits: &Array<M>,
        q: Address,
        [d_q, d_k]: [Address; 2],
        [prompts, d_prompts]: [Address; 2],
    ) -> Result<(), Error> {
        let Extent { blocks, prompts: n, width: d, rows, .. } = self.extent;
        let (keys, queries, d_queries) = (&self.keys, &self.queries, &self.d_queries);
        // SAFETY: as above.
        unsafe {
            for block in 0..blocks {
                let (key, query, d_logits) = (block * rows * d, block * n * d, d_logits.at(block * rows * n));
                let (left, right) = (Matrix::plain(d_logits), Matrix::plain(queries.at(query)));
                l.multiply(keys.d_out().at(key), [rows, d, n], left, right, Address::NULL)?;
                l.weight_gradient(d_queries.at(query), [n, d, rows], d_logits, keys.out().at(key))?;
            }
            keys.backward(l, eye, d_k)?;
            l.weight_gradient(d_q, [d, d, blocks * n], d_queries.start(), prompts)?;
            let (left, own) = (Matrix::plain(d_queries.start()), &self.d_prompts);
            l.multiply(own.start(), [blocks * n, d, d], left, Matrix::plain(q), Address::NULL)?;
            l.accumulate(&Accumulate { sum: d_prompts, values: own.start(), count: own.len(), fresh: 0 })
        }
    }
}

/// The output of attention over one key, which is its value whatever prompts ask: `W_o W_v [embedding; block]`.
pub(super) struct Literal<M: Machine> {
    extent: Extent,
    /// `[L', R, D]`.
    values: Told<M>,
}

impl<M: Machine> Literal<M> {
    pub(super) fn new(machine: &M, extent: Extent, trains: bool) -> Result<Self, Error> {
        Ok(Self { extent, values: Told::new(machine, extent, 1.0, trains)? })
    }

    /// `vectors [L', R, D]` by the weights of values `[D, inputs]` and output `[D, D]`.
    ///
    /// # Safety
    /// The addresses are as large as that.
    pub(super) unsafe fn forward(
        &self,
        l: Launcher<M>,
        eye: &Eye<M>,
        [v, o]: [Address; 2],
        vectors: Address,
    ) -> Result<(), Error> {
        let Extent { blocks, width: d, rows, .. } = self.extent;
        // SAFETY: the caller's promise; our arrays were made for the extent.
        unsafe {
            self.values.forward(l, eye, v)?;
            let (values, weight) = (Matrix::plain(self.values.out().start()), Matrix::transposed(o));
            l.multiply(vectors, [blocks * rows, d, d], values, weight, Address::NULL)
        }
    }

    /// From the gradient of the vectors to those of both weights.
    ///
    /// # Safety
    /// As [`Literal::forward`], which came before.
    pub(super) unsafe fn backward(
        &self,
        l: Launcher<M>,
        eye: &Eye<M>,
        d_vectors: Address,
        o: Address,
        [d_v, d_o]: [Address; 2],
    ) -> Result<(), Error> {
        let (Extent { blocks, width: d, rows, .. }, values) = (self.extent, &self.values);
        let (left, count) = (Matrix::plain(d_vectors), blocks * rows);
        // SAFETY: as above.
        unsafe {
            l.multiply(values.d_out().start(), [count, d, d], left, Matrix::plain(o), Address::NULL)?;
            l.weight_gradient(d_o, [d, d, count], d_vectors, values.out().start())?;
            values.backward(l, eye, d_v)
        }
    }
}
