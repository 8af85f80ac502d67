//! Loss curves: all cells on one scale above, and below, per group, what each cell's loss is above or below the
//! default's on the same batches, timesteps and noise.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, Axes, Failure, GREY, INK, LABEL, PALETTE, SMALL, headline, range, svg, write};

/// What the figure shows.
pub struct Curves<'a> {
    /// What is said under the title.
    pub subtitle: &'a str,
    /// The default cell's curve, from which the others are counted.
    pub default: &'a Curve,
    /// Groups and their curves, in the order of the table.
    pub groups: &'a [(String, Vec<Curve>)],
}

/// One cell's losses.
pub struct Curve {
    /// The cell's name.
    pub label: String,
    /// Iterations, ascending.
    pub iterations: Vec<f64>,
    /// One series per loss, in the order of [`LOSSES`], each as long as `iterations`.
    pub losses: [Vec<f64>; 3],
    /// Whether it ends because the loss was not finite.
    pub diverged: bool,
}

/// The losses that are drawn: columns of a training record's curve, and how a reader calls them.
pub const LOSSES: [(&str, &str); 3] =
    [("mse", "noise MSE"), ("vb", "variational bound"), ("total", "total, with balancing")];

impl Curve {
    /// Means of consecutive windows, at most `windows` of them: the noise of single batches hides the course.
    fn smoothed(&self, windows: usize) -> Self {
        let size = self.iterations.len().div_ceil(windows).max(1);
        let mean = |series: &[f64]| -> Vec<f64> {
            series.chunks(size).map(|window| window.iter().sum::<f64>() / window.len() as f64).collect()
        };
        Self {
            label: self.label.clone(),
            iterations: mean(&self.iterations),
            losses: [mean(&self.losses[0]), mean(&self.losses[1]), mean(&self.losses[2])],
            diverged: self.diverged,
        }
    }

    /// This curve minus another, iteration by iteration, as far as both reach.
    fn minus(&self, other: &Curve) -> Self {
        let difference =
            |loss: usize| self.losses[loss].iter().zip(&other.losses[loss]).map(|(a, b)| a - b).collect::<Vec<_>>();
        let losses = [difference(0), difference(1), difference(2)];
        let length = losses[0].len();
        Self {
            label: self.label.clone(),
            iterations: self.iterations[..length].to_vec(),
            losses,
            diverged: self.diverged,
        }
    }
}

const WINDOWS: usize = 60;
const PANEL: (i32, i32) = (280, 176);
const LEGEND: i32 = 300;
const TOP: i32 = 66;
/// Where the names of a row's curves begin, and how far they lie apart.
const NAMES: i32 = 34;
const NAME: i32 = 18;

/// Draws the figure.
pub fn draw(curves: &Curves) -> Result<String, Failure> {
    let below: i32 = curves.groups.iter().map(|(_, members)| height(members.len())).sum();
    let size = ((LOSSES.len() as i32 * PANEL.0 + LEGEND) as u32, (TOP + PANEL.1 + below + 26) as u32);
    let points = curves.default.iterations.len();
    let windows = points.div_ceil(points.div_ceil(WINDOWS).max(1)).max(1);
    let window = curves.default.iterations.last().copied().unwrap_or(0.0) / windows as f64;
    let subtitle = format!("{}; a point is the mean of about {window:.0} iterations", curves.subtitle);
    svg(size, "Training losses of every cell", |root| {
        headline(root, "Training losses", &subtitle)?;
        let everything: Vec<Curve> =
            curves.groups.iter().flat_map(|(_, all)| all).map(|c| c.smoothed(WINDOWS)).collect();
        let default = curves.default.smoothed(WINDOWS);
        let mut above: Vec<(&Curve, RGBColor)> =
            everything.iter().map(|curve| (curve, RGBColor(170, 170, 170))).collect();
        above.push((&default, INK));
        row(root, TOP, "", &above, &default)?;
        let keys = [("every cell", RGBColor(170, 170, 170)), (default.label.as_str(), INK)];
        legend(root, TOP, "As they are", &keys)?;
        let mut top = TOP + PANEL.1;
        for (group, members) in curves.groups {
            let smooth: Vec<Curve> = members.iter().map(|c| c.minus(curves.default).smoothed(WINDOWS)).collect();
            let coloured: Vec<(&Curve, RGBColor)> = smooth.iter().zip(PALETTE.iter().cycle().copied()).collect();
            row(root, top, " − default", &coloured, &default)?;
            let keys: Vec<(&str, RGBColor)> = coloured.iter().map(|(c, colour)| (c.label.as_str(), *colour)).collect();
            legend(root, top, group, &keys)?;
            top += height(members.len());
        }
        let bottom = (PANEL.0 * LOSSES.len() as i32 / 2, size.1 as i32 - 6);
        write(root, "iteration", bottom, SMALL, INK, (HPos::Center, VPos::Bottom))?;
        Ok(vec![])
    })
}

/// Height of a row with room for the names of so many curves.
fn height(curves: usize) -> i32 {
    PANEL.1.max(NAMES + NAME * curves as i32)
}

