//! Conditions that tie several values together; what concerns one value alone is in its type's schema.

use std::num::NonZeroUsize;

use crate::autoencoder::VaeConfig;
use crate::claim::{Claim, Direction};
use crate::dataset::Dataset;
use crate::denoiser::Denoiser;
use crate::dit::DitConfig;
use crate::extractor::{ExtractorConfig, Target};
use crate::gate::{Gate, Selection};
use crate::method::{Depth, Lora, Method, Position, Prompts};
use crate::problem::{Place, Problems, allowed};
use crate::recipe::{BackboneRecipe, Base, ExtractorRecipe, Pretraining, Space, UnetRecipe};
use crate::scale::{DeviceKind, Dtype, Engine, Numerics, Optimisation, Scale};
use crate::text::{ClipFormula, TextEncoder};
use crate::tree::Node;
use crate::unet::UnetConfig;

/// A checked file: notes problems at the place of a dotted path.
pub(crate) struct Checked<'a> {
    pub(crate) node: &'a Node,
    pub(crate) problems: &'a mut Problems,
}

impl Checked<'_> {
    fn require(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.problems.add(&self.node.place_of(path), format!("`{path}` {}", message()));
        }
    }

    /// A diffusion transformer: heads divide the width, patches divide the image, the sine-cosine table needs `D % 4 = 0`.
    fn dit(&mut self, dit: &DitConfig) {
        let DitConfig { hidden, heads, patch, image_size, .. } = *dit;
        self.require(hidden % heads == 0, "dit.heads", || {
            format!("must divide the width: {hidden} is no multiple of {heads}")
        });
        self.require(image_size % patch == 0, "dit.patch", || {
            format!("must divide the image: {image_size} is no multiple of {patch}")
        });
        self.require(hidden % 4 == 0, "dit.hidden", || {
            format!("must be a multiple of 4 (position table), found `{hidden}`")
        });
        self.require(dit.is_conditional() || dit.label_dropout == 0.0, "dit.label_dropout", || {
            "must be 0 without classes: there is no label to drop".to_owned()
        });
        self.require(dit.classes.is_none() || dit.text_width.is_none(), "dit.text_width", || {
            "takes the place of classes: leave it out, or set `classes: null`".to_owned()
        });
    }

    /// A UNet: a switch for each width, groups and heads divide widths, halvings the image, two halves of timestep features.
    fn shape_of_unet(&mut self, unet: &UnetConfig) {
        let UnetConfig { widths, attending, heads, groups, image_size, .. } = unet;
        let levels = widths.len();
        self.require(attending.len() == levels, "unet.attending", || {
            format!("must have a switch for each of {levels} widths, found {}", attending.len())
        });
        let odd = widths.iter().find(|width| *width % groups != 0);
        self.require(odd.is_none(), "unet.groups", || {
            format!("must divide all widths: {} is no multiple of {groups}", odd.unwrap_or(&0))
        });
        // The middle attends too, at the last width.
        let attends = |&(level, _): &(usize, &usize)| level + 1 == levels || attending.get(level) == Some(&true);
        let odd = widths.iter().enumerate().filter(attends).find(|(_, width)| *width % heads != 0);
        self.require(odd.is_none(), "unet.heads", || {
            format!(
                "must divide the widths that attend: {} is no multiple of {heads}",
                odd.map_or(0, |(_, width)| *width)
            )
        });
        let divisor = 1_usize.checked_shl(levels as u32 - 1).unwrap_or(usize::MAX);
        self.require(image_size % divisor == 0, "unet.image_size", || {
            format!(
                "must be a multiple of {divisor}, so that {} halvings leave whole maps, found `{image_size}`",
                levels - 1
            )
        });
        self.require(widths[0] % 2 == 0, "unet.widths", || {
            format!("must begin with an even one (sines and cosines of the timestep), found `{}`", widths[0])
        });
    }

    /// Text conditions a network that reads vectors of the encoder's width, and no other.
    fn text(&mut self, base: &Base) {
        let (width, key) = (
            base.denoiser.text_width(),
            match &base.denoiser {
                Denoiser::Dit(_) => "dit.text_width",
                Denoiser::Unet(_) => "unet.context",
            },
        );
        let Some(text) = &base.text else {
            return self.require(width.is_none(), key, || {
                "needs an encoder: `text: {kind: clip_formula, ...}` or `{kind: clip, ...}`".to_owned()
            });
        };
        self.require(width == Some(text.width()), "text", || {
            format!(
                "has embeddings of width {0}: the network must say `{key}: {0}`, found {1}",
                text.width(),
                width.map_or("none".to_owned(), |width| format!("`{width}`"))
            )
        });
        if let TextEncoder::ClipFormula(ClipFormula { width, heads, .. }) = &**text {
            self.require(width % heads == 0, "text.heads", || {
                format!("must divide the width: {width} is no multiple of {heads}")
            });
        }
    }

    fn optimisation(&mut self, optimisation: &Optimisation, numerics: &Numerics) {
        let Optimisation { iterations, warmup_iterations, micro_batch, batch, .. } = *optimisation;
        self.micro_batch("optimisation.micro_batch", micro_batch, batch, numerics);
        self.require(warmup_iterations <= iterations, "optimisation.warmup_iterations", || {
            format!("must be at most the iterations ({iterations}), found `{warmup_iterations}`")
        });
    }

    fn numerics(&mut self, numerics: &Numerics) {
        self.require(numerics.dtype == Dtype::F32 || is_fast_on_gpu(numerics), "numerics.dtype", || {
            "must be `f32`: only the engine `fast` on `cuda` has `bf16`".to_owned()
        });
    }

    fn micro_batch(&mut self, path: &str, part: Option<NonZeroUsize>, batch: usize, numerics: &Numerics) {
        let Some(part) = part else { return };
        self.require(is_fast_on_gpu(numerics), path, || {
            "is for the engine `fast` on `cuda` alone: leave it out".to_owned()
        });
        self.require(batch.is_multiple_of(part.get()), path, || format!("must divide the batch of {batch}"));
    }

    fn batch(&mut self, path: &str, batch: usize, data: &Dataset) {
        if let Some(count) = data.count() {
            self.require(batch <= count, path, || {
                format!("must be at most the number of images ({count}), found `{batch}`")
            });
        }
    }

    /// An autoencoder, and a network that sees its latents: whole groups of channels, and as many channels as latents have.
    fn latents(&mut self, shape: &VaeConfig, denoiser: &Denoiser) {
        let VaeConfig { latent_channels, groups, .. } = *shape;
        let odd = shape.widths.iter().find(|width| *width % groups != 0);
        self.require(odd.is_none(), "space.autoencoder.shape.groups", || {
            format!("must divide all widths: {} is no multiple of {groups}", odd.unwrap_or(&0))
        });
        let found = denoiser.channels();
        self.require(found == latent_channels, &format!("{}.channels", denoiser.key()), || {
            format!("must be {latent_channels}, the channels of a latent, found `{found}`")
        });
    }

    pub(crate) fn backbone(&mut self, recipe: &BackboneRecipe) {
        let base = recipe.base();
        self.dit(&recipe.dit);
        self.base(&base);
        self.training(&recipe.training(), &base);
    }

    pub(crate) fn unet(&mut self, recipe: &UnetRecipe) {
        let base = recipe.base(false);
        self.shape_of_unet(&recipe.unet);
        self.base(&base);
        if let Some(training) = &recipe.training {
            Checked { node: self.node.descend("training"), problems: self.problems }.training(training, &base);
        }
    }

    /// How a backbone is trained from scratch, with the numerics that its network has.
    fn training(&mut self, training: &Pretraining, base: &Base) {
        let Pretraining { data, optimisation, numerics, .. } = training;
        self.numerics(numerics);
        self.optimisation(optimisation, &base.denoiser.numerics(numerics));
        self.batch("optimisation.batch", optimisation.batch, data);
        self.images("data", data, base);
    }

    /// What a backbone's network, space, text and diffusion have to do with each other.
    fn base(&mut self, base: &Base) {
        match &base.space {
            Space::Pixels(_) => {}
            Space::Latents(latents) => self.latents(latents.autoencoder.shape(), &base.denoiser),
        }
        self.text(base);
        let (least, found) = (base.diffusion.shortest(), base.diffusion.timesteps);
        self.require(found >= least, "diffusion.timesteps", || {
            format!("must be at least {least} with this schedule, found `{found}`")
        });
    }

    /// Images are what the backbone sees: their side (over that of a latent), their channels, their labels.
    fn images(&mut self, path: &str, data: &Dataset, base: &Base) {
        let denoiser = &base.denoiser;
        let seen = denoiser.image_size();
        let (side, channels, whose) = match &base.space {
            Space::Pixels(_) => (seen, denoiser.channels(), "backbone"),
            Space::Latents(latents) => {
                let VaeConfig { image_channels, .. } = *latents.autoencoder.shape();
                (seen.saturating_mul(latents.autoencoder.shape().downsampling()), image_channels, "autoencoder")
            }
        };
        let found = data.image_size();
        let at = format!("{path}.image_size");
        self.require(found == side, &at, || {
            let of = if whose == "backbone" { String::new() } else { format!(" in latents of {seen}") };
            format!("must be {side}, which the backbone sees{of}, found `{found}`")
        });
        self.channels(path, data, channels, whose);
        self.require(denoiser.classes().is_none() || data.has_labels(), path, || {
            "has no labels, but the backbone is class-conditional".to_owned()
        });
        self.require(denoiser.text_width().is_none() || data.has_captions(), path, || {
            "has no captions, but the backbone is conditioned on text; use `kind: captions`, `web_dataset` or `faces`"
                .to_owned()
        });
    }

    fn channels(&mut self, path: &str, data: &Dataset, channels: usize, whose: &str) {
        let found = data.channels();
        self.require(found == channels, path, || {
            format!("has images with {found} channels, but the {whose} has {channels}")
        });
    }

    pub(crate) fn extractor(&mut self, recipe: &ExtractorRecipe) {
        let ExtractorRecipe { extractor, data, held_out, optimisation, .. } = recipe;
        self.numerics(&recipe.numerics);
        self.optimisation(optimisation, &recipe.numerics);
        self.batch("optimisation.batch", optimisation.batch, data);
        let ExtractorConfig { image_size, widths, target, .. } = extractor;
        let halvings = widths.len() as u32 - 1;
        self.require(image_size.checked_shr(halvings).unwrap_or(0) >= 1, "extractor.widths", || {
            format!("halves a side of {image_size} {halvings} times: nothing is left")
        });
        let found = data.image_size();
        self.require(found == *image_size, "data.image_size", || {
            format!("must be {image_size}, which the extractor sees, found `{found}`")
        });
        self.channels("data", data, extractor.channels, "extractor");
        match target {
            Target::Factors => self.require(matches!(data, Dataset::Faces(_)), "extractor.target", || {
                "can be `factors` for procedural images only; use `labels`".to_owned()
            }),
            Target::Labels => self.require(data.has_labels(), "extractor.target", || {
                "can be `labels` for labelled images only; use `factors`".to_owned()
            }),
        }
        let count = data.count();
        self.require(count.is_none_or(|count| count.checked_add(*held_out).is_some()), "held_out", || {
            "is too large".to_owned()
        });
    }

    /// A scale with the recipes it names.
    pub(crate) fn scale(&mut self, scale: &Scale, backbone: &Base, extractor: Option<&ExtractorConfig>) {
        self.numerics(&scale.numerics);
        self.images("data", &scale.data, backbone);
        self.batch("train.batch", scale.train.batch, &scale.data);
        self.micro_batch("train.micro_batch", scale.train.micro_batch, scale.train.batch, &scale.numerics);
        let rate = scale.train.learning_rate * scale.train.learning_rate_multiplier;
        self.require(rate.is_finite(), "train.learning_rate_multiplier", || {
            "makes the learning rate infinite".to_owned()
        });

        let sampler = &scale.sample.sampler;
        let timesteps = backbone.diffusion.timesteps;
        let misfit = sampler.misfit(timesteps);
        self.require(misfit.is_none(), "sample.sampler.steps", || misfit.unwrap_or_default());
        self.require(!sampler.clip_x0 || backbone.space.latents().is_none(), "sample.sampler.clip_x0", || {
            "must be false: latents reach beyond [-1, 1]".to_owned()
        });
        let guidable = backbone.denoiser.is_conditional() && backbone.denoiser.label_dropout() > 0.0;
        self.require(sampler.guidance == 1.0 || guidable, "sample.sampler.guidance", || {
            "must be 1: the backbone has no null label to be guided away from".to_owned()
        });
        let shown = scale.evaluation.activation_timesteps;
        self.require(shown <= timesteps, "evaluation.activation_timesteps", || {
            format!("must be at most the process's length ({timesteps}), found `{shown}`")
        });

        let data = scale.data.image_size();
        if let Some(extractor) = extractor {
            self.require(extractor.image_size == data, "extractor.recipe", || {
                format!("sees images of side {}, but the samples have {data}", extractor.image_size)
            });
            self.channels("data", &scale.data, extractor.channels, "extractor");
        }
        if let Some(images) = scale.evaluation.reference.images() {
            self.judged("evaluation.reference", images, data, extractor);
        }
        if let Some(coverage) = &scale.evaluation.coverage {
            self.judged("evaluation.coverage", coverage, data, extractor);
        }
        if let Some(floor) = &scale.evaluation.floor {
            self.floor(floor, scale, extractor);
        }
    }

    /// Real images that the extractor looks at: as large as samples, and with as many channels as it takes.
    fn judged(&mut self, path: &str, images: &Dataset, side: usize, extractor: Option<&ExtractorConfig>) {
        let found = images.image_size();
        self.require(found == side, &format!("{path}.image_size"), || {
            format!("must be {side}, the side of the samples, found `{found}`")
        });
        if let Some(extractor) = extractor {
            self.channels(path, images, extractor.channels, "extractor");
        }
    }

    /// Real images that are judged like samples: as many, and none of the reference.
    fn floor(&mut self, floor: &Dataset, scale: &Scale, extractor: Option<&ExtractorConfig>) {
        self.judged("evaluation.floor", floor, scale.data.image_size(), extractor);
        let samples = scale.sample.count;
        match floor.count() {
            Some(count) => self.require(count >= samples, "evaluation.floor.count", || {
                format!("must be at least the number of samples ({samples}), found `{count}`")
            }),
            None => self.require(false, "evaluation.floor", || {
                "must say how many images it has, so that as many as samples are taken: not a folder of images"
                    .to_owned()
            }),
        }
        let judged = floor.head(samples);
        let reference = scale.evaluation.reference.images();
        self.require(!reference.is_some_and(|images| judged.overlaps(images)), "evaluation.floor.first", || {
            format!("must leave the reference out: of its first {samples} images some are in it")
        });
    }

    /// A method on a backbone: at least one prompt exists, at least one is kept, no more blocks have prompts than there
    /// are, and a low rank is none above the width; on a UNet, what has a meaning there.
    pub(crate) fn method(&mut self, method: &Method, denoiser: &Denoiser) {
        let dit = match denoiser {
            Denoiser::Dit(dit) => dit,
            Denoiser::Unet(_) => {
                let unfit = method.unfit_for_unet();
                return unfit.map_or((), |(path, why)| self.require(false, path, || why.to_owned()));
            }
        };
        let (prompts, gate) = match method {
            Method::Pretrained(_) | Method::Finetune(_) => return,
            Method::Lora(Lora { rank, .. }) => {
                return self.require(*rank <= dit.hidden, "rank", || {
                    format!("must be at most the backbone's width ({}), found `{rank}`", dit.hidden)
                });
            }
            Method::PromptTuning(tuning) => (&tuning.prompts, None),
            Method::Dmp(dmp) => (&dmp.prompts, Some(&dmp.gate)),
        };
        let Prompts { position, depth, .. } = prompts;
        if let Depth::Blocks(blocks) = *depth {
            self.require(blocks <= dit.depth, "prompts.depth.blocks", || {
                format!("must be at most the backbone's blocks ({}), found `{blocks}`; `all` is all of them", dit.depth)
            });
        }
        let tokens = dit.tokens();
        let count = position.prompts(tokens);
        if let Position::Prepend(prepend) = position {
            self.require(count >= 1, "prompts.position.per_256_tokens", || {
                format!("leaves no prompt: round({tokens} tokens * {} / 256) = 0", prepend.per_256_tokens)
            });
        }
        if let Some(Gate { selection: Selection::TopK(top_k), .. }) = gate {
            self.require(top_k.kept(count) >= 1 || count == 0, "gate.selection.keep", || {
                format!("keeps no prompt: floor({} * {count}) = 0", top_k.keep)
            });
        }
    }
}

