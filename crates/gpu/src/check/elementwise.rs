//! GELU, SiLU, patches, features and labels.

use kernels::{Shape, oracle};

use super::Bench;
use crate::arguments::{Features, Gelu, Label, LabelGradient, Patches, Silu};
use crate::machine::{Address, Error, Machine};

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    gelu(bench, 37, 40)?;
    gelu(bench, 5, 1024)?;
    silu(bench, 301)?;
    patches(bench)?;
    condition(bench)
}

fn gelu<M: Machine>(bench: &mut Bench<M>, count: usize, width: usize) -> Result<(), Error> {
    let l = bench.launcher;
    let mut u = bench.numbers(count * width, 3.0);
    // far out on both sides, where exponentials overflow
    (u[0], u[1], u[2]) = (-200.0, 200.0, -20.0);
    let (bias, dh) = (bench.numbers(width, 1.0), bench.numbers(count * width, 1.0));
    let (on_u, on_bias, on_dh) = (bench.put(&u)?, bench.put(&bias)?, bench.put(&dh)?);
    let (h, again) = (bench.room(count * width)?, bench.room(count * width)?);
    let there =
        Gelu { u: on_u.start(), bias: on_bias.start(), h: h.start(), dh: Address::NULL, count, width: width as i32 };
    let back = Gelu { h: again.start(), dh: on_dh.start(), ..there };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe {
        l.gelu_forward(&there)?;
        l.gelu_backward(&back)?;
    }
    let want = oracle::gelu_forward(&u, &bias);
    bench.compare(&format!("gelu_forward, width {width}"), &h, &want)?;
    bench.compare(&format!("gelu_backward: again, width {width}"), &again, &want)?;
    bench.compare(&format!("gelu_backward, width {width}"), &on_dh, &oracle::gelu_backward(&u, &bias, &dh))
}

fn silu<M: Machine>(bench: &mut Bench<M>, count: usize) -> Result<(), Error> {
    let l = bench.launcher;
    let (x, dy) = (bench.numbers(count, 3.0), bench.numbers(count, 1.0));
    let (on_x, on_dy, out) = (bench.put(&x)?, bench.put(&dy)?, bench.room(count)?);
    // SAFETY: all arrays are as large as the sizes say.
    unsafe {
        l.silu_forward(&Silu { x: on_x.start(), out: out.start(), count })?;
        l.silu_backward(&Silu { x: on_x.start(), out: on_dy.start(), count })?;
    }
    let sigmoid = |x: f32| 1.0 / (1.0 + f64::from(-x).exp());
    let want: Vec<f32> = x.iter().map(|&x| (f64::from(x) * sigmoid(x)) as f32).collect();
    bench.compare("silu_forward", &out, &want)?;
    let slope = |x: f32| sigmoid(x) * (1.0 + f64::from(x) * (1.0 - sigmoid(x)));
    let want: Vec<f32> = x.iter().zip(&dy).map(|(&x, &dy)| (f64::from(dy) * slope(x)) as f32).collect();
    bench.compare("silu_backward", &on_dy, &want)
}

fn patches<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    let (image_size, channels, patch, batch, l) = (12, 3, 2, 3, bench.launcher);
    let shape = Shape { image_size, channels, patch, hidden: 16, depth: 1, heads: 1, label_rows: 1, out_channels: 3 };
    let images = bench.numbers(batch * shape.image(), 1.0);
    let (on, rows, back) = (bench.put_wide(&images)?, bench.room(images.len())?, bench.room(images.len())?);
    let arguments = Patches {
        images: on.start(),
        patches: rows.start(),
        batch: batch as i32,
        channels: channels as i32,
        size: image_size as i32,
        patch: patch as i32,
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.gather(&arguments)? };
    let each = |f: fn(&Shape, &[f32]) -> Vec<f32>, values: &[f32]| -> Vec<f32> {
        values.chunks_exact(shape.image()).flat_map(|image| f(&shape, image)).collect()
    };
    bench.identical("gather", &rows, &each(oracle::gather, &images))?;
    let out = bench.room_wide(images.len())?;
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.unpatchify(&Patches { images: out.start(), ..arguments })? };
    let gathered = each(oracle::gather, &images);
    bench.identical("unpatchify", &out, &each(oracle::unpatchify, &gathered))?;
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.patchify(&Patches { images: out.start(), patches: back.start(), ..arguments })? };
    bench.identical("patchify", &back, &gathered)
}

fn condition<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    let (rows, d, labels_count, wave, l) = (5, 40, 4, 256, bench.launcher);
    let (timesteps, labels) = ([3, 0, 6, 6, 1], [1, 3, 1, 0, 1]);
    let features = bench.numbers(7 * wave, 1.0);
    let (on_features, on_t, out) =
        (bench.put_wide(&features)?, bench.put_numbers(&timesteps)?, bench.room(rows * wave)?);
    let arguments = Features {
        table: on_features.start(),
        timesteps: on_t.start(),
        features: out.start(),
        rows: rows as i32,
        width: wave as i32,
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.timestep_features(&arguments)? };
    let want: Vec<f32> = timesteps.iter().flat_map(|t| features[*t as usize * wave..][..wave].to_vec()).collect();
    bench.identical("timestep_features", &out, &want)?;

    let (table, t_emb, d_label) =
        (bench.numbers(labels_count * d, 1.0), bench.numbers(rows * d, 1.0), bench.numbers(rows * d, 1.0));
    let (on_table, on_emb, on_d, on_labels) =
        (bench.put(&table)?, bench.put(&t_emb)?, bench.put(&d_label)?, bench.put_numbers(&labels)?);
    let (c, active, d_table) = (bench.room(rows * d)?, bench.room(rows * d)?, bench.room_wide(labels_count * d)?);
    let (count, width) = (rows as i32, d as i32);
    // SAFETY: all arrays are as large as the sizes say.
    unsafe {
        l.label_sum(&Label {
            table: on_table.start(),
            labels: on_labels.start(),
            t_emb: on_emb.start(),
            c: c.start(),
            active: active.start(),
            rows: count,
            width,
        })?;
        let gradient = LabelGradient {
            d_label: on_d.start(),
            labels: on_labels.start(),
            d_table: d_table.start(),
            rows: count,
            width,
        };
        l.label_gradient(&gradient, labels_count)?;
    }
    let want: Vec<f32> = (0..rows * d).map(|i| t_emb[i] + table[labels[i / d] as usize * d + i % d]).collect();
    bench.compare("label_sum", &c, &want)?;
    let want: Vec<f32> = want.iter().map(|c| c / (1.0 + (-c).exp())).collect();
    bench.compare("label_sum: active", &active, &want)?;
    let mut want = vec![0.0; labels_count * d];
    for (row, label) in labels.iter().enumerate() {
        (0..d).for_each(|i| want[*label as usize * d + i] += d_label[row * d + i]);
    }
    bench.compare("label_gradient", &d_table, &want)
}
