//! A text-conditional DiT: captions through the text encoder and the projection are what labels are elsewhere.

use candle_core::{DType, Device, Tensor};
use manifest::dit::DitConfig;
use models::dit::{LABEL_TABLE, PROJECTION, label_table, label_table_backward, named_shapes};
use models::weights::{self, Tensors, Weights, gradients, variables};
use models::{Dit, Unpatched, count};
use random::{Draws, Stream};

const WIDTH: usize = 6;

/// Over three captions.
fn config() -> DitConfig {
    DitConfig {
        image_size: 4,
        channels: 1,
        patch: 2,
        hidden: 8,
        depth: 2,
        heads: 2,
        classes: Some(3),
        text_width: None,
        label_dropout: 0.1,
        learn_sigma: true,
    }
}

fn normals(shape: &[usize], number: u64) -> Vec<f32> {
    let mut values = vec![0.0; shape.iter().product()];
    Draws::new(1, Stream::Init, number).fill_normal(0, &mut values);
    values.iter_mut().for_each(|value| *value *= 0.4);
    values
}

fn tensor(shape: &[usize], number: u64) -> Tensor {
    Tensor::from_vec(normals(shape, number), shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

fn conditioned_on_text() -> DitConfig {
    DitConfig { classes: None, text_width: Some(WIDTH), ..config() }
}

fn text_weights() -> Weights {
    let shapes = named_shapes(&conditioned_on_text()).into_iter().zip(0..);
    let tensor = |((name, shape), number): ((String, Vec<usize>), u64)| {
        let values = normals(&shape, number);
        (name, weights::Tensor { shape, values })
    };
    shapes.map(tensor).collect()
}

#[test]
fn the_projection_stands_in_the_place_of_the_table() {
    let (with_text, with_labels) = (named_shapes(&conditioned_on_text()), named_shapes(&config()));
    assert_eq!(with_text.len(), with_labels.len() + 1);
    let at = with_labels.iter().position(|(name, _)| name == "y_embedder.embedding_table.weight").unwrap();
    assert_eq!(with_text[..at], with_labels[..at]);
    assert_eq!(with_text[at], ("y_embedder.proj.weight".to_owned(), vec![8, WIDTH]));
    assert_eq!(with_text[at + 1], ("y_embedder.proj.bias".to_owned(), vec![8]));
    assert_eq!(with_text[at + 2..], with_labels[at + 1..]);
    // DiT-B/2 on CLIP ViT-L/14: a layer of 768 x 768 for the table of 1001 rows.
    let b = DitConfig::published("DiT-B/2", Some(1000)).unwrap();
    let text = DitConfig { classes: None, text_width: Some(768), ..b.clone() };
    assert_eq!(count::of_dit(&text), count::of_dit(&b) - 1001 * 768 + 768 * 768 + 768);
    assert_eq!(conditioned_on_text().over_captions(3), config());
}

#[test]
fn a_caption_conditions_as_its_projection_and_gradients_reach_the_layer() {
    let captions = tensor(&[4, WIDTH], 90);
    let (x, t) = (tensor(&[3, 1, 4, 4], 91), Tensor::new(&[1.0_f64, 500.0, 999.0], &Device::Cpu).unwrap());
    let labels = [2_u32, 0, 3];
    let condition = |tensors: &Tensors| {
        let mut network = tensors.clone();
        let [weight, bias] = PROJECTION.map(|name| network.remove(name).unwrap());
        network.insert(LABEL_TABLE.to_owned(), label_table(&captions, &weight, &bias).unwrap());
        let dit = Dit::new(&config(), &network).unwrap();
        let condition = dit.condition(&t, &Tensor::new(&labels, &Device::Cpu).unwrap()).unwrap();
        (dit, condition)
    };
    let tensors = variables(&text_weights(), DType::F64, &Device::Cpu).unwrap();
    let (_, found) = condition(&tensors);
    let (weight, bias) = (&tensors["y_embedder.proj.weight"], &tensors["y_embedder.proj.bias"]);
    for (row, &label) in labels.iter().enumerate() {
        let caption = captions.get(label as usize).unwrap().unsqueeze(1).unwrap();
        let expected = (weight.matmul(&caption).unwrap().squeeze(1).unwrap() + bias).unwrap().to_vec1::<f64>().unwrap();
        for (ours, theirs) in found.label.get(row).unwrap().to_vec1::<f64>().unwrap().iter().zip(expected) {
            assert!((ours - theirs).abs() < 1e-12);
        }
    }

    let loss = |tensors: &Tensors| {
        let (dit, condition) = condition(tensors);
        dit.forward(&x, &condition, &Unpatched).unwrap().sqr().unwrap().sum_all().unwrap()
    };
    let slopes = gradients(&loss(&tensors), &tensors).unwrap();
    for name in ["y_embedder.proj.weight", "y_embedder.proj.bias"] {
        let direction = tensor(tensors[name].dims(), 92);
        let at = |step: f64| {
            let mut moved = tensors.clone();
            moved.insert(name.to_owned(), (&tensors[name] + (&direction * step).unwrap()).unwrap());
            loss(&moved).to_scalar::<f64>().unwrap()
        };
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        let ours = (&slopes[name] * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(slope.abs() > 1e-4 && (ours - slope).abs() < 1e-6 * slope.abs().max(1.0), "{name}: {ours} {slope}");
    }
}

#[test]
fn gradients_of_the_layer_are_those_of_autograd() {
    let (captions, d_table) = (tensor(&[5, WIDTH], 93), tensor(&[5, 8], 94));
    let layer = variables(&text_weights(), DType::F64, &Device::Cpu).unwrap();
    let table = label_table(&captions, &layer[PROJECTION[0]], &layer[PROJECTION[1]]).unwrap();
    let slopes = gradients(&(table * &d_table).unwrap().sum_all().unwrap(), &layer).unwrap();
    for (name, ours) in PROJECTION.iter().zip(label_table_backward(&captions, &d_table).unwrap()) {
        assert_eq!(ours.dims(), slopes[*name].dims());
        let apart = (ours - &slopes[*name]).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(apart < 1e-12, "{name}: {apart:e}");
    }
}
