//! The trunk against tensors of the authors' code. Tolerances are those of the goldens' README.

use goldens::{Array, Golden, assert_close};
use kernels::{
    Condition, Contribution, ContributionGradient, Inputs, Learn, OutsideGradients, Parameters, Plan, Shape, Workspace,
};

/// The shape that a file's `config` describes.
fn shape(golden: &Golden, weights: &[(String, Array)]) -> Shape {
    let config = golden.config();
    let size = |name: &str| config[name].as_u64().unwrap_or_else(|| panic!("config lacks {name}")) as usize;
    let table = weights.iter().find(|(name, _)| name == "y_embedder.embedding_table.weight").unwrap();
    let channels = size("in_channels");
    Shape {
        image_size: size("input"),
        channels,
        patch: size("patch"),
        hidden: size("hidden"),
        depth: size("depth"),
        heads: size("heads"),
        label_rows: table.1.shape[0],
        out_channels: channels * if config["learn_sigma"].as_bool().unwrap_or(true) { 2 } else { 1 },
    }
}

fn parameters(golden: &Golden) -> Parameters {
    let weights = golden.group("sd.");
    let values: Vec<Vec<f32>> = weights.iter().map(|(_, array)| array.f32()).collect();
    let pairs = weights.iter().zip(&values).map(|((name, _), values)| (name.as_str(), values.as_slice()));
    Parameters::from_tensors(shape(golden, &weights), pairs).unwrap()
}

fn labels(array: &Array) -> Vec<u32> {
    array.usize().into_iter().map(|label| label as u32).collect()
}

fn condition(parameters: &Parameters, t: &Array, y: &[u32]) -> Condition {
    let mut condition = Condition::new(*parameters.shape(), y.len());
    condition.compute(parameters, &t.f32(), y);
    condition
}

/// A step with the given gradient of the output; returns the output.
fn step(workspace: &mut Workspace, inputs: &Inputs, images: &[f32], d_output: &[f32]) -> Vec<f32> {
    let each = workspace.plan().shape.output();
    let outputs = workspace.step(inputs, images, |sample, output, d| {
        d.copy_from_slice(&d_output[sample * each..(sample + 1) * each]);
        output.to_vec()
    });
    outputs.concat()
}

/// Forward pass, and every gradient that the file holds, of a DiT without a patch.
fn plain(name: &str, out: f64, gradients: Option<f64>) {
    let golden = Golden::open(name);
    let parameters = parameters(&golden);
    let shape = *parameters.shape();
    let (x, y) = (golden.get("in.x").f32(), labels(&golden.get("in.y")));
    let batch = y.len();
    let condition = condition(&parameters, &golden.get("in.t"), &y);
    assert_close("t_emb", condition.t_emb(), &golden.get("mid.t_embedder"), out);
    let rows: Vec<u32> = (0..batch as u32).collect();
    let contributions = vec![Contribution::None; shape.depth];
    let inputs = Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &contributions };

    let mut output = vec![f32::NAN; batch * shape.output()];
    Workspace::new(Plan::sampling(shape, batch, 0)).forward(&inputs, &x, &mut output);
    assert_close(&format!("{name} sampling"), &output, &golden.get("out.eval"), out);

    let Some(tolerance) = gradients else { return };
    let plan = Plan { shape, batch, learn: Learn::Everything, prepended: 0, image_gradient: true };
    let mut workspace = Workspace::new(plan);
    // twice: nothing may be left over from the step before
    for _ in 0..2 {
        let output = step(&mut workspace, &inputs, &x, &golden.get("grad_in.w").f32());
        assert_close(&format!("{name} training"), &output, &golden.get("out.eval"), out);
        workspace.condition_backward(&inputs, OutsideGradients::default());
    }
    let ours = workspace.gradients();
    assert_close("in.x", ours.images.as_ref().unwrap(), &golden.get("grad.in.x"), tolerance);
    let mut compared = 0;
    for (segment, values) in ours.parameters.as_ref().unwrap().tensors() {
        match golden.find(&format!("grad.{}", segment.name)) {
            Some(theirs) => {
                assert_close(&segment.name, values, &theirs, tolerance);
                compared += 1;
            }
            None => assert!(segment.name == "pos_embed" && values.iter().all(|v| *v == 0.0), "{}", segment.name),
        }
    }
    assert_eq!(compared, parameters.segments().len() - 1);
}

