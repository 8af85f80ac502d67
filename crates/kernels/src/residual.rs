//! Row passes along the residual stream: everything between two matrix products outside the branches, forward and
//! backward, each in one pass over memory.

use pulp::Simd;

use crate::contribution::{Contribution, Entry};
use crate::layernorm::{self, RowStatistics};
use crate::pass::{Chunk, Pass};
use crate::vector::{Kernel, add, add_scaled, dot, each};

/// A width for which the passes are compiled on their own: rows of a few vectors cost less than the loops around them.
const NARROW: usize = 64;

/// Where a token comes from when it enters a block.
pub(crate) enum Source<'a> {
    /// From the patch embedding's product, without bias and position.
    Embedding { product: &'a [f32], bias: &'a [f32], position: &'a [f32] },
    /// From the block before: middle of the residual stream, MLP output without bias and gate.
    Block { middle: &'a [f32], branch: &'a [f32], bias: &'a [f32] },
}

/// The pass that closes one block and opens the next: gated residual, contribution, LayerNorm and modulation.
pub(crate) struct Enter<'a> {
    pub(crate) pass: &'a Pass<'a>,
    pub(crate) chunk: Chunk,
    pub(crate) level: usize,
    pub(crate) source: Source<'a>,
    pub(crate) x: &'a mut [f32],
    pub(crate) statistics: &'a mut [RowStatistics],
    pub(crate) normed: &'a mut [f32],
}

impl Kernel for Enter<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.pass.shape.hidden {
            NARROW => self.rows(simd, NARROW),
            d => self.rows(simd, d),
        }
    }
}

impl Enter<'_> {
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, d: usize) {
        let e = self;
        let (from, to) = (e.pass.tokens_before(e.level), e.pass.tokens[e.level]);
        let contribution = e.pass.contributions.get(e.level).unwrap_or(&Contribution::None);
        for s in 0..e.chunk.count {
            let row = e.pass.rows[e.chunk.start + s] as usize;
            let (shift, scale) = e.pass.condition.modulation(e.level, row)[..2 * d].split_at(d);
            for t in 0..to {
                let at = (s * to + t) * d..(s * to + t + 1) * d;
                let x = &mut e.x[at.clone()];
                let entry = contribution.entry(row, t, d);
                if let Entry::Replace(weight, prompt) = entry {
                    for (x, prompt) in x.iter_mut().zip(prompt) {
                        *x = weight * prompt;
                    }
                } else {
                    let token = t + from - to;
                    let origin = (s * from + token) * d;
                    match e.source {
                        Source::Embedding { product, bias, position } => {
                            let (product, position) = (&product[origin..origin + d], &position[token * d..][..d]);
                            let bias = &bias[..d];
                            for i in 0..d {
                                x[i] = product[i] + bias[i] + position[i];
                            }
                        }
                        Source::Block { middle, branch, bias } => {
                            let gate = &e.pass.condition.modulation(e.level - 1, row)[5 * d..];
                            gated(simd, &middle[origin..origin + d], gate, &branch[origin..origin + d], bias, x);
                        }
                    }
                    if let Entry::Add(weight, prompt) = entry {
                        add_scaled(simd, x, weight, prompt);
                    }
                }
                e.statistics[s * to + t] = layernorm::forward(simd, x, shift, scale, &mut e.normed[at]);
            }
        }
    }
}

/// `out = x + gate (branch + bias)`, one row.
#[inline(always)]
pub(crate) fn gated<S: Simd>(simd: S, x: &[f32], gate: &[f32], branch: &[f32], bias: &[f32], out: &mut [f32]) {
    let d = out.len();
    let (x, gate, branch, bias) = (&x[..d], &gate[..d], &branch[..d], &bias[..d]);
    each(
        simd,
        d,
        #[inline(always)]
        |at, _| {
            let branch = simd.add_f32s(at.load(branch), at.load(bias));
            at.store(simd.mul_add_e_f32s(at.load(gate), branch, at.load(x)), out);
        },
    );
}