/// One panel per loss, side by side.
fn row(root: &Area, top: i32, suffix: &str, curves: &[(&Curve, RGBColor)], default: &Curve) -> Result<(), Failure> {
    for (loss, (_, name)) in LOSSES.iter().enumerate() {
        let area = root.clone().shrink((loss as i32 * PANEL.0, top), (PANEL.0 as u32, PANEL.1 as u32));
        let last = default.iterations.last().copied().unwrap_or(1.0).max(1.0);
        let Some((low, high)) = span(curves, loss) else { continue };
        let power = low.abs().max(high.abs()).log10().floor().min(0.0) as i32;
        let (unit, note) =
            if power < -2 { (10f64.powi(power), format!(" (× 1e{power})")) } else { (1.0, String::new()) };
        write(&area, &format!("{name}{suffix}{note}"), (52, 3), SMALL, INK, (HPos::Left, VPos::Top))?;
        let axes = Axes { room: (24, 12, 26, 52), x: (0.0, last), y: (low, high), numbers: (4, 4), title: None, unit };
        let mut chart = axes.draw(&area)?;
        if !suffix.is_empty() {
            chart.draw_series(LineSeries::new([(0.0, 0.0), (last, 0.0)], GREY.stroke_width(1)))?;
        }
        for (curve, colour) in curves {
            // A spike runs along the panel's edge: ending the curve there would hide all that follows it.
            let all = curve.iterations.iter().copied().zip(curve.losses[loss].iter().copied());
            let finite = all.take_while(|(_, value)| value.is_finite());
            let points: Vec<(f64, f64)> = finite.map(|(at, value)| (at, value.clamp(low, high))).collect();
            let end = points.last().copied();
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            if let Some(end) = end.filter(|_| curve.diverged) {
                chart.draw_series([Cross::new(end, 4, colour.stroke_width(2))])?;
            }
        }
    }
    Ok(())
}

/// The values that a panel covers: all of them, unless a few (a diverging run) lie far outside the rest; a curve that
/// leaves the panel runs along its edge.
fn span(curves: &[(&Curve, RGBColor)], loss: usize) -> Option<(f64, f64)> {
    let mut values: Vec<f64> =
        curves.iter().flat_map(|(c, _)| &c.losses[loss]).copied().filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    if values.is_empty() {
        return None;
    }
    let (low, middle, high) = (at(0.02), at(0.5), at(0.98));
    let reach = 4.0 * (high - middle).max(middle - low);
    range(values.iter().copied().filter(|v| (v - middle).abs() <= reach || reach == 0.0).chain([middle]), 0.06)
}

/// The names of a row's curves, to the right of its panels.
fn legend(root: &Area, top: i32, title: &str, keys: &[(&str, RGBColor)]) -> Result<(), Failure> {
    let x = LOSSES.len() as i32 * PANEL.0 + 10;
    write(root, title, (x, top + 4), LABEL, INK, (HPos::Left, VPos::Top))?;
    for (index, (name, colour)) in keys.iter().enumerate() {
        let y = top + NAMES + index as i32 * NAME;
        root.draw(&PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)))?;
        write(root, name, (x + 30, y), SMALL, INK, (HPos::Left, VPos::Center))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: &[f64]) -> Curve {
        let iterations = (1..=values.len()).map(|i| i as f64).collect();
        let losses = [values.to_vec(), values.to_vec(), values.to_vec()];
        Curve { label: "x".into(), iterations, losses, diverged: false }
    }

    #[test]
    fn smoothing_takes_means_of_windows_and_keeps_the_rest() {
        let smooth = curve(&[1.0, 3.0, 5.0, 7.0, 11.0]).smoothed(3);
        assert_eq!(smooth.losses[0], [2.0, 6.0, 11.0]);
        assert_eq!(smooth.iterations, [1.5, 3.5, 5.0]);
    }

    #[test]
    fn differences_end_where_the_shorter_curve_ends() {
        let difference = curve(&[5.0, 7.0]).minus(&curve(&[1.0, 2.0, 3.0]));
        assert_eq!(difference.losses[1], [4.0, 5.0]);
        assert_eq!(difference.iterations, [1.0, 2.0]);
    }

    #[test]
    fn a_cross_marks_what_diverged_and_not_what_was_trained_for_less_long() {
        let drawn = |diverged: bool| {
            let short = Curve { diverged, ..curve(&[0.3, 0.2]) };
            let groups = [("group".to_owned(), vec![short])];
            draw(&Curves { subtitle: "", default: &curve(&[0.3, 0.2, 0.1]), groups: &groups }).unwrap()
        };
        let lines = |text: &str| text.matches("<line").count() + text.matches("<polyline").count();
        // Two strokes, three losses, above and below.
        assert_eq!(lines(&drawn(true)), lines(&drawn(false)) + 12);
    }

    #[test]
    fn one_diverging_run_does_not_set_the_axis() {
        let calm: Vec<f64> = (0..100).map(|i| 0.1 + 0.001 * f64::from(i % 10)).collect();
        let wild = curve(&[0.1, 5.0, 1e9, f64::INFINITY]);
        let calm = curve(&calm);
        let (low, high) = span(&[(&calm, INK), (&wild, INK)], 0).unwrap();
        assert!(low < 0.1 && high > 0.109 && high < 1.0, "{low} {high}");
        assert_eq!(span(&[(&curve(&[f64::NAN]), INK)], 0), None);
    }
}
