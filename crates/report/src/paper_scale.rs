//! Whether a table was run at the paper's own scale.

use manifest::dataset::Dataset;
use manifest::dit::DitConfig;
use manifest::plan::Table;
use manifest::recipe::Space;
use manifest::scale::{Extractor, SamplerKind};

use crate::protocol::PAPER_LEARNING_RATE;

/// Samples behind each of the paper's distances (the released configuration).
const PAPER_SAMPLES: usize = 50_000;
/// Steps of its sampler, DDPM.
const PAPER_STEPS: usize = 250;
/// Images in a step of its further training.
const PAPER_BATCH: usize = 128;

/// The paper's own backbone, size, extractor, images and settings, with nothing overridden: only there can its sizes be reproduced.
/// On Stable Diffusion they cannot: neither its images of LAION nor the steps of PNDM are said.
pub(crate) fn is_paper_scale(table: &Table) -> bool {
    let (scale, train, sample) = (&table.scale, &table.scale.train, &table.scale.sample);
    // Without a pinned hash nobody can say which weights lie there: neither the metric nor the backbone is the paper's.
    let inception = matches!(&scale.extractor, Extractor::Inception(inception) if inception.is_published());
    let backbone = scale.backbone.weights.as_ref().is_some_and(|weights| weights.sha256.is_some())
        && table.denoiser.dit().is_some_and(|dit| is_shaped(dit, &table.paper.backbone));
    let encoded = match &table.space {
        Space::Latents(latents) => latents.autoencoder.weights().is_some_and(|weights| weights.sha256.is_some()),
        Space::Pixels(_) => false,
    };
    let trained = train.iterations == table.paper.further_iterations
        && train.batch == PAPER_BATCH
        && train.learning_rate * train.learning_rate_multiplier == PAPER_LEARNING_RATE;
    let sampler = &sample.sampler;
    let sampled = sample.count == PAPER_SAMPLES
        && sampler.steps == PAPER_STEPS
        && sampler.kind == SamplerKind::Ddpm
        && !sampler.clip_x0;
    // Of which images published statistics are, nobody can say.
    let images = [Some(&scale.data), scale.evaluation.reference.images()]
        .iter()
        .all(|images| images.is_some_and(|images| is_called(images, &table.paper.dataset)));
    table.scale_name == "paper"
        && table.overrides.is_empty()
        && inception
        && backbone
        && encoded
        && trained
        && sampled
        && images
}

/// Whether a network has the shape of the paper's name for it, on the latents of 256 x 256 images (DiT, Peebles & Xie
/// 2023, Table 1): `DiT-B/2` is 12 blocks of width 768 with 12 heads, in patches of 2 x 2.
fn is_shaped(dit: &DitConfig, name: &str) -> bool {
    let shape = |dit: &DitConfig| {
        let trunk = (dit.depth, dit.hidden, dit.heads, dit.patch);
        (trunk, dit.image_size, dit.channels, dit.learn_sigma)
    };
    DitConfig::published(name, dit.classes).is_some_and(|published| shape(&published) == shape(dit))
}

/// Whether all of a folder of images (or of classes) is meant, and it bears the name that the paper gives its images
/// (`FFHQ 256`: `ffhq256`, in 256 x 256).
fn is_called(images: &Dataset, name: &str) -> bool {
    let (Dataset::ImageFolder(folder) | Dataset::ClassFolders(folder)) = images else { return false };
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
    };
    folder.count.is_none()
        && plain(&folder.folder) == plain(name)
        && plain(name).ends_with(&folder.image_size.to_string())
}
