//! The gate against its formulas in double precision.

use super::Bench;
use super::mixture::Mixed;
use super::oracle::Oracle;
use crate::array::Plain;
use crate::gate::{Architecture, Balance, Extent, Gate, Gating, Importance, Selection};
use crate::machine::{Address, Error, Machine};
use crate::trunk::Given;

const LINEAR: Architecture = Architecture::Linear;
const OVER_PROMPTS: Architecture = Architecture::AttentionOverPrompts;
const LITERAL: Architecture = Architecture::AttentionLiteral;

/// The gates that there are: the paper's, the released code's, one for all blocks, those of the highest prompts, with and without a smooth
/// load loss, and those of attention.
pub(super) const GATES: [(Gating, Balance); 10] = [
    (gating(LINEAR, [true, false, false], Selection::Soft), balance(0.7, false, None)),
    (gating(LINEAR, [true, true, true], Selection::Soft), balance(1.3, true, None)),
    (gating(LINEAR, [false, false, true], Selection::Soft), balance(0.5, false, None)),
    (gating(LINEAR, [true, false, false], highest(27, true)), balance(0.7, false, None)),
    (gating(LINEAR, [false, true, true], highest(9, false)), balance(1.3, true, None)),
    (gating(LINEAR, [true, true, true], highest(5, false)), balance(0.7, false, Some(0.4))),
    (gating(OVER_PROMPTS, [true, false, false], Selection::Soft), balance(0.7, false, None)),
    (gating(OVER_PROMPTS, [false, true, true], highest(4, true)), balance(1.3, true, Some(0.3))),
    (gating(LITERAL, [true, false, false], Selection::Soft), balance(0.7, false, None)),
    (gating(LITERAL, [false, true, true], Selection::Soft), balance(1.3, true, None)),
];

const fn gating(architecture: Architecture, [per_block, with_label, noisy]: [bool; 3], selection: Selection) -> Gating {
    Gating { architecture, per_block, with_label, noisy, selection }
}

const fn highest(kept: usize, ones: bool) -> Selection {
    Selection::Highest { kept, ones }
}

const fn balance(coefficient: f64, together: bool, load: Option<f64>) -> Balance {
    Balance { importance: Importance { coefficient, together }, load }
}

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    for (gating, balance) in GATES {
        gate(bench, gating, balance, Extent { blocks: 3, prompts: 36, width: 32, rows: 5, all: 5 })?;
    }
    for number in [0, 5, 6] {
        let (gating, balance) = GATES[number];
        gate(bench, gating, balance, Extent { blocks: 2, prompts: 300, width: 40, rows: 9, all: 9 })?;
    }
    Ok(())
}

fn gate<M: Machine>(bench: &mut Bench<M>, gating: Gating, balance: Balance, extent: Extent) -> Result<(), Error> {
    let (l, machine) = (bench.launcher, bench.launcher.machine);
    let Extent { blocks, prompts: n, width, rows, .. } = extent;
    let values = bench.numbers(gating.len(n, width), 0.3);
    let (embedding, prompts) = (bench.numbers(rows * width, 1.0), bench.numbers(blocks * n * width, 1.0));
    let mut ours = Gate::new(machine, gating, extent, Some(balance))?;
    let draws = bench.numbers(ours.draws().1, 1.0);
    ours.values_mut().write(machine, &values)?;
    ours.set_draws(machine, &draws)?;
    let oracle =
        Oracle { gating, balance, extent, values: &values, prompts: &prompts, embedding: &embedding, draws: &draws };
    let name = format!("gate of {n} prompts, {gating:?}, {balance:?}");
    let (on_embedding, losses) =
        (bench.put(&embedding)?, [Plain::new(machine, 8 * rows)?, Plain::new(machine, 8 * rows)?]);
    let (given, d_given) = match oracle.mixed() {
        Mixed::Weights(given) | Mixed::Vectors(given) => {
            let d_given = bench.numbers(given.len(), 1.0);
            (given, d_given)
        }
    };
    // what the trunk left of the prompts' gradient, where there are prompts
    let before = bench.numbers(prompts.len(), 1.0);
    let (out, on_d, on_prompts, d_prompts) =
        (bench.room_wide(given.len())?, bench.put_wide(&d_given)?, bench.put_wide(&prompts)?, bench.put_wide(&before)?);
    let addresses = match gating.weights() {
        true => Given {
            weights: out.start(),
            values: on_prompts.start(),
            d_weights: on_d.start(),
            d_values: d_prompts.start(),
        },
        false => {
            Given { weights: Address::NULL, values: out.start(), d_weights: Address::NULL, d_values: on_d.start() }
        }
    };
    // SAFETY: all arrays are as large as the extent says.
    unsafe {
        ours.forward(l, [on_embedding.start(); 2], addresses, 0)?;
        ours.backward(l, addresses, losses.each_ref().map(Plain::start), 0)?;
    }
    // the gate is f32 whatever the precision
    bench.find(&format!("{name}: what it gives"), &out.read(machine)?, &given, 1e-5);
    let want = oracle.backward(&d_given);
    bench.find(&format!("{name}: gradient"), &ours.gradient().read(machine)?, &want.values, 2e-5);
    let sum: Vec<f32> = before.iter().zip(&want.prompts).map(|(a, b)| a + b).collect();
    bench.find(&format!("{name}: gradient of prompts"), &d_prompts.read(machine)?, &sum, 1e-5);
    let [importance, load] = ours.balanced();
    if importance {
        let mean = losses[0].doubles(machine, rows)?.iter().sum::<f64>() / rows as f64;
        bench.find(&format!("{name}: importance"), &[mean as f32], &[want.importance as f32], 1e-5);
    }
    if load {
        let sum = losses[1].doubles(machine, rows)?.iter().sum::<f64>();
        bench.find(&format!("{name}: load"), &[sum as f32], &[want.load as f32], 1e-5);
    }
    Ok(())
}
