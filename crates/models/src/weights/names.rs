//! Names of tensors: those of the published checkpoints to those of the networks here.
//!
//! The networks here have the names of the released DiT code, of diffusers (autoencoder, UNet), of transformers (CLIP's
//! text encoder, without `text_model.` in front) and of pytorch-fid (Inception). Names that already are such stay.

/// A network whose published checkpoints name its tensors in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// DiT, always under its own names. A patch of DMP beside it does not belong to it.
    Dit,
    /// DiT and the patch of DMP, in one state dict as the authors have them.
    PatchedDit,
    /// Stable Diffusion's autoencoder: diffusers before 0.18 (`query`, `key`, `value`, `proj_attn`), and the original
    /// checkpoints (`encoder.down.0.block.0`, alone or behind `first_stage_model.`).
    Vae,
    /// Stable Diffusion 1's UNet: diffusers, and the original checkpoints (`input_blocks`, behind
    /// `model.diffusion_model.`).
    Unet,
    /// CLIP's text encoder: transformers, and the original Stable Diffusion checkpoints (behind
    /// `cond_stage_model.transformer.`).
    ClipText,
    /// Inception as pytorch-fid publishes it, where batch counters may be missing and are not needed.
    Inception,
}

impl Family {
    /// Names here for all names of a file; `None` for what does not belong to the network.
    pub fn translate(self, names: &[&str]) -> Vec<Option<String>> {
        let mut own: Vec<Option<&str>> = names.iter().copied().map(Some).collect();
        for prefix in self.prefixes() {
            if own.iter().flatten().any(|name| name.starts_with(prefix)) {
                own.iter_mut().for_each(|name| *name = name.and_then(|name| name.strip_prefix(prefix)));
            }
        }
        let up = |name: &str| numbered(name, "decoder.up.").map(|(level, _)| level + 1);
        let levels = own.iter().flatten().filter_map(|name| up(name)).max().unwrap_or(0);
        let rename = |name: &str| match self {
            Self::Dit => (!PATCH.iter().any(|tensor| name.starts_with(tensor))).then(|| name.to_owned()),
            Self::PatchedDit => Some(name.to_owned()),
            Self::Vae => Some(vae(name, levels)),
            Self::Unet => Some(unet(name)),
            Self::ClipText => (name != "embeddings.position_ids").then(|| name.to_owned()),
            Self::Inception => (!name.ends_with(".num_batches_tracked")).then(|| name.to_owned()),
        };
        own.into_iter().map(|name| rename(name?)).collect()
    }

    /// Whether the tensor `name` is a matrix here that some checkpoints store as a convolution of one pixel.
    pub(super) fn is_linear(self, name: &str) -> bool {
        let projection = [".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight"];
        self == Self::Vae && name.contains(".attentions.") && projection.iter().any(|end| name.ends_with(end))
    }

    /// What stands in front of the network's names in a checkpoint of several networks.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Dit | Self::PatchedDit | Self::Inception => &[],
            Self::Vae => &["first_stage_model."],
            Self::Unet => &["model.diffusion_model."],
            Self::ClipText => &["cond_stage_model.transformer.", "text_model."],
        }
    }
}

/// Beginnings of the names of a patch's tensors.
const PATCH: [&str; 3] = ["prompt_embeddings", "gate.", "w_noise"];

