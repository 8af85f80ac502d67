//! Names of the original Stable Diffusion checkpoints, and back.

use models::architecture::Architecture;
use models::weights::names::Family;
use models::weights::{Tensor, Weights};

#[test]
fn every_name_of_every_network_comes_back() {
    for architecture in Architecture::ALL {
        let shapes = architecture.shapes().unwrap();
        let names: Vec<&str> = shapes.iter().map(|(name, _)| name.as_str()).collect();
        let originals = architecture.family().original(&names);
        let distinct: std::collections::BTreeSet<&String> = originals.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{architecture}");
        let originals: Vec<&str> = originals.iter().map(String::as_str).collect();
        let back = architecture.family().translate(&originals);
        for ((name, original), back) in names.iter().zip(&originals).zip(back) {
            assert_eq!(back.as_deref(), Some(*name), "{architecture}: {original}");
        }
    }
}

/// Names as the published checkpoints have them.
#[test]
fn names_are_those_of_stable_diffusion() {
    for (architecture, pairs) in [
        (
            Architecture::SdVae,
            &[
                ("decoder.up_blocks.0.resnets.0.conv1.weight", "decoder.up.3.block.0.conv1.weight"),
                ("decoder.up_blocks.2.resnets.0.conv_shortcut.bias", "decoder.up.1.block.0.nin_shortcut.bias"),
                ("encoder.down_blocks.0.downsamplers.0.conv.bias", "encoder.down.0.downsample.conv.bias"),
                ("encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"),
                ("encoder.mid_block.resnets.1.norm2.bias", "encoder.mid.block_2.norm2.bias"),
                ("decoder.conv_norm_out.weight", "decoder.norm_out.weight"),
                ("post_quant_conv.weight", "post_quant_conv.weight"),
            ][..],
        ),
        (
            Architecture::SdUnet,
            &[
                ("conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight"),
                ("down_blocks.0.downsamplers.0.conv.weight", "model.diffusion_model.input_blocks.3.0.op.weight"),
                ("down_blocks.3.resnets.1.conv2.bias", "model.diffusion_model.input_blocks.11.0.out_layers.3.bias"),
                ("mid_block.attentions.0.proj_in.weight", "model.diffusion_model.middle_block.1.proj_in.weight"),
                ("up_blocks.0.upsamplers.0.conv.weight", "model.diffusion_model.output_blocks.2.1.conv.weight"),
                ("up_blocks.1.upsamplers.0.conv.weight", "model.diffusion_model.output_blocks.5.2.conv.weight"),
                ("up_blocks.3.attentions.2.norm.bias", "model.diffusion_model.output_blocks.11.1.norm.bias"),
                ("time_embedding.linear_2.bias", "model.diffusion_model.time_embed.2.bias"),
            ],
        ),
    ] {
        let shapes = architecture.shapes().unwrap();
        let names: Vec<&str> = shapes.iter().map(|(name, _)| name.as_str()).collect();
        let originals = architecture.family().original(&names);
        for (name, original) in pairs {
            let at = names.iter().position(|n| n == name).unwrap_or_else(|| panic!("{architecture} has no {name}"));
            assert_eq!(originals[at], *original);
        }
    }
}

#[test]
fn projections_become_convolutions_of_one_pixel() {
    let name = "decoder.mid_block.attentions.0.to_q.weight";
    let matrix = Tensor { shape: vec![2, 2], values: vec![1.0, 2.0, 3.0, 4.0] };
    let original = Family::Vae.into_original(Weights::from([(name.to_owned(), matrix.clone())]));
    let found = &original["decoder.mid.attn_1.q.weight"];
    assert_eq!((found.shape.as_slice(), &found.values), (&[2, 2, 1, 1][..], &matrix.values));
}
