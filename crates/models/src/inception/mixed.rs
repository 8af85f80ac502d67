//! The mixed blocks: parallel branches whose channels are put side by side.

use candle_core::Result;
use candle_nn::VarBuilder;

use super::unit::Unit;
use crate::layers::{Evaluator, Pooling, PoolingKind, Window};

/// A layer of a branch.
#[derive(Debug)]
enum Layer {
    Unit(Unit),
    Pooling(Pooling),
    /// Two units with the same input, side by side.
    Fork(Unit, Unit),
}

/// A mixed block.
#[derive(Debug)]
pub(super) struct Mixed(Vec<Vec<Layer>>);

impl Mixed {
    fn new<const N: usize>(branches: [Branch; N]) -> Self {
        Self(branches.into_iter().map(|branch| branch.layers).collect())
    }

    /// Every branch sees `x`.
    pub(super) fn forward<E: Evaluator>(&self, e: &mut E, x: &E::Map) -> Result<E::Map> {
        let mut outputs: Vec<E::Map> = Vec::with_capacity(self.0.len());
        for branch in &self.0 {
            let mut y = x.clone();
            for layer in branch {
                y = match layer {
                    Layer::Unit(unit) => unit.forward(e, &y)?,
                    Layer::Pooling(pooling) => e.pool(pooling, &y)?,
                    Layer::Fork(a, b) => {
                        let both = [a.forward(e, &y)?, b.forward(e, &y)?];
                        e.beside(&both)?
                    }
                };
            }
            outputs.push(y);
        }
        e.beside(&outputs)
    }

    /// Five by five, and three by three twice (`Mixed_5b` to `5d`); `pool` channels come from the pooling branch.
    pub(super) fn a(inputs: usize, pool: usize, vb: &VarBuilder) -> Result<Self> {
        let branch = || Branch::new(inputs, vb);
        Ok(Self::new([
            branch().unit("branch1x1", 64, ONE)?,
            branch().unit("branch5x5_1", 48, ONE)?.unit("branch5x5_2", 64, Window::same(5, 5))?,
            branch().unit("branch3x3dbl_1", 64, ONE)?.unit("branch3x3dbl_2", 96, THREE)?.unit(
                "branch3x3dbl_3",
                96,
                THREE,
            )?,
            branch().pooling(PoolingKind::Mean, THREE).unit("branch_pool", pool, ONE)?,
        ]))
    }

    /// Halves the map (`Mixed_6a`).
    pub(super) fn b(inputs: usize, vb: &VarBuilder) -> Result<Self> {
        let branch = || Branch::new(inputs, vb);
        Ok(Self::new([
            branch().unit("branch3x3", 384, HALVING)?,
            branch().unit("branch3x3dbl_1", 64, ONE)?.unit("branch3x3dbl_2", 96, THREE)?.unit(
                "branch3x3dbl_3",
                96,
                HALVING,
            )?,
            branch().pooling(PoolingKind::Max, HALVING),
        ]))
    }

    /// Seven by seven in two steps, once and twice (`Mixed_6b` to `6e`), through `inner` channels.
    pub(super) fn c(inputs: usize, inner: usize, vb: &VarBuilder) -> Result<Self> {
        let branch = || Branch::new(inputs, vb);
        Ok(Self::new([
            branch().unit("branch1x1", 192, ONE)?,
            branch().unit("branch7x7_1", inner, ONE)?.unit("branch7x7_2", inner, WIDE)?.unit(
                "branch7x7_3",
                192,
                TALL,
            )?,
            branch()
                .unit("branch7x7dbl_1", inner, ONE)?
                .unit("branch7x7dbl_2", inner, TALL)?
                .unit("branch7x7dbl_3", inner, WIDE)?
                .unit("branch7x7dbl_4", inner, TALL)?
                .unit("branch7x7dbl_5", 192, WIDE)?,
            branch().pooling(PoolingKind::Mean, THREE).unit("branch_pool", 192, ONE)?,
        ]))
    }

    /// Halves the map (`Mixed_7a`).
    pub(super) fn d(inputs: usize, vb: &VarBuilder) -> Result<Self> {
        let branch = || Branch::new(inputs, vb);
        Ok(Self::new([
            branch().unit("branch3x3_1", 192, ONE)?.unit("branch3x3_2", 320, HALVING)?,
            branch()
                .unit("branch7x7x3_1", 192, ONE)?
                .unit("branch7x7x3_2", 192, WIDE)?
                .unit("branch7x7x3_3", 192, TALL)?
                .unit("branch7x7x3_4", 192, HALVING)?,
            branch().pooling(PoolingKind::Max, HALVING),
        ]))
    }

    /// Three by three in two directions side by side (`Mixed_7b`, and `7c`, which pools the maximum: a slip of the
    /// published network that the weights were trained with).
    pub(super) fn e(inputs: usize, pooling: PoolingKind, vb: &VarBuilder) -> Result<Self> {
        let branch = || Branch::new(inputs, vb);
        Ok(Self::new([
            branch().unit("branch1x1", 320, ONE)?,
            branch().unit("branch3x3_1", 384, ONE)?.fork(["branch3x3_2a", "branch3x3_2b"], 384)?,
            branch()
                .unit("branch3x3dbl_1", 448, ONE)?
                .unit("branch3x3dbl_2", 384, THREE)?
                .fork(["branch3x3dbl_3a", "branch3x3dbl_3b"], 384)?,
            branch().pooling(pooling, THREE).unit("branch_pool", 192, ONE)?,
        ]))
    }
}

const ONE: Window = Window::same(1, 1);
const THREE: Window = Window::same(3, 3);
const WIDE: Window = Window::same(1, 7);
const TALL: Window = Window::same(7, 1);
const HALVING: Window = Window::valid(3, 2);

/// A branch that is being built.
struct Branch<'a> {
    layers: Vec<Layer>,
    /// Channels that come out of the last layer.
    channels: usize,
    vb: &'a VarBuilder<'a>,
}

impl<'a> Branch<'a> {
    fn new(channels: usize, vb: &'a VarBuilder<'a>) -> Self {
        Self { layers: Vec::new(), channels, vb }
    }

    fn unit(mut self, name: &str, out: usize, window: Window) -> Result<Self> {
        self.layers.push(Layer::Unit(Unit::new(self.channels, out, window, &self.vb.pp(name))?));
        self.channels = out;
        Ok(self)
    }

    fn pooling(mut self, kind: PoolingKind, window: Window) -> Self {
        self.layers.push(Layer::Pooling(Pooling::new(kind, window)));
        self
    }

    /// One by three beside three by one, `out` channels each.
    fn fork(mut self, names: [&str; 2], out: usize) -> Result<Self> {
        let [wide, tall] = names.map(|name| self.vb.pp(name));
        let wide = Unit::new(self.channels, out, Window::same(1, 3), &wide)?;
        self.layers.push(Layer::Fork(wide, Unit::new(self.channels, out, Window::same(3, 1), &tall)?));
        self.channels = 2 * out;
        Ok(self)
    }
}