#[test]
fn goldens_dit_small() {
    plain("dit_small", 2e-6, Some(5e-6));
}

#[test]
fn goldens_dit_strong() {
    plain("dit_strong", 8e-6, Some(1e-4));
}

#[test]
fn goldens_dit_pixel_uncond() {
    plain("dit_pixel_uncond", 8e-6, Golden::open("dit_pixel_uncond").find("grad_in.w").map(|_| 1e-4));
}

#[test]
fn goldens_label_dropout_in_training() {
    let mut checked = 0;
    for (name, tolerance) in [("dit_small", 2e-6), ("dit_strong", 8e-6)] {
        let golden = Golden::open(name);
        let Some(dropped) = golden.find("train.dropped") else { continue };
        checked += 1;
        let dropped = dropped.usize();
        let parameters = parameters(&golden);
        let shape = *parameters.shape();
        let null = shape.label_rows as u32 - 1;
        let y: Vec<u32> =
            labels(&golden.get("in.y")).into_iter().zip(dropped).map(|(y, d)| if d == 1 { null } else { y }).collect();
        let condition = condition(&parameters, &golden.get("in.t"), &y);
        let rows: Vec<u32> = (0..y.len() as u32).collect();
        let contributions = vec![Contribution::None; shape.depth];
        let inputs =
            Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &contributions };
        let mut output = vec![0.0; y.len() * shape.output()];
        Workspace::new(Plan::sampling(shape, y.len(), 0)).forward(&inputs, &golden.get("in.x").f32(), &mut output);
        assert_close(name, &output, &golden.get("train.out"), tolerance);
    }
    assert!(checked > 0, "no file has `train.dropped`");
}

/// Every case of a DMP file, with the file's routing mask as the gate's weights.
fn patched(file: &str, tolerance: f64) {
    let parameters = parameters(&Golden::open("dmp_backbone"));
    let shape = *parameters.shape();
    let golden = Golden::open(file);
    let cases = golden.config()["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let get = |tensor: &str| golden.get(&format!("{name}.{tensor}"));
        let x = golden.get("in.x").f32();
        let mut y = labels(&golden.get("in.y"));
        if let Some(uniform) = golden.find(&format!("{name}.drop_uniform")) {
            let dropout = golden.config()["drop"].as_f64().unwrap_or(0.1) as f32;
            for (y, u) in y.iter_mut().zip(uniform.f32()) {
                *y = if u < dropout { shape.label_rows as u32 - 1 } else { *y };
            }
        }
        let (batch, n) = (y.len(), case["tokens"].as_u64().unwrap() as usize);
        let prompted = case["pt_depth"].as_u64().unwrap() as usize;
        let prompts = get("sd.prompt_embeddings").f32();
        let weights = match case["gate"].as_str().unwrap() {
            "PT" => vec![1.0; prompted * batch * n],
            _ => get("routing_mask").f32(),
        };
        let prepend = case["vp"].as_str().unwrap() == "prepend";
        let contributions: Vec<Contribution> = (0..shape.depth)
            .map(|block| {
                if block >= prompted {
                    return Contribution::None;
                }
                let weights = &weights[block * batch * n..(block + 1) * batch * n];
                let prompts = &prompts[block * n * shape.hidden..(block + 1) * n * shape.hidden];
                match prepend {
                    true => Contribution::Prepend { weights, prompts },
                    false => Contribution::Weighted { weights, prompts },
                }
            })
            .collect();
        let condition = condition(&parameters, &golden.get("in.t"), &y);
        let rows: Vec<u32> = (0..batch as u32).collect();
        let inputs =
            Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &contributions };
        let prepended = if prepend { n } else { 0 };

        let mut output = vec![f32::NAN; batch * shape.output()];
        Workspace::new(Plan::sampling(shape, batch, prepended)).forward(&inputs, &x, &mut output);
        assert_close(&format!("{name} sampling"), &output, &get("out"), 5e-6);

        for (learn, image_gradient) in
            [(Learn::Contributions { from: 0 }, false), (Learn::Attention, true), (Learn::Everything, true)]
        {
            let mut workspace = Workspace::new(Plan { shape, batch, learn, prepended, image_gradient });
            let output = step(&mut workspace, &inputs, &x, &golden.get("in.w").f32());
            assert_close(&format!("{name} {learn:?}"), &output, &get("out"), 5e-6);
            let ours = workspace.gradients();
            let mut d_prompts = Vec::new();
            for gradient in &ours.contributions {
                match gradient {
                    ContributionGradient::Prompts { prompts, .. } => d_prompts.extend_from_slice(prompts),
                    other => assert_eq!(*other, ContributionGradient::None),
                }
            }
            assert_close("prompt_embeddings", &d_prompts, &get("grad.prompt_embeddings"), tolerance);
            assert_eq!(ours.images.is_some(), image_gradient);
            if let Some(images) = &ours.images {
                assert_close("in.x", images, &get("grad.in.x"), tolerance);
            }
            if let Some(weights) = &ours.parameters {
                let own = |tensor| weights.tensor(tensor).unwrap();
                let tensor = "blocks.0.attn.qkv.bias";
                assert_close(tensor, own(tensor), &get(&format!("grad.{tensor}")), tolerance);
                let tensor = "final_layer.linear.bias";
                match learn {
                    Learn::Everything => {
                        assert_close(tensor, own(tensor), &get(&format!("grad.{tensor}")), tolerance);
                    }
                    _ => assert!(own(tensor).iter().all(|v| *v == 0.0)),
                }
            }
        }
    }
}

