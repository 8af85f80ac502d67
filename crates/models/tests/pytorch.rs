//! Files that PyTorch wrote (`pytorch/README.md` says how), and files that PyTorch is to read.

use std::path::{Path, PathBuf};

use models::weights::names::Family;
use models::weights::{self, Element, Format, Tensor, WeightFile, Weights, WeightsError, torch};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch").join(name)
}

fn open(name: &str, part: Option<&str>) -> WeightFile {
    WeightFile::open(&path(name), part).unwrap_or_else(|error| panic!("{error}"))
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor { shape: shape.to_vec(), values: values.to_vec() }
}

#[test]
fn every_type_of_number() {
    let mut file = open("types.pt", None);
    let types: Vec<(String, Element)> = file.tensors().map(|(name, element, _)| (name.to_owned(), element)).collect();
    assert_eq!(types.len(), 13);
    for (name, element) in types {
        assert_eq!(format!("{element:?}").to_lowercase(), name);
    }
    for (name, Tensor { shape, values }) in file.read().unwrap() {
        assert_eq!(shape, [4], "{name}");
        let expected = match &name[..] {
            "bf16" => [0.0, 1.5, -2.0, 100.0],
            "bool" => [0.0, 1.0, 1.0, 1.0],
            float if float.starts_with('f') => [0.0, 1.5, -2.0, 100.25],
            signed if signed.starts_with('i') => [0.0, 1.0, -2.0, 100.0],
            _ => [0.0, 1.0, 2.0, 100.0],
        };
        assert_eq!(values, expected, "{name}");
    }
}

#[test]
fn views_of_one_storage_in_both_formats() {
    let base: Vec<f32> = (0..12).map(|n| n as f32).collect();
    let transposed: Vec<f32> = (0..12).map(|n| (n % 3 * 4 + n / 3) as f32).collect();
    let expected = Weights::from([
        ("whole".to_owned(), tensor(&[3, 4], &base)),
        ("transposed".to_owned(), tensor(&[4, 3], &transposed)),
        ("row".to_owned(), tensor(&[4], &base[4..8])),
        ("column".to_owned(), tensor(&[3], &[2.0, 6.0, 10.0])),
        ("stepped".to_owned(), tensor(&[2, 3], &[1.0, 2.0, 3.0, 9.0, 10.0, 11.0])),
        ("expanded".to_owned(), tensor(&[3], &[1.0, 1.0, 1.0])),
        ("scalar".to_owned(), tensor(&[], &[7.0])),
        ("empty".to_owned(), tensor(&[0, 3], &[])),
    ]);
    assert_eq!(open("views.pt", None).read().unwrap(), expected);
    assert_eq!(open("views-legacy.pt", None).read().unwrap(), expected);
    assert_eq!(weights::read(&path("views.pt")).unwrap(), expected);
}

#[test]
fn a_checkpoint_gives_the_part_that_is_asked_for() {
    for name in ["checkpoint.pt", "checkpoint-5.pt"] {
        for (part, value) in [(None, [5.0, 5.0]), (Some("ema"), [5.0, 5.0]), (Some("model"), [1.0, 0.0])] {
            let mut file = open(name, part);
            assert_eq!(file.part(), part.unwrap_or("ema"));
            assert_eq!(file.parts(), ["model", "ema"], "the optimiser's states are no network");
            assert_eq!(file.skipped(), ["argparse.Namespace"]);
            let weights = file.read().unwrap();
            assert_eq!(weights.keys().collect::<Vec<_>>(), ["a.bias", "a.weight"], "the wrapper's prefix is gone");
            assert_eq!((weights["a.weight"].values[3], weights["a.bias"].values[1]), (value[0], value[1]));
        }
        let error = WeightFile::open(&path(name), Some("emma")).unwrap_err();
        assert!(matches!(error, WeightsError::Part { .. }));
        let message = error.to_string();
        assert!(message.contains("no part \"emma\"; choose one of its parts: model, ema"), "{message}");
    }
    let mut legacy = open("checkpoint.th", None);
    assert_eq!((legacy.part(), legacy.format()), ("state_dict", Format::PyTorch));
    assert!(legacy.tensors().all(|(_, element, _)| element == Element::F16));
    assert_eq!(legacy.read().unwrap()["a.weight"], tensor(&[2, 2], &[1.0; 4]));

    let message = WeightFile::open(&path("two.pt"), None).unwrap_err().to_string();
    assert!(message.contains("several state dicts; choose one of its parts: encoder, decoder"), "{message}");
    assert_eq!(open("two.pt", Some("decoder")).read().unwrap()["w"].values, [1.0, 1.0]);
}

