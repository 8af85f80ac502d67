//! Poolings.

use candle_core::{D, Result, Tensor};

use super::{FeatureMap, Gather, Window};

/// Mean or maximum over a window, channel by channel.
#[derive(Clone, Debug)]
pub struct Pooling {
    gather: Gather,
    kind: PoolingKind,
}

/// What is taken of the places of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PoolingKind {
    /// The mean of the places inside the map (in PyTorch: `count_include_pad=False`).
    Mean,
    /// The largest; a border counts as zero, which is never the largest where values are not negative (behind a ReLU).
    Max,
}

impl Pooling {
    /// Pools what `window` sees.
    pub fn new(kind: PoolingKind, window: Window) -> Self {
        Self { gather: Gather::new(window), kind }
    }

    /// What is taken, and of which places.
    pub fn window(&self) -> (PoolingKind, Window) {
        (self.kind, self.gather.window())
    }

    /// # Shapes
    /// `[B, places, C]` to `[B, output places, C]`.
    ///
    /// # Errors
    /// The window does not fit into the map.
    pub fn forward(&self, x: &FeatureMap) -> Result<FeatureMap> {
        let c = x.values.dim(D::Minus1)?;
        let gathered = self.gather.forward(x)?;
        let place = |k: usize| gathered.values.narrow(D::Minus1, k * c, c);
        let mut pooled = place(0)?;
        for k in 1..self.gather.window().places() {
            pooled = match self.kind {
                PoolingKind::Mean => (pooled + place(k)?)?,
                PoolingKind::Max => pooled.maximum(&place(k)?)?,
            };
        }
        if self.kind == PoolingKind::Mean {
            let inside = self.gather.window().inside(x.height, x.width)?;
            let inside: Vec<f64> = inside.into_iter().map(|n| n as f64).collect();
            let inside = Tensor::new(inside, pooled.device())?.to_dtype(pooled.dtype())?;
            pooled = pooled.broadcast_div(&inside.unsqueeze(1)?)?;
        }
        Ok(gathered.with(pooled))
    }
}