/// Names of groups and cells are parts of paths and commands.
pub(crate) fn name(name: &str, place: &Place, problems: &mut Problems) {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        problems.add(place, format!("the name `{name}` must be made of lowercase letters, digits and underscores"));
    }
}

/// Claims with where they were written: ids are unique, contrasts name claims and agree with the printed values.
pub(crate) fn claims(claims: &[(Claim, Node)], problems: &mut Problems) {
    for (i, (claim, node)) in claims.iter().enumerate() {
        if let Some((_, first)) = claims[..i].iter().find(|(other, _)| other.id == claim.id) {
            let first = first.place_of("id");
            problems.add(&node.place_of("id"), format!("duplicate claim `{}`; it is first at {first}", claim.id));
        }
        let contrasts = node.descend("contrasts");
        for (against, expected) in &claim.contrasts {
            let Some((other, _)) = claims.iter().find(|(other, _)| other.id == *against) else {
                let hint = allowed(against, claims.iter().map(|(claim, _)| claim.id.as_str()));
                problems.add(&contrasts.place_of_key(against), format!("unknown claim `{against}`{hint}"));
                continue;
            };
            if claim.metric != other.metric {
                let message = format!("`{}` and `{against}` are claims on different metrics", claim.id);
                problems.add(&contrasts.place_of_key(against), message);
            }
            if let (Some(a), Some(b)) = (claim.value, other.value)
                && !expected.holds(a, b)
            {
                let than = if *expected == Direction::Equal { "to" } else { "than" };
                let message = format!("`{}` ({a}) is not {expected} {than} `{against}` ({b})", claim.id);
                problems.add(&contrasts.place_of_key(against), message);
            }
        }
    }
}

/// Whether the hand-written engine is meant on a GPU.
fn is_fast_on_gpu(numerics: &Numerics) -> bool {
    (numerics.engine, numerics.device) == (Engine::Fast, DeviceKind::Cuda)
}