#[test]
fn goldens_dmp_add_linear() {
    patched("dmp_add_linear", 2e-5);
}

#[test]
fn goldens_dmp_prepend_linear() {
    patched("dmp_prepend_linear", 1e-4);
}

#[test]
fn goldens_dmp_add_prompt_tuning() {
    patched("dmp_add_pt", 2e-5);
}

#[test]
fn goldens_timestep_features() {
    let golden = Golden::open("dit_embeds");
    let t = golden.get("t").f32();
    for (name, theirs) in golden.group("timestep_embedding.d") {
        let width: usize = name.parse().unwrap();
        let mut ours = vec![0.0; t.len() * width];
        for (t, row) in t.iter().zip(ours.chunks_exact_mut(width)) {
            kernels::timestep_features(*t, row);
        }
        assert_close(&name, &ours, &theirs, 2e-6);
    }
}

/// LoRA is merged into the weights: `W + alpha/rank B A`; its gradients follow from the weights'.
#[test]
fn goldens_lora_is_reached_through_the_attention_weights() {
    let golden = Golden::open("dit_strong");
    let parameters = parameters(&golden);
    let shape = *parameters.shape();
    let y = labels(&golden.get("in.y"));
    let condition = condition(&parameters, &golden.get("in.t"), &y);
    let rows: Vec<u32> = (0..y.len() as u32).collect();
    let contributions = vec![Contribution::None; shape.depth];
    let inputs = Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &contributions };
    let plan = Plan { shape, batch: y.len(), learn: Learn::Attention, prepended: 0, image_gradient: false };
    let mut workspace = Workspace::new(plan);
    step(&mut workspace, &inputs, &golden.get("in.x").f32(), &golden.get("grad_in.w").f32());
    for (segment, values) in workspace.gradients().parameters.as_ref().unwrap().tensors() {
        if segment.name.contains(".attn.") {
            assert_close(&segment.name, values, &golden.get(&format!("grad.{}", segment.name)), 1e-4);
        } else {
            assert!(values.iter().all(|v| *v == 0.0), "{} does not learn", segment.name);
        }
    }
}