#[test]
fn whole_modules_and_torchscript_give_their_state_dicts() {
    let weights = open("module.pt", None).read().unwrap();
    let names = [
        "first.weight",
        "first.bias",
        "rest.0.weight",
        "rest.0.bias",
        "rest.0.running_mean",
        "rest.0.running_var",
        "rest.0.num_batches_tracked",
        "rest.1.weight",
    ];
    assert_eq!(weights.len(), names.len());
    for (number, name) in names.iter().enumerate() {
        assert!(weights[*name].values.iter().all(|&value| value == number as f32), "{name}");
    }
    assert_eq!(weights["first.weight"].shape, [1, 2]);

    let weights = open("scripted.pt", None).read().unwrap();
    assert_eq!(weights.len(), 6);
    for (name, value) in [("layers.0", 1.0), ("layers.1", 2.0), ("output", 4.0)] {
        assert_eq!(weights[&format!("{name}.weight")], tensor(&[2], &[value, value]));
        assert_eq!(weights[&format!("{name}.shift")], tensor(&[1], &[-value]));
    }
}

#[test]
fn a_file_for_another_model_is_refused_before_its_numbers_are_read() {
    let shapes = [("a.bias".to_owned(), vec![4]), ("c.weight".to_owned(), vec![1])];
    let message = open("checkpoint.pt", None).check(&shapes).unwrap_err().to_string();
    for part in ["checkpoint.pt", "a.bias has shape [2], expected [4]", "missing c.weight [1]", "unexpected a.weight"] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
    let mut file = open("checkpoint.pt", None);
    file.keep(&[("a.bias".to_owned(), vec![2])]).unwrap();
    assert_eq!(file.read().unwrap().keys().collect::<Vec<_>>(), ["a.bias"]);
    assert!(matches!(open("checkpoint.pt", None).keep(&shapes), Err(WeightsError::Keys { .. })));
}

#[test]
fn what_is_written_for_pytorch_is_read_back() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("written");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("patch.pt");
    let patch = Weights::from([
        ("prompt_embeddings".to_owned(), tensor(&[2, 3, 2], &[0.5; 12])),
        ("gate.bias".to_owned(), tensor(&[3], &[1.0, -0.0, f32::MIN_POSITIVE])),
        ("scale".to_owned(), tensor(&[], &[3.0])),
        ("none".to_owned(), tensor(&[0, 2], &[])),
    ]);
    for part in [None, Some("model")] {
        let hash = torch::write(&path, &patch, part).unwrap();
        assert_eq!(hash, torch::write(&path, &patch, part).unwrap(), "the same tensors are the same bytes");
        assert_eq!(WeightFile::open_checked(&path, &hash, None).unwrap().read().unwrap(), patch);
        let file = WeightFile::open(&path, part).unwrap();
        assert_eq!(file.part(), part.unwrap_or("."));
    }
    let lies = Weights::from([("a".to_owned(), Tensor { shape: vec![5], values: vec![0.0] })]);
    assert!(matches!(torch::write(&path, &lies, None), Err(WeightsError::Format { .. })));
}