/// The pass between a block's two branches: gated residual, LayerNorm and modulation.
pub(crate) struct Middle<'a> {
    pub(crate) pass: &'a Pass<'a>,
    pub(crate) chunk: Chunk,
    pub(crate) level: usize,
    pub(crate) x: &'a [f32],
    pub(crate) branch: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) middle: &'a mut [f32],
    pub(crate) statistics: &'a mut [RowStatistics],
    pub(crate) normed: &'a mut [f32],
}

impl Kernel for Middle<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.pass.shape.hidden {
            NARROW => self.rows(simd, NARROW),
            d => self.rows(simd, d),
        }
    }
}

impl Middle<'_> {
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, d: usize) {
        let m = self;
        let tokens = m.pass.tokens[m.level];
        for s in 0..m.chunk.count {
            let row = m.pass.rows[m.chunk.start + s] as usize;
            let modulation = m.pass.condition.modulation(m.level, row);
            let (gate, shift, scale) =
                (&modulation[2 * d..3 * d], &modulation[3 * d..4 * d], &modulation[4 * d..5 * d]);
            for t in s * tokens..(s + 1) * tokens {
                let at = t * d..(t + 1) * d;
                let middle = &mut m.middle[at.clone()];
                gated(simd, &m.x[at.clone()], gate, &m.branch[at.clone()], m.bias, middle);
                m.statistics[t] = layernorm::forward(simd, middle, shift, scale, &mut m.normed[at]);
            }
        }
    }
}

/// `sum += each row of values`.
pub(crate) struct AddRows<'a> {
    pub(crate) sum: &'a mut [f32],
    pub(crate) values: &'a [f32],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for row in self.values.chunks_exact(self.sum.len()) {
            add(self.sum, row);
        }
    }
}

/// `d_branch = dx gate` before a branch; where everything learns also the gate's and the branch bias's gradient.
pub(crate) struct Gate<'a> {
    pub(crate) pass: &'a Pass<'a>,
    pub(crate) chunk: Chunk,
    pub(crate) level: usize,
    /// Place of the gate among the block's modulations: 2 or 5.
    pub(crate) place: usize,
    pub(crate) dx: &'a [f32],
    pub(crate) d_branch: &'a mut [f32],
    pub(crate) full: Option<FullGate<'a>>,
}

pub(crate) struct FullGate<'a> {
    pub(crate) branch: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) d_bias: &'a mut [f32],
    pub(crate) d_modulations: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.pass.shape.hidden {
            NARROW => self.rows(simd, NARROW),
            d => self.rows(simd, d),
        }
    }
}

impl Gate<'_> {
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, d: usize) {
        let mut g = self;
        let tokens = g.pass.tokens[g.level];
        for s in 0..g.chunk.count {
            let row = g.pass.rows[g.chunk.start + s] as usize;
            let gate = &g.pass.condition.modulation(g.level, row)[g.place * d..][..d];
            for t in s * tokens..(s + 1) * tokens {
                let (dx, d_branch) = (&g.dx[t * d..(t + 1) * d], &mut g.d_branch[t * d..(t + 1) * d]);
                each(
                    simd,
                    d,
                    #[inline(always)]
                    |at, _| at.store(simd.mul_f32s(at.load(dx), at.load(gate)), d_branch),
                );
                if let Some(full) = &mut g.full {
                    let (branch, bias) = (&full.branch[t * d..(t + 1) * d], &full.bias[..d]);
                    let d_gate = &mut full.d_modulations[(s * 6 + g.place) * d..][..d];
                    let d_bias = &mut full.d_bias[..d];
                    each(
                        simd,
                        d,
                        #[inline(always)]
                        |at, _| {
                            let out = simd.add_f32s(at.load(branch), at.load(bias));
                            at.store(simd.mul_add_e_f32s(at.load(dx), out, at.load(d_gate)), d_gate);
                            at.store(simd.add_f32s(at.load(d_bias), at.load(d_branch)), d_bias);
                        },
                    );
                }
            }
        }
    }
}

