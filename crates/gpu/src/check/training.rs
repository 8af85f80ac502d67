//! Noise, noising, the loss, and the optimizer: in `f32` only, whatever the activations.

use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
use kernels::Group;
use random::{Draws, Stream};

use super::Bench;
use crate::arguments::{AdamW, Average, Loss, Normals, QSample};
use crate::array::Plain;
use crate::diffusion_table;
use crate::machine::{Error, Machine};
use crate::optimizer::Rates;

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    for (first, count) in [(0, 1001), (5, 3), (2, 1025)] {
        normals(bench, first, count)?;
    }
    for learned in [true, false] {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            loss(bench, schedule, learned)?;
        }
    }
    adamw(bench)
}

fn normals<M: Machine>(bench: &mut Bench<M>, first: u64, count: usize) -> Result<(), Error> {
    let (seed, step, l) = (0x1234_5678_9abc_def0_u64, 41, bench.launcher);
    let (on_step, out) = (bench.put_numbers(&[step])?, bench.room_wide(count)?);
    let key = [seed as u32, (seed >> 32) as u32];
    let on_first = Plain::from(l.machine, &[first])?;
    let arguments = Normals {
        step: on_step.start(),
        first: on_first.start(),
        out: out.start(),
        count,
        key,
        stream: Stream::TrainNoise as u32,
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.normals(&arguments)? };
    let mut want = vec![0.0; count];
    Draws::new(seed, Stream::TrainNoise, u64::from(step)).fill_normal(first, &mut want);
    bench.identical(&format!("normals from {first} on"), &out, &want)
}

fn loss<M: Machine>(bench: &mut Bench<M>, schedule: Schedule, learned: bool) -> Result<(), Error> {
    let (t, n, l) = ([0_usize, 1, 50, 99, 0], 300, bench.launcher);
    let batch = t.len();
    let loss = TrainingLoss::new(Process::new(schedule, 100).expect("a schedule of 100 steps"), MseWeight::MinSnr(5.0));
    let mut x0: Vec<f32> = bench.numbers(batch * n, 0.7).iter().map(|v| v.clamp(-0.9, 0.9)).collect();
    // both open bins
    (x0[0], x0[1]) = (-1.0, 1.0);
    let noise = bench.numbers(batch * n, 1.0);
    let apart = bench.numbers(2 * batch * n, 0.3);
    let outputs = if learned { 2 * n } else { n };
    let output: Vec<f32> = (0..batch * outputs)
        .map(|i| apart[i] + if i % outputs < n { noise[i / outputs * n + i % outputs] } else { 0.0 })
        .collect();
    let table = diffusion_table::timesteps(&loss, n);
    let on_table = Plain::from(l.machine, &table)?;
    let (on_x0, on_noise, on_output) = (bench.put_wide(&x0)?, bench.put_wide(&noise)?, bench.put_wide(&output)?);
    let timesteps = bench.put_numbers(&t.map(|t| t as u32))?;
    let (x_t, d_output, terms) =
        (bench.room_wide(batch * n)?, bench.room_wide(output.len())?, Plain::new(l.machine, 16 * batch)?);
    let (count, elements) = (batch as i32, n as i32);
    // SAFETY: all arrays are as large as the sizes say.
    unsafe {
        l.q_sample(&QSample {
            x0: on_x0.start(),
            noise: on_noise.start(),
            timesteps: timesteps.start(),
            table: on_table.start(),
            x_t: x_t.start(),
            batch: count,
            n: elements,
        })?;
        l.loss(&Loss {
            x0: on_x0.start(),
            x_t: x_t.start(),
            noise: on_noise.start(),
            output: on_output.start(),
            timesteps: timesteps.start(),
            table: on_table.start(),
            d_output: d_output.start(),
            terms: terms.start(),
            batch: count,
            n: elements,
            learned: i32::from(learned),
            all: count,
        })?;
    }
    let mut want = vec![0.0; batch * n];
    for (sample, t) in t.iter().enumerate() {
        let at = sample * n..(sample + 1) * n;
        loss.process().q_sample(*t, &x0[at.clone()], &noise[at.clone()], &mut want[at]);
    }
    let name = format!("{schedule:?}, variance learned {learned}");
    bench.identical(&format!("q_sample, {name}"), &x_t, &want)?;
    let mut gradient = vec![0.0; output.len()];
    let losses = loss.batch_loss(&t, &x0, &want, &noise, &output, Some(&mut gradient));
    // sample by sample: at t = 0 the gradient is many times larger
    let ours = d_output.read(l.machine)?;
    for (sample, t) in t.iter().enumerate() {
        let at = sample * outputs..(sample + 1) * outputs;
        bench.find(&format!("loss: gradient at t = {t}, {name}"), &ours[at.clone()], &gradient[at], 1e-5);
    }
    let want: Vec<f32> = losses.iter().flat_map(|l| [l.mse as f32, l.vb as f32]).collect();
    let terms: Vec<f32> = terms.doubles(l.machine, 2 * batch)?.iter().map(|v| *v as f32).collect();
    for (i, want) in want.iter().enumerate() {
        bench.find(&format!("loss: term {i}, {name}"), &terms[i..=i], &[*want], 1e-5);
    }
    Ok(())
}

fn adamw<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    let (count, l) = (1000, bench.launcher);
    let mut p = bench.numbers(count, 1.0);
    let group = Group { range: 0..count, learning_rate: 3e-3, weight_decay: 0.02 };
    let ours = [bench.put_wide(&p)?, bench.put_wide(&vec![0.0; count])?, bench.put_wide(&vec![0.0; count])?];
    let average = bench.put_wide(&p)?;
    let mut want_average = p.clone();
    let rates = Rates { learning_rates: [group.learning_rate; 2], weight_decay: group.weight_decay, decay: 0.9 };
    let mut state = kernels::AdamW::new(count);
    for step in 1..=3 {
        let gradient = bench.numbers(count, 0.1);
        let (on, on_factors) = (bench.put_wide(&gradient)?, bench.put_wide(&rates.factors(0, step))?);
        let copy = bench.room_wide(count)?;
        let on_decay = bench.put_wide(&[rates.decay as f32, (1.0 - rates.decay) as f32])?;
        let [p_, m, v] = ours.each_ref().map(|array| array.start());
        // SAFETY: all arrays are as large as the sizes say.
        unsafe {
            l.adamw(&AdamW { p: p_, m, v, g: on.start(), copy: copy.start(), factors: on_factors.start(), count })?;
            l.average(&Average { average: average.start(), values: p_, decay: on_decay.start(), count })?;
        }
        state.step(&mut p, &gradient, std::slice::from_ref(&group));
        kernels::average(&mut want_average, &p, rates.decay);
        bench.identical(&format!("adamw: copy after step {step}"), &copy, &p)?;
    }
    bench.identical("adamw: parameters", &ours[0], &p)?;
    bench.identical("adamw: first moment", &ours[1], state.moments().0)?;
    bench.identical("adamw: second moment", &ours[2], state.moments().1)?;
    bench.identical("average", &average, &want_average)
}
