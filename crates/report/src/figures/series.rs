//! Figure 1: the distance over further training, one curve per method, beside the values that the paper prints.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, Axes, Failure, GREY, INK, LABEL, PALETTE, SMALL, headline, range, svg, write};

/// What the figure shows.
pub struct Series<'a> {
    /// Name of our metric.
    pub metric: &'a str,
    /// What an interval means, in a few words.
    pub interval: &'a str,
    /// The baseline's mean and the paper's value of it, where all curves start from it.
    pub start: (Option<f64>, Option<f64>),
    /// One per method.
    pub curves: &'a [Curve],
}

/// One method.
pub struct Curve {
    /// Its name.
    pub label: String,
    /// Its points, in the order of the iterations.
    pub points: Vec<Point>,
}

/// A method after some iterations.
pub struct Point {
    /// Our iterations, and the paper's.
    pub iterations: (f64, f64),
    /// The mean of our metric.
    pub mean: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// The value that the paper prints.
    pub paper: Option<f64>,
}

/// Iterations, value, interval.
type Place = (f64, f64, Option<(f64, f64)>);

const PANEL: i32 = 400;
const HEIGHT: u32 = 380;
const LEGEND: i32 = 190;

/// Draws our curves on the left and the paper's printed values on the right.
pub fn draw(series: &Series) -> Result<String, Failure> {
    let description = format!("{} over further training", series.metric);
    svg(((2 * PANEL + LEGEND) as u32, HEIGHT), &description, |root| {
        headline(root, "Further training", series.interval)?;
        let with_start = |start: Option<f64>, points: Vec<Place>| -> Vec<Place> {
            start.map(|value| (0.0, value, None)).into_iter().chain(points).collect()
        };
        let ours = |point: &Point| point.mean.map(|mean| (point.iterations.0, mean, point.interval));
        let paper = |point: &Point| point.paper.map(|value| (point.iterations.1, value, None));
        let curves = |start, of: &dyn Fn(&Point) -> Option<Place>| -> Vec<Vec<Place>> {
            series.curves.iter().map(|curve| with_start(start, curve.points.iter().filter_map(of).collect())).collect()
        };
        panel(root, 0, &format!("ours: {}", series.metric), &curves(series.start.0, &ours))?;
        panel(root, PANEL, "paper: FID", &curves(series.start.1, &paper))?;
        for (number, curve) in series.curves.iter().enumerate() {
            let (x, y) = (2 * PANEL + 14, 100 + number as i32 * 22);
            root.draw(&PathElement::new([(x, y), (x + 22, y)], colour(number).stroke_width(3)))?;
            write(root, &curve.label, (x + 30, y), SMALL, INK, (HPos::Left, VPos::Center))?;
        }
        Ok(vec![])
    })
}

fn colour(number: usize) -> RGBColor {
    PALETTE[number % PALETTE.len()]
}

fn panel(root: &Area, left: i32, title: &str, curves: &[Vec<Place>]) -> Result<(), Failure> {
    let area = root.clone().shrink((left, 58), (PANEL as u32, HEIGHT - 62));
    write(&area, title, (70, 4), LABEL, INK, (HPos::Left, VPos::Top))?;
    let places = || curves.iter().flatten();
    let values = places().flat_map(|&(_, value, interval)| {
        let (a, b) = interval.unwrap_or((value, value));
        [value, a, b]
    });
    let last = places().map(|(at, ..)| *at).fold(0.0, f64::max);
    let Some((low, high)) = range(values, 0.08).filter(|_| last > 0.0) else {
        return write(&area, "not run", (PANEL / 2, 130), LABEL, GREY, (HPos::Center, VPos::Center));
    };
    let axes = Axes {
        room: (28, 16, 46, 66),
        x: (0.0, last * 1.03),
        y: (low, high),
        numbers: (5, 6),
        title: Some("further iterations"),
        unit: 1.0,
    };
    let mut chart = axes.draw(&area)?;
    for (number, places) in curves.iter().enumerate() {
        let colour = colour(number);
        chart.draw_series(LineSeries::new(places.iter().map(|&(x, y, _)| (x, y)), colour.stroke_width(2)))?;
        // Intervals of curves that meet stand beside each other.
        let aside = last * 0.006 * (number as f64 - (curves.len() as f64 - 1.0) / 2.0);
        for &(x, y, interval) in places {
            if let Some((a, b)) = interval {
                let bar = [(x + aside, a), (x + aside, b)];
                chart.draw_series([PathElement::new(bar, colour.stroke_width(2))])?;
            }
            chart.draw_series([Circle::new((x, y), 3, colour.filled())])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_panels_have_every_point_that_there_is() {
        let point = |at: f64, mean, paper| Point { iterations: (at, 100.0 * at), mean, interval: None, paper };
        let curve = |label: &str, shift: f64| Curve {
            label: label.into(),
            points: vec![point(1.0, Some(2.0 + shift), Some(6.0 + shift)), point(2.0, None, Some(5.9 + shift))],
        };
        let curves = [curve("DMP", 0.0), curve("prompt tuning", 0.3)];
        let figure = Series { metric: "fd", interval: "", start: (Some(2.1), Some(6.26)), curves: &curves };
        let text = draw(&figure).unwrap();
        // The start counts for each curve: (1 + 1) and (1 + 2) points of two curves.
        assert_eq!(text.matches("<circle").count(), 10, "{text}");
        assert!(text.contains("prompt tuning") && text.contains("ours: fd"));
        let empty = Series { start: (None, None), curves: &[], ..figure };
        assert_eq!(draw(&empty).unwrap().matches("not run").count(), 2);
    }
}