/// `levels` is the decoder's number of levels, which the original checkpoints count from the last.
fn vae(name: &str, levels: usize) -> String {
    for side in ["encoder.", "decoder."] {
        let Some(rest) = name.strip_prefix(side) else { continue };
        let rest = if let Some((level, rest)) = numbered(rest, "down.") {
            format!("down_blocks.{level}.{}", vae_level(rest))
        } else if let Some((level, rest)) = numbered(rest, "up.") {
            format!("up_blocks.{}.{}", levels.saturating_sub(level + 1), vae_level(rest))
        } else if let Some(rest) = rest.strip_prefix("mid.") {
            let rest = replace_first(rest, &[("block_1.", "resnets.0."), ("block_2.", "resnets.1.")]);
            let attention = [("norm.", "group_norm."), ("proj_out.", "to_out.0."), ("q.", "to_q."), ("k.", "to_k.")];
            let rest = match rest.strip_prefix("attn_1.") {
                Some(rest) => {
                    format!("attentions.0.{}", replace_first(rest, &[&attention[..], &[("v.", "to_v.")]].concat()))
                }
                None => rest,
            };
            format!("mid_block.{rest}")
        } else {
            replace_first(rest, &[("norm_out.", "conv_norm_out.")])
        };
        return match rest.split_once(".attentions.0.") {
            Some((block, rest)) => format!("{side}{block}.attentions.0.{}", replace_first(rest, &OLD_ATTENTION)),
            None => format!("{side}{rest}"),
        };
    }
    name.to_owned()
}

/// Attention in diffusers before 0.18.
const OLD_ATTENTION: [(&str, &str); 4] =
    [("query.", "to_q."), ("key.", "to_k."), ("value.", "to_v."), ("proj_attn.", "to_out.0.")];

fn vae_level(name: &str) -> String {
    let name = replace_first(
        name,
        &[("block.", "resnets."), ("downsample.", "downsamplers.0."), ("upsample.", "upsamplers.0.")],
    );
    name.replace(".nin_shortcut.", ".conv_shortcut.")
}

fn unet(name: &str) -> String {
    /// Blocks per level: two of ResNet (and attention), one that changes the resolution.
    const PER_LEVEL: usize = 3;
    if let Some((block, rest)) = numbered(name, "input_blocks.").filter(|(block, _)| *block > 0) {
        let (level, place) = ((block - 1) / PER_LEVEL, (block - 1) % PER_LEVEL);
        let rest = match numbered(rest, "") {
            Some((0, rest)) if place == PER_LEVEL - 1 => replace_first(rest, &[("op.", "downsamplers.0.conv.")]),
            Some((0, rest)) => format!("resnets.{place}.{}", resnet(rest)),
            Some((_, rest)) => format!("attentions.{place}.{rest}"),
            None => rest.to_owned(),
        };
        format!("down_blocks.{level}.{rest}")
    } else if let Some((block, rest)) = numbered(name, "output_blocks.") {
        let (level, place) = (block / PER_LEVEL, block % PER_LEVEL);
        let rest = match numbered(rest, "") {
            Some((0, rest)) => format!("resnets.{place}.{}", resnet(rest)),
            Some((_, rest)) if rest.starts_with("conv.") => format!("upsamplers.0.{rest}"),
            Some((_, rest)) => format!("attentions.{place}.{rest}"),
            None => rest.to_owned(),
        };
        format!("up_blocks.{level}.{rest}")
    } else if let Some((place, rest)) = numbered(name, "middle_block.") {
        match place {
            1 => format!("mid_block.attentions.0.{rest}"),
            _ => format!("mid_block.resnets.{}.{}", place / 2, resnet(rest)),
        }
    } else {
        let ends = [("input_blocks.0.0.", "conv_in."), ("out.0.", "conv_norm_out."), ("out.2.", "conv_out.")];
        let time = [("time_embed.0.", "time_embedding.linear_1."), ("time_embed.2.", "time_embedding.linear_2.")];
        replace_first(&replace_first(name, &ends), &time)
    }
}

fn resnet(name: &str) -> String {
    replace_first(
        name,
        &[
            ("in_layers.0.", "norm1."),
            ("in_layers.2.", "conv1."),
            ("emb_layers.1.", "time_emb_proj."),
            ("out_layers.0.", "norm2."),
            ("out_layers.3.", "conv2."),
            ("skip_connection.", "conv_shortcut."),
        ],
    )
}

/// The number behind `prefix`, and what stands behind the dot behind it.
pub(super) fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((number.parse::<u16>().ok()?.into(), rest))
}

/// `name` with the first of the beginnings that it has replaced.
pub(super) fn replace_first(name: &str, beginnings: &[(&str, &str)]) -> String {
    let found = beginnings.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")));
    found.unwrap_or_else(|| name.to_owned())
}
