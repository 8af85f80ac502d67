//! The other way: names here to those of the original Stable Diffusion checkpoints.

use super::Weights;
use super::names::{Family, numbered, replace_first};

/// Blocks per level of the UNet: two of ResNet (and attention), one that changes the resolution.
const PER_LEVEL: usize = 3;

impl Family {
    /// Names of the original checkpoints for all names of a network. Where these are the names here, they stay.
    pub fn original(self, names: &[&str]) -> Vec<String> {
        let levels = names.iter().filter_map(|name| numbered(name, "decoder.up_blocks.")).map(|(level, _)| level + 1);
        let levels = levels.max().unwrap_or(0);
        let attends =
            |level: usize| names.iter().any(|name| name.starts_with(&format!("up_blocks.{level}.attentions.")));
        let rename = |name: &&str| match self {
            Self::Vae => vae(name, levels),
            Self::Unet => format!("model.diffusion_model.{}", unet(name, attends)),
            Self::ClipText => format!("cond_stage_model.transformer.text_model.{name}"),
            Self::Dit | Self::PatchedDit | Self::Inception => (*name).to_owned(),
        };
        names.iter().map(rename).collect()
    }

    /// The same for weights; what the originals store as a convolution of one pixel gets its shape.
    pub fn into_original(self, weights: Weights) -> Weights {
        let names: Vec<&str> = weights.keys().map(String::as_str).collect();
        let originals = self.original(&names);
        let renamed = originals.into_iter().zip(weights).map(|(original, (name, mut tensor))| {
            if self.is_linear(&name) {
                tensor.shape.resize(4, 1);
            }
            (original, tensor)
        });
        renamed.collect()
    }
}

fn vae(name: &str, levels: usize) -> String {
    for side in ["encoder.", "decoder."] {
        let Some(rest) = name.strip_prefix(side) else { continue };
        let rest = if let Some((level, rest)) = numbered(rest, "down_blocks.") {
            format!("down.{level}.{}", vae_level(rest))
        } else if let Some((level, rest)) = numbered(rest, "up_blocks.") {
            format!("up.{}.{}", levels.saturating_sub(level + 1), vae_level(rest))
        } else if let Some(rest) = rest.strip_prefix("mid_block.attentions.0.") {
            let attention = [
                ("group_norm.", "norm."),
                ("to_q.", "q."),
                ("to_k.", "k."),
                ("to_v.", "v."),
                ("to_out.0.", "proj_out."),
            ];
            format!("mid.attn_1.{}", replace_first(rest, &attention))
        } else {
            let blocks = [("mid_block.resnets.0.", "mid.block_1."), ("mid_block.resnets.1.", "mid.block_2.")];
            replace_first(&replace_first(rest, &blocks), &[("conv_norm_out.", "norm_out.")])
        };
        return format!("{side}{rest}");
    }
    name.to_owned()
}

fn vae_level(name: &str) -> String {
    let kinds = [("resnets.", "block."), ("downsamplers.0.", "downsample."), ("upsamplers.0.", "upsample.")];
    replace_first(name, &kinds).replace(".conv_shortcut.", ".nin_shortcut.")
}

/// `attends` says whether a level on the way up has attention, behind which its upsampling then stands.
fn unet(name: &str, attends: impl Fn(usize) -> bool) -> String {
    let resnet = |rest: &str| {
        let parts = [
            ("norm1.", "in_layers.0."),
            ("conv1.", "in_layers.2."),
            ("time_emb_proj.", "emb_layers.1."),
            ("norm2.", "out_layers.0."),
            ("conv2.", "out_layers.3."),
            ("conv_shortcut.", "skip_connection."),
        ];
        replace_first(rest, &parts)
    };
    // The place within a level, the place within the block, and the rest.
    let part = |rest: &str, change: (&str, usize, &str)| {
        let (changing, behind, called) = change;
        if let Some((place, rest)) = numbered(rest, "resnets.") {
            (place, format!("0.{}", resnet(rest)))
        } else if let Some((place, rest)) = numbered(rest, "attentions.") {
            (place, format!("1.{rest}"))
        } else {
            (PER_LEVEL - 1, format!("{behind}.{}", replace_first(rest, &[(changing, called)])))
        }
    };
    if let Some((level, rest)) = numbered(name, "down_blocks.") {
        let (place, rest) = part(rest, ("downsamplers.0.conv.", 0, "op."));
        format!("input_blocks.{}.{rest}", 1 + level * PER_LEVEL + place)
    } else if let Some((level, rest)) = numbered(name, "up_blocks.") {
        let (place, rest) = part(rest, ("upsamplers.0.conv.", 1 + usize::from(attends(level)), "conv."));
        format!("output_blocks.{}.{rest}", level * PER_LEVEL + place)
    } else if let Some((place, rest)) = numbered(name, "mid_block.resnets.") {
        format!("middle_block.{}.{}", 2 * place, resnet(rest))
    } else {
        let ends = [
            ("mid_block.attentions.0.", "middle_block.1."),
            ("conv_in.", "input_blocks.0.0."),
            ("conv_norm_out.", "out.0."),
            ("conv_out.", "out.2."),
            ("time_embedding.linear_1.", "time_embed.0."),
            ("time_embedding.linear_2.", "time_embed.2."),
        ];
        replace_first(name, &ends)
    }
}
