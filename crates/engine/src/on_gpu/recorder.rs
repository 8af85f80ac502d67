//! The layers of a network of `models`, written down for a machine by the very code that candle runs.

use candle_core::{Error, Result, Tensor, bail};
use gpu::{Map, Program, Size, Window};
use models::layers::{self, Attention, Convolution, Evaluator, GroupNorm, Linear, Pooling, PoolingKind};

/// Writes layers down.
pub struct Recorder {
    program: Program,
}

impl Recorder {
    /// Nothing yet, and the map that the network sees.
    pub fn new(size: Size) -> (Self, Map) {
        let (program, input) = Program::new(size);
        (Self { program }, input)
    }

    /// What was written.
    pub fn program(self) -> Program {
        self.program
    }

    /// Images of another size, before a network sees them.
    pub fn resized(&mut self, x: Map, to: [usize; 2]) -> Result<Map> {
        self.program.resized(x, to).map_err(Error::wrap)
    }

    fn linear(&mut self, layer: &Linear, x: Map, window: Window, relu: bool) -> Result<Map> {
        let kernel = numbers(layer.weight())?;
        let bias = match layer.bias() {
            Some(bias) => numbers(bias)?,
            None => vec![0.0; layer.weight().dim(0)?],
        };
        if kernel.len() != bias.len() * window.kernel.iter().product::<usize>() * self.program.size(x).channels {
            bail!("a layer of {:?} for a map of {} channels", layer.weight().dims(), self.program.size(x).channels)
        }
        self.program.convolution(x, window, [&kernel, &bias], relu).map_err(Error::wrap)
    }

    fn normalisation(&mut self, layer: &GroupNorm, x: Map, silu: bool) -> Result<Map> {
        let ([weight, bias], (groups, epsilon)) = (layer.affine(), layer.groups());
        let (weight, bias) = (numbers(weight)?, numbers(bias)?);
        let written = self.program.normalisation(x, (groups, epsilon as f32), [&weight, &bias], silu);
        written.map_err(Error::wrap)
    }
}

impl Evaluator for Recorder {
    type Map = Map;

    fn convolve(&mut self, layer: &Convolution, x: &Map) -> Result<Map> {
        self.linear(layer.kernel(), *x, window(layer.window()), false)
    }

    fn convolve_relu(&mut self, layer: &Convolution, x: &Map) -> Result<Map> {
        self.linear(layer.kernel(), *x, window(layer.window()), true)
    }

    fn pool(&mut self, layer: &Pooling, x: &Map) -> Result<Map> {
        let (kind, of) = layer.window();
        let kind = match kind {
            PoolingKind::Mean => gpu::Pooling::Mean,
            PoolingKind::Max => gpu::Pooling::Max,
        };
        self.program.pool(*x, window(of), kind).map_err(Error::wrap)
    }

    fn beside(&mut self, maps: &[Map]) -> Result<Map> {
        self.program.beside(maps).map_err(Error::wrap)
    }

    fn normalise(&mut self, layer: &GroupNorm, x: &Map) -> Result<Map> {
        self.normalisation(layer, *x, false)
    }

    fn normalise_silu(&mut self, layer: &GroupNorm, x: &Map) -> Result<Map> {
        self.normalisation(layer, *x, true)
    }

    fn attend(&mut self, layer: &Attention, x: &Map) -> Result<Map> {
        if layer.heads() != 1 {
            bail!("a GPU's attention over maps has one head, not {}", layer.heads())
        }
        let [query, key, value, out] = layer.projections();
        let q = self.linear(query, *x, Window::POINT, false)?;
        let k = self.linear(key, *x, Window::POINT, false)?;
        let v = self.linear(value, *x, Window::POINT, false)?;
        let mixed = self.program.attention([q, k, v]).map_err(Error::wrap)?;
        self.linear(out, mixed, Window::POINT, false)
    }

    fn add(&mut self, a: &Map, b: &Map) -> Result<Map> {
        self.program.sum([*a, *b]).map_err(Error::wrap)
    }

    fn double(&mut self, x: &Map) -> Result<Map> {
        self.program.doubled(*x).map_err(Error::wrap)
    }
}

fn window(layers::Window { kernel, stride, before, after }: layers::Window) -> Window {
    Window { kernel, stride, before, after }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}
