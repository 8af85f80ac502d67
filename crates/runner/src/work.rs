//! How much arithmetic a stage is: an estimate for plans and for the time left, not a measurement.

use manifest::autoencoder::{LatentSpace, VaeConfig};
use manifest::dataset::Source;
use manifest::denoiser::Denoiser;
use manifest::dit::DitConfig;
use manifest::extractor::{ExtractorConfig, FeatureNetwork};
use manifest::method::{Method, Position, Prompts};
use manifest::stage::{Captions, Sample, Stage};
use manifest::text::TextNetwork;
use manifest::unet::UnetConfig;
use models::clip::TOKENS;

/// The work of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    /// Floating-point operations, matrix products only (a multiply-add is two).
    pub(crate) flops: f64,
    /// Units of progress.
    pub(crate) units: f64,
    /// What is counted.
    pub(crate) unit: &'static str,
}

/// Arithmetic of a stage whose size its parameters do not tell (statistics, distances): seconds at most.
const SMALL: f64 = 1e9;

/// Images of a stage whose files alone can count them.
const UNCOUNTED: usize = 10_000;

/// Side of an image that is decoded, where the stage that drew it is not known: the paper's.
const DECODED: usize = 256;

/// One image of 299 x 299 through Inception v3 (Szegedy et al. 2016: 5.7e9 multiply-adds).
const INCEPTION_FORWARD: f64 = 1.14e10;

impl Work {
    /// Estimates the work of a stage. `drawn` is the stage of its input `samples`, where it is known.
    pub(crate) fn of(stage: &Stage, drawn: Option<&Sample>) -> Self {
        let iterations =
            |count: usize, flops: f64| Self { flops: count as f64 * flops, units: count as f64, unit: "iterations" };
        match stage {
            Stage::Embeddings(s) => {
                let captions = match &s.captions {
                    Captions::Listed(captions) => captions.len() as f64,
                    Captions::Of(source) => source.count().unwrap_or(UNCOUNTED) as f64,
                };
                Self { flops: SMALL + captions * text_forward(&s.encoder), units: captions, unit: "captions" }
            }
            Stage::Pretrain(s) => {
                iterations(s.optimisation.iterations, s.optimisation.batch as f64 * 3.0 * forward(&s.denoiser, None))
            }
            Stage::TrainExtractor(s) => iterations(
                s.optimisation.iterations,
                s.optimisation.batch as f64 * 3.0 * extractor_forward(&s.extractor),
            ),
            Stage::Train(s) => {
                let passes = match s.method {
                    Method::Finetune(_) => 3.0,
                    _ if s.method.from_scratch() => 3.0,
                    // The gradients of qkv and projection: 8 of a block's 24 products.
                    Method::Lora(_) => 2.0 + 8.0 / 24.0,
                    // Frozen weights need no gradient of their own: forward and backward cost the same.
                    _ => 2.0,
                };
                let forward = forward(&s.denoiser, s.method.prompts());
                iterations(s.optimisation.iterations, s.optimisation.batch as f64 * passes * forward)
            }
            Stage::Sample(s) => {
                let passes = if s.sampler.guidance == 1.0 { 1.0 } else { 2.0 };
                let forward = forward(&s.denoiser, s.method.prompts());
                let images = s.count as f64;
                Self { flops: images * s.sampler.steps as f64 * passes * forward, units: images, unit: "images" }
            }
            Stage::Encode(s) => {
                let images = s.data.count().unwrap_or(UNCOUNTED) as f64;
                let passes = images * if s.horizontal_flip { 2.0 } else { 1.0 };
                let forward = Half::Encoder.forward(&s.autoencoder.shape, s.data.image_size());
                Self { flops: passes * forward, units: images, unit: "images" }
            }
            Stage::Decode(s) => {
                let images = s.count as f64;
                let forward = decoding(&s.latents, drawn);
                Self { flops: images * forward, units: images, unit: "images" }
            }
            Stage::Features(s) => {
                let forward = match &s.extractor {
                    FeatureNetwork::Cnn(cnn) => extractor_forward(cnn),
                    FeatureNetwork::Inception(_) => INCEPTION_FORWARD,
                };
                let forward = forward + s.latents.as_ref().map_or(0.0, |space| decoding(space, drawn));
                let drawn = drawn.map(|sample| sample.count);
                let count = s.data.as_ref().map_or(drawn, Source::count).unwrap_or(UNCOUNTED);
                Self { flops: SMALL + count as f64 * forward, units: 1.0, unit: "stages" }
            }
            Stage::Import(_)
            | Stage::Statistics(_)
            | Stage::Metrics(_)
            | Stage::Extrapolation(_)
            | Stage::Coverage(_)
            | Stage::InceptionScore(_)
            | Stage::Similarity(_)
            | Stage::Activation(_) => Self { flops: SMALL, units: 1.0, unit: "stages" },
        }
    }
}

/// One sample to an image, which is as large as the network's latents make it.
fn decoding(space: &LatentSpace, drawn: Option<&Sample>) -> f64 {
    let shape = &space.autoencoder.shape;
    Half::Decoder.forward(shape, drawn.map_or(DECODED, |sample| sample.denoiser.image_size() * shape.downsampling()))
}

/// One image through a denoising network.
fn forward(denoiser: &Denoiser, prompts: Option<&Prompts>) -> f64 {
    match denoiser {
        Denoiser::Dit(dit) => dit_forward(dit, prompts),
        Denoiser::Unet(unet) => unet_forward(&unet.shape),
    }
}

