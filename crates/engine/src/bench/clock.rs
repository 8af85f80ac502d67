//! Repetitions of a work, each between two measurements of the machine's peak.

use std::time::Instant;

use kernels::Peak;

use super::count::Count;
use super::work::Work;
use super::{Measurement, Repeat, Setting, memory};
use crate::job::EngineError;

/// How long the peak is measured before and after a repetition, as a share of its time: a moment would say little of seconds.
const PEAK_SHARE: f64 = 0.02;

/// Makes a work, runs it for the setting's seconds, and returns the medians.
///
/// The `peak`, in the precision `T` of the work, is measured before and after each repetition: on a machine that others use
/// too, both slow down together, and their ratio stays. What the work takes of memory is what comes on top of its inputs and
/// of its own `weight_bytes`.
///
/// # Errors
/// Those of the work.
pub fn time<T: Copy + From<f32> + Send + Sync + 'static, R: Repeat>(
    work: Work,
    setting: &Setting,
    mut peak: Peak<T>,
    weight_bytes: u64,
    make: impl FnOnce() -> Result<R, EngineError>,
) -> Result<Measurement, EngineError> {
    peak.measure();
    let before = memory::data();
    memory::restart();
    let mut task = make()?;
    task.warm_up()?;

    let count = Count::of(work);
    let gflop = count.flops / 1e9;
    let (mut times, mut peaks, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    while times.is_empty() || start.elapsed().as_secs_f64() < setting.seconds {
        let share = PEAK_SHARE * times.last().copied().unwrap_or_default();
        let earlier = around(&mut peak, share);
        let begin = Instant::now();
        task.run()?;
        let seconds = begin.elapsed().as_secs_f64();
        let around = 0.5 * (earlier + around(&mut peak, PEAK_SHARE * seconds));
        times.push(seconds);
        peaks.push(around);
        shares.push(gflop / seconds / around);
    }
    let peak_bytes = memory::most();
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let (repetitions, seconds, peak) = (times.len(), median(times), median(peaks));
    Ok(Measurement {
        work: work.name().to_owned(),
        title: work.title(),
        engine: setting.engine,
        threads: rayon::current_num_threads(),
        repetitions,
        step_ms: 1e3 * seconds,
        least_ms: 1e3 * least,
        images_per_s: work.images().map(|images| images as f64 / seconds),
        gflop,
        gflop_per_s: gflop / seconds,
        peak_gflop_per_s: peak,
        share_of_peak: median(shares),
        floor_ms: 1e3 * gflop / peak,
        peak_bytes,
        step_bytes: memory::most_data().zip(before).map(|(most, before)| most.saturating_sub(before + weight_bytes)),
        activation_bytes: count.activation_bytes,
    })
}

/// The peak over so many seconds, at least once.
fn around<T: Copy + From<f32> + Send + Sync + 'static>(peak: &mut Peak<T>, seconds: f64) -> f64 {
    let start = Instant::now();
    let mut measured = vec![peak.measure()];
    while start.elapsed().as_secs_f64() < seconds {
        measured.push(peak.measure());
    }
    median(measured)
}

/// The value in the middle, or the mean of the two there.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { 0.5 * (values[half - 1] + values[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
    }
}
