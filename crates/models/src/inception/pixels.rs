//! What pytorch-fid does to an image before the network sees it.

use candle_core::{DType, Device, Result, Tensor};

/// Side of the images that the published network was trained on.
pub const SIDE: usize = 299;

/// `2 x / 255 - 1`.
///
/// # Shapes
/// Bytes `[B, 3, height, width]` as numbers from 0 to 255 (any type) to `f32` of the same shape.
///
/// # Errors
/// Those of candle.
pub fn normalised(pixels: &Tensor) -> Result<Tensor> {
    pixels.to_dtype(DType::F32)?.affine(2.0 / 255.0, -1.0)
}

/// Bilinear to [`SIDE`] x [`SIDE`], corners not aligned, no filter against aliasing (`torch.nn.functional.interpolate`):
/// output place `i` lies at `max(0, (i + 1/2) in / out - 1/2)`. Two products with sparse matrices.
///
/// # Shapes
/// `[B, C, height, width]` to `[B, C, 299, 299]`.
///
/// # Errors
/// Those of candle.
pub fn resized(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if (height, width) == (SIDE, SIDE) {
        return Ok(x.clone());
    }
    let columns = interpolation(width, x.dtype(), x.device())?;
    let rows = interpolation(height, x.dtype(), x.device())?;
    let wide = x.contiguous()?.broadcast_matmul(&columns.t()?)?; // [B, C, height, SIDE]
    rows.broadcast_matmul(&wide)
}

/// `[SIDE, from]`: the two weights of each output place, in `f32` as the reference computes them.
fn interpolation(from: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let scale = from as f32 / SIDE as f32;
    let mut weights = vec![0_f32; SIDE * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let place = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let first = place as usize;
        let fraction = place - first as f32;
        row[first] += 1.0 - fraction;
        row[(first + 1).min(from - 1)] += fraction;
    }
    Tensor::from_vec(weights, (SIDE, from), device)?.to_dtype(dtype)
}