/// One image through the trunk: per block `24 T D^2` (qkv, projection, MLP), `4 T^2 D` (attention) and `12 D^2` (modulation).
fn dit_forward(dit: &DitConfig, prompts: Option<&Prompts>) -> f64 {
    let extra = match prompts.map(|prompts| &prompts.position) {
        Some(Position::Prepend(prepend)) => dit.tokens() as f64 * prepend.per_256_tokens as f64 / 256.0,
        _ => 0.0,
    };
    let (t, d) = (dit.tokens() as f64 + extra, dit.hidden as f64);
    let edges = 2.0 * t * d * (dit.patch.pow(2) * (dit.channels + dit.out_channels())) as f64;
    dit.depth as f64 * (24.0 * t * d * d + 4.0 * t * t * d + 12.0 * d * d) + edges
}

/// One image through a UNet, as its definition counts it; a shape that fits no network is refused where it is read.
fn unet_forward(unet: &UnetConfig) -> f64 {
    models::unet::cost(unet, unet.image_size, TOKENS).unwrap_or_default().flops
}

/// One caption of 77 tokens through CLIP's layers: `24 T W^2` (attention's projections, MLP) and `4 T^2 W` each.
fn text_forward(encoder: &TextNetwork) -> f64 {
    let (width, depth) = match encoder {
        TextNetwork::Clip => (768, 12),
        TextNetwork::ClipFormula(formula) => (formula.width, formula.depth),
    };
    let (t, w) = (TOKENS as f64, width as f64);
    depth as f64 * (24.0 * t * w * w + 4.0 * t * t * w)
}

/// One image through the convolutions: `18 c_in c_out` per output pixel of each 3x3 layer.
fn extractor_forward(extractor: &ExtractorConfig) -> f64 {
    let mut channels = extractor.channels as f64;
    let mut side = extractor.image_size as f64;
    let mut flops = 0.0;
    for (layer, &width) in extractor.widths.iter().enumerate() {
        if layer > 0 {
            side = (side / 2.0).ceil();
        }
        flops += 18.0 * channels * width as f64 * side * side;
        channels = width as f64;
    }
    flops
}

/// A half of an autoencoder.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    Encoder,
    Decoder,
}

impl Half {
    /// One image of `side` through it: `18 c_in c_out` per place of each 3x3 convolution, `8 c^2 + 4 places c` per place of
    /// the attention.
    fn forward(self, vae: &VaeConfig, side: usize) -> f64 {
        let VaeConfig { image_channels, latent_channels, widths, depth, .. } = vae;
        let places = |level: usize| (side >> level).pow(2) as f64;
        let convolution = |inputs: usize, out: usize, level: usize| 18.0 * (inputs * out) as f64 * places(level);
        let block = |inputs: usize, out: usize, level: usize| {
            let shortcut = if inputs == out { 0.0 } else { 2.0 * (inputs * out) as f64 * places(level) };
            convolution(inputs, out, level) + convolution(out, out, level) + shortcut
        };
        let bottom = widths.len() - 1;
        let (first, last) = (widths[0], widths[bottom]);
        let attention = (8.0 * (last * last) as f64 + 4.0 * places(bottom) * last as f64) * places(bottom);
        let middle = 2.0 * block(last, last, bottom) + attention;
        let edges = match self {
            Self::Encoder => convolution(*image_channels, first, 0) + convolution(last, 2 * latent_channels, bottom),
            Self::Decoder => convolution(*latent_channels, last, bottom) + convolution(first, *image_channels, 0),
        };
        let level = |level: usize| {
            let out = widths[level];
            // Where the blocks of a level come from, how many there are, and where the next resolution's convolution works.
            let (inputs, blocks, next) = match self {
                Self::Encoder => (if level == 0 { out } else { widths[level - 1] }, *depth, level + 1),
                Self::Decoder => {
                    (if level == bottom { out } else { widths[level + 1] }, depth + 1, level.wrapping_sub(1))
                }
            };
            let resample = if next <= bottom { convolution(out, out, next) } else { 0.0 };
            block(inputs, out, level) + (blocks - 1) as f64 * block(out, out, level) + resample
        };
        edges + middle + (0..=bottom).map(level).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As counted by hand for docs/paper-scale.md: 273 and 622 GFLOP.
    #[test]
    fn the_autoencoder_of_stable_diffusion_at_256() {
        let vae = VaeConfig::stable_diffusion();
        let giga = |half: Half| half.forward(&vae, 256) / 1e9;
        assert!((giga(Half::Encoder) - 273.0).abs() < 3.0, "{}", giga(Half::Encoder));
        assert!((giga(Half::Decoder) - 622.0).abs() < 6.0, "{}", giga(Half::Decoder));
    }

    #[test]
    fn dit_b_2_at_32x32_has_the_published_size() {
        let dit = DitConfig {
            image_size: 32,
            channels: 4,
            patch: 2,
            hidden: 768,
            depth: 12,
            heads: 12,
            classes: None,
            text_width: None,
            label_dropout: 0.0,
            learn_sigma: true,
        };
        // DiT (Peebles & Xie 2023), Table 9: 23.01 Gflops (counted as multiply-adds) a forward pass of B/2 at 32x32x4.
        let multiply_adds = dit_forward(&dit, None) / 2.0;
        assert!((multiply_adds / 23.01e9 - 1.0).abs() < 0.02, "{multiply_adds}");
    }
}