#[test]
fn names_of_other_programs_become_those_here() {
    let pairs = [
        (Family::Vae, "encoder.mid_block.attentions.0.query.weight", "encoder.mid_block.attentions.0.to_q.weight"),
        (Family::Vae, "decoder.mid_block.attentions.0.proj_attn.bias", "decoder.mid_block.attentions.0.to_out.0.bias"),
        (Family::Vae, "encoder.down.0.block.1.conv1.weight", "encoder.down_blocks.0.resnets.1.conv1.weight"),
        (Family::Vae, "encoder.down.1.block.0.nin_shortcut.bias", "encoder.down_blocks.1.resnets.0.conv_shortcut.bias"),
        (Family::Vae, "encoder.down.2.downsample.conv.bias", "encoder.down_blocks.2.downsamplers.0.conv.bias"),
        (Family::Vae, "decoder.up.3.block.2.norm1.bias", "decoder.up_blocks.0.resnets.2.norm1.bias"),
        (Family::Vae, "decoder.up.1.upsample.conv.weight", "decoder.up_blocks.2.upsamplers.0.conv.weight"),
        (Family::Vae, "decoder.mid.attn_1.proj_out.weight", "decoder.mid_block.attentions.0.to_out.0.weight"),
        (Family::Vae, "decoder.mid.attn_1.norm.weight", "decoder.mid_block.attentions.0.group_norm.weight"),
        (Family::Vae, "decoder.mid.block_2.conv2.bias", "decoder.mid_block.resnets.1.conv2.bias"),
        (Family::Vae, "decoder.norm_out.bias", "decoder.conv_norm_out.bias"),
        (Family::Vae, "post_quant_conv.bias", "post_quant_conv.bias"),
        (Family::Unet, "time_embed.2.bias", "time_embedding.linear_2.bias"),
        (Family::Unet, "input_blocks.0.0.weight", "conv_in.weight"),
        (Family::Unet, "input_blocks.1.0.in_layers.0.weight", "down_blocks.0.resnets.0.norm1.weight"),
        (Family::Unet, "input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
        (Family::Unet, "input_blocks.8.1.proj_in.bias", "down_blocks.2.attentions.1.proj_in.bias"),
        (Family::Unet, "input_blocks.11.0.out_layers.3.bias", "down_blocks.3.resnets.1.conv2.bias"),
        (Family::Unet, "middle_block.2.emb_layers.1.bias", "mid_block.resnets.1.time_emb_proj.bias"),
        (Family::Unet, "output_blocks.2.1.conv.bias", "up_blocks.0.upsamplers.0.conv.bias"),
        (Family::Unet, "output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
        (Family::Unet, "output_blocks.9.0.skip_connection.bias", "up_blocks.3.resnets.0.conv_shortcut.bias"),
        (Family::Unet, "out.2.bias", "conv_out.bias"),
        (Family::ClipText, "text_model.final_layer_norm.bias", "final_layer_norm.bias"),
        (Family::Inception, "fc.weight", "fc.weight"),
        (Family::Dit, "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.weight"),
    ];
    let keys: serde_json::Value = serde_json::from_str(&goldens::model_keys()).unwrap();
    let full = |family| match family {
        Family::Dit | Family::PatchedDit => "DiT-XL/2:cond:FT",
        Family::Vae => "sd-vae-ft-ema",
        Family::Unet => "sd-v1-5-unet",
        Family::ClipText => "clip-vit-l-14-text",
        Family::Inception => "fid-inception-v3",
    };
    for (family, theirs, ours) in pairs {
        // The topmost level tells how many there are.
        let names = [theirs, "decoder.up.3.block.0.norm1.weight"];
        assert_eq!(family.translate(&names)[0].as_deref(), Some(ours));
        assert!(keys[full(family)]["tensors"][ours].is_array(), "{ours}");
        let own: Vec<&str> = keys[full(family)]["tensors"].as_object().unwrap().keys().map(String::as_str).collect();
        for (own, kept) in own.iter().zip(family.translate(&own)) {
            assert!(kept.as_deref() == Some(*own) || own.ends_with("num_batches_tracked"), "{own} became {kept:?}");
        }
    }
    let whole = ["first_stage_model.encoder.conv_in.bias", "model.diffusion_model.out.0.bias", "betas"];
    assert_eq!(Family::Vae.translate(&whole), [Some("encoder.conv_in.bias".to_owned()), None, None]);
    assert_eq!(Family::Unet.translate(&whole), [None, Some("conv_norm_out.bias".to_owned()), None]);
    assert_eq!(Family::ClipText.translate(&["text_model.embeddings.position_ids"]), [None]);
}

#[test]
fn a_convolution_of_one_pixel_becomes_a_matrix_where_it_is_one_here() {
    let path = Path::new("vae.safetensors");
    let old = Weights::from([
        ("encoder.mid.attn_1.q.weight".to_owned(), tensor(&[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0])),
        ("quant_conv.weight".to_owned(), tensor(&[1, 1, 1, 1], &[5.0])),
    ]);
    let mut file = WeightFile::from_bytes(path, weights::to_bytes(path, &old).unwrap(), None).unwrap();
    file.translate(Family::Vae);
    let weights = file.read().unwrap();
    assert_eq!(weights["encoder.mid_block.attentions.0.to_q.weight"], tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(weights["quant_conv.weight"].shape, [1, 1, 1, 1]);
}