/// Back through modulation and LayerNorm into the residual stream's gradient; makes the normalised rows again where
/// a weight behind them learns.
pub(crate) struct Norm<'a> {
    pub(crate) pass: &'a Pass<'a>,
    pub(crate) chunk: Chunk,
    /// Level of the modulation, and its place in it: 0 (attention, final layer) or 3 (MLP).
    pub(crate) level: usize,
    pub(crate) place: usize,
    pub(crate) x: &'a [f32],
    pub(crate) statistics: &'a [RowStatistics],
    pub(crate) dn: &'a [f32],
    pub(crate) dx: &'a mut [f32],
    pub(crate) again: Option<&'a mut [f32]>,
    pub(crate) d_modulations: Option<&'a mut [f32]>,
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.pass.shape.hidden {
            NARROW => self.rows(simd, NARROW),
            d => self.rows(simd, d),
        }
    }
}

impl Norm<'_> {
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, d: usize) {
        let mut n = self;
        let tokens = n.pass.tokens[n.level];
        let width = if n.level == n.pass.shape.depth { 2 * d } else { 6 * d };
        for s in 0..n.chunk.count {
            let row = n.pass.rows[n.chunk.start + s] as usize;
            let (shift, scale) = n.pass.condition.modulation(n.level, row)[n.place * d..][..2 * d].split_at(d);
            for t in s * tokens..(s + 1) * tokens {
                let at = t * d..(t + 1) * d;
                let (x, dn, statistics) = (&n.x[at.clone()], &n.dn[at.clone()], n.statistics[t]);
                layernorm::backward(simd, x, statistics, scale, dn, &mut n.dx[at.clone()]);
                if let Some(again) = &mut n.again {
                    layernorm::modulate(simd, x, statistics, shift, scale, &mut again[at]);
                }
                if let Some(d_modulations) = &mut n.d_modulations {
                    let (d_shift, d_scale) = d_modulations[s * width + n.place * d..][..2 * d].split_at_mut(d);
                    layernorm::modulation_backward(simd, x, statistics, dn, d_shift, d_scale);
                }
            }
        }
    }
}

/// Gradients of a block's contribution from the gradient of its input; what a prompt replaced gets none.
pub(crate) struct Leave<'a> {
    pub(crate) pass: &'a Pass<'a>,
    pub(crate) chunk: Chunk,
    pub(crate) level: usize,
    /// The first sample's place among those of `d_weights`, and of `d_prompts` for broadcast vectors.
    pub(crate) place: usize,
    pub(crate) dx: &'a mut [f32],
    pub(crate) d_weights: &'a mut [f32],
    pub(crate) d_prompts: &'a mut [f32],
}

impl Kernel for Leave<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.pass.shape.hidden {
            NARROW => self.rows(simd, NARROW),
            d => self.rows(simd, d),
        }
    }
}

impl Leave<'_> {
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, d: usize) {
        let l = self;
        let tokens = l.pass.tokens[l.level];
        for s in 0..l.chunk.count {
            let row = l.pass.rows[l.chunk.start + s] as usize;
            let dx = &mut l.dx[s * tokens * d..(s + 1) * tokens * d];
            match l.pass.contributions[l.level] {
                Contribution::None => {}
                Contribution::Broadcast { .. } => {
                    let sum = &mut l.d_prompts[(l.place + s) * d..][..d];
                    for dx in dx.chunks_exact(d) {
                        add(sum, dx);
                    }
                }
                Contribution::PrependBroadcast { places, .. } => {
                    let sum = &mut l.d_prompts[(l.place + s) * d..][..d];
                    for dx in dx[..places * d].chunks_exact_mut(d) {
                        add(sum, dx);
                        dx.fill(0.0);
                    }
                }
                Contribution::Weighted { weights, prompts } | Contribution::Prepend { weights, prompts } => {
                    let n = prompts.len() / d;
                    let d_weights = &mut l.d_weights[(l.place + s) * n..][..n];
                    let prompts = prompts.chunks_exact(d).zip(l.d_prompts.chunks_exact_mut(d));
                    let rows = dx.chunks_exact(d).zip(prompts).zip(&weights[row * n..]).zip(d_weights);
                    for (((dx, (prompt, d_prompt)), weight), d_weight) in rows {
                        *d_weight = dot(simd, dx, prompt);
                        add_scaled(simd, d_prompt, *weight, dx);
                    }
                    if matches!(l.pass.contributions[l.level], Contribution::Prepend { .. }) {
                        dx[..n * d].fill(0.0);
                    }
                }
            }
        }
    }
}
