//! What fits a machine, known before anything is allocated.

use crate::ledger::Ledger;
use crate::machine::{Error, Precision};
use crate::maps::{GATHERED, MapNetwork, Program};
use crate::pool::Pool;
use crate::sampling::{Sampled, Sampling};
use crate::setting::Setting;
use crate::step::Step;

/// Bytes that are left to the driver, its libraries and the captured graph.
const RESERVE: usize = 512 << 20;

/// Bytes that steps of `setting` take over `count` examples, which are random or not.
///
/// # Errors
/// [`Error::Unsupported`] where the kernels do not do what is asked for.
pub fn step_bytes(precision: Precision, setting: Setting, count: usize, random: bool) -> Result<usize, Error> {
    let ledger = Ledger::default();
    let pool = Pool::new(&ledger, count, setting.shape.image(), random.then_some(1.0))?;
    Step::new(&ledger, precision, setting, pool)?;
    Ok(ledger.bytes() + RESERVE)
}

/// Bytes that a sampler takes.
///
/// # Errors
/// As [`step_bytes`].
pub fn sampling_bytes(precision: Precision, sampled: Sampled) -> Result<usize, Error> {
    let ledger = Ledger::default();
    Sampling::new(&ledger, precision, sampled)?;
    Ok(ledger.bytes() + RESERVE)
}

/// Whether a network of maps fits `free` bytes, for batches of `batch` images.
///
/// # Errors
/// [`Error::Memory`] where it does not.
pub fn check_maps(free: usize, precision: Precision, program: &Program, batch: usize) -> Result<(), Error> {
    let ledger = Ledger::default();
    MapNetwork::<Ledger, &Ledger>::new(&ledger, precision, program, batch, GATHERED)?;
    let wanted = ledger.bytes() + RESERVE;
    if wanted <= free {
        return Ok(());
    }
    let advice = "free the GPU of other programs, or take a larger one".into();
    Err(Error::Memory { wanted, free, advice })
}

/// Whether steps of `setting` fit `free` bytes.
///
/// # Errors
/// [`Error::Memory`] where they do not, with the largest parts of the batch that do; and as [`step_bytes`].
pub fn check_step(
    free: usize,
    precision: Precision,
    setting: Setting,
    count: usize,
    random: bool,
) -> Result<(), Error> {
    let wanted = step_bytes(precision, setting, count, random)?;
    if wanted <= free {
        return Ok(());
    }
    let parts = (1..setting.part).rev().filter(|part| setting.batch.is_multiple_of(*part));
    // a part that is not possible for another reason is none that fits
    let fitting = parts.into_iter().find(|&part| {
        step_bytes(precision, Setting { part, ..setting }, count, random).is_ok_and(|bytes| bytes <= free)
    });
    let advice = match fitting {
        Some(part) => format!("give `micro_batch: {part}` beside the batch of {}, which fits", setting.batch),
        None => "no part of the batch fits: take a larger GPU, or a smaller network".into(),
    };
    Err(Error::Memory { wanted, free, advice })
}

#[cfg(test)]
mod tests {
    use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
    use kernels::Shape;

    use super::*;
    use crate::gate::{Architecture, Balance, Gating, Importance, Selection};
    use crate::maps::{Size, Window};
    use crate::setting::{Method, Prompts};

    /// XL/2 at 256 tokens and batch 128 in bf16: the bar is 40 GB.
    #[test]
    fn the_paper_s_largest_step_fits_its_bar() {
        let shape = Shape {
            image_size: 32,
            channels: 4,
            patch: 2,
            hidden: 1152,
            depth: 28,
            heads: 16,
            label_rows: 1001,
            out_channels: 8,
        };
        let (architecture, selection) = (Architecture::Linear, Selection::Soft);
        let gating = Gating { architecture, per_block: true, with_label: false, noisy: false, selection };
        let prompts = Prompts { blocks: 28, prepended: 0, gate: Some(gating) };
        let balance = Balance { importance: Importance { coefficient: 1.0, together: false }, load: None };
        let loss = TrainingLoss::new(Process::new(Schedule::Linear, 1000).unwrap(), MseWeight::Constant);
        let method = Method::Prompts { prompts, balance };
        let setting = Setting { shape, method, batch: 128, part: 128, loss: &loss, average: false, seed: 0 };
        let bytes = |part| step_bytes(Precision::Bf16, Setting { part, ..setting }, 1000, true).unwrap();
        assert!((20e9..40e9).contains(&(bytes(128) as f64)), "{}", bytes(128));
        assert!(bytes(32) < bytes(64) && bytes(64) < bytes(128));
        // 50 prompts in front of 256 tokens: as many more of everything that is kept of a token
        let prompts = Prompts { prepended: 50, ..prompts };
        let longer = Setting { method: Method::Prompts { prompts, balance }, ..setting };
        let ratio = step_bytes(Precision::Bf16, longer, 1000, true).unwrap() as f64 / bytes(128) as f64;
        assert!((1.15..306.0 / 256.0).contains(&ratio), "{ratio}");

        let check = |free| check_step(free, Precision::Bf16, setting, 1000, true);
        assert!(check(bytes(128)).is_ok());
        let error = check(bytes(64)).unwrap_err().to_string();
        assert!(error.contains("give `micro_batch: 64` beside the batch of 128"), "{error}");
        let error = check(1 << 20).unwrap_err().to_string();
        assert!(error.contains("no part of the batch fits"), "{error}");
    }

    /// A map of 256 x 256 places and what is made of it, 16 of each: 64 channels of 2 bytes are 134 MB.
    #[test]
    fn networks_of_maps_are_counted() {
        let (mut program, x) = Program::new(Size { height: 256, width: 256, channels: 64 });
        let y = program.convolution(x, Window::POINT, [&[0.0; 64 * 64], &[0.0; 64]], false).unwrap();
        program.read(y, 3).unwrap();
        let check = |free| check_maps(free, Precision::Bf16, &program, 16);
        // both maps, the images that come in as `f32`, and three channels that go out
        let least = 16 * 256 * 256 * (2 * 64 * 2 + 64 * 4 + 3 * 4) + RESERVE;
        assert!(check(least + (8 << 20)).is_ok());
        let error = check(least - 1).unwrap_err().to_string();
        assert!(error.contains("GB of GPU memory are wanted") && error.contains("free the GPU"), "{error}");
    }
}
