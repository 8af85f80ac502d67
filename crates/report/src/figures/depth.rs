//! Figure 4: the distance against the number of blocks that have prompts, beside the values that the paper prints.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, Axes, Failure, GREY, INK, LABEL, PALETTE, SMALL, headline, range, svg, tick, write};

/// What the figure shows.
pub struct Depths<'a> {
    /// Name of our metric.
    pub metric: &'a str,
    /// What an interval means, in a few words.
    pub interval: &'a str,
    /// The baseline's mean, and the paper's value of it.
    pub baseline: (Option<f64>, Option<f64>),
    /// Points from shallow to deep; the baseline is not among them.
    pub points: &'a [Point],
}

/// One depth.
pub struct Point {
    /// Its name on the axis, with our number of blocks.
    pub label: String,
    /// Its name with the paper's number of blocks.
    pub paper_label: String,
    /// The mean of our metric.
    pub mean: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// The value that the paper prints.
    pub paper: Option<f64>,
}

/// A value, its interval and where it stands on the axis.
type Drawn = (usize, f64, Option<(f64, f64)>);

const PANEL: i32 = 440;
const HEIGHT: u32 = 380;
/// Room right of a panel, for a word.
const BESIDE: u32 = 74;

/// Draws our curve on the left and the paper's printed values on the right.
pub fn draw(depths: &Depths) -> Result<String, Failure> {
    let description = format!("{} against prompt depth", depths.metric);
    svg((2 * PANEL as u32 + 16, HEIGHT), &description, |root| {
        headline(root, "Prompt depth", depths.interval)?;
        let labels = |of: fn(&Point) -> &str| -> Vec<&str> {
            std::iter::once("none").chain(depths.points.iter().map(of)).collect()
        };
        let with_start = |start: Option<f64>, points: Vec<Drawn>| -> Vec<Drawn> {
            start.map(|value| (0, value, None)).into_iter().chain(points).collect()
        };
        let numbered = || depths.points.iter().enumerate().map(|(i, point)| (i + 1, point));
        let ours = numbered().filter_map(|(i, p)| p.mean.map(|mean| (i, mean, p.interval))).collect();
        let paper = numbered().filter_map(|(i, p)| p.paper.map(|value| (i, value, None))).collect();
        let (title, names) = (format!("ours: {}", depths.metric), labels(|point| &point.label));
        panel(root, 0, &title, &names, &with_start(depths.baseline.0, ours), PALETTE[0])?;
        let title = "paper: FID (only these are printed)";
        let names = labels(|point| &point.paper_label);
        panel(root, PANEL, title, &names, &with_start(depths.baseline.1, paper), PALETTE[1])?;
        Ok(vec![])
    })
}

fn panel(
    root: &Area,
    left: i32,
    title: &str,
    labels: &[&str],
    points: &[Drawn],
    colour: RGBColor,
) -> Result<(), Failure> {
    let area = root.clone().shrink((left, 58), (PANEL as u32, HEIGHT - 62));
    write(&area, title, (70, 4), LABEL, INK, (HPos::Left, VPos::Top))?;
    let values = points.iter().flat_map(|&(_, value, interval)| {
        let (a, b) = interval.unwrap_or((value, value));
        [value, a, b]
    });
    let Some((low, high)) = range(values, 0.12) else {
        return write(&area, "not run", (PANEL / 2, 130), LABEL, GREY, (HPos::Center, VPos::Center));
    };
    let (span, last) = (high - low, labels.len() as f64 - 0.5);
    let axes =
        Axes { room: (28, BESIDE, 48, 66), x: (-0.5, last), y: (low, high), numbers: (0, 6), title: None, unit: 1.0 };
    let mut chart = axes.draw(&area)?;
    let bottom = area.dim_in_pixel().1 as i32;
    let (corner_x, corner_y) = area.get_base_pixel();
    for (i, label) in labels.iter().enumerate() {
        let x = chart.backend_coord(&(i as f64, low)).0 - corner_x;
        write(&area, label, (x, bottom - 42), SMALL, INK, (HPos::Center, VPos::Top))?;
    }
    let middle = chart.backend_coord(&(last / 2.0 - 0.25, low)).0 - corner_x;
    write(&area, "blocks with prompts", (middle, bottom - 6), SMALL, INK, (HPos::Center, VPos::Bottom))?;
    if let Some(&(0, start, _)) = points.first() {
        let line = [(-0.5, start), (last, start)];
        chart.draw_series(DashedLineSeries::new(line, 6, 4, GREY.stroke_width(1)))?;
        let (x, y) = chart.backend_coord(&(last, start));
        // Beside the panel: the curve and its numbers may lie on the line.
        write(&area, "baseline", (x - corner_x + 8, y - corner_y), SMALL, GREY, (HPos::Left, VPos::Center))?;
    }
    let joined = points.len() == labels.len();
    if joined {
        let line = points.iter().map(|&(i, value, _)| (i as f64, value));
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
    }
    for (place, &(i, value, interval)) in points.iter().enumerate() {
        if let Some((a, b)) = interval {
            chart.draw_series([PathElement::new([(i as f64, a), (i as f64, b)], colour.stroke_width(2))])?;
        }
        let (x, y) = chart.backend_coord(&(i as f64, value));
        let (x, y) = (x - corner_x, y - corner_y);
        area.draw(&Circle::new((x, y), 4, colour.filled()))?;
        // Right of the point, and below where the curve goes on upwards.
        let rises = joined && points.get(place + 1).is_some_and(|&(_, next, _)| next > value);
        let (shift, side) = if rises { (4, VPos::Top) } else { (-4, VPos::Bottom) };
        write(&area, &tick(value, span / 3.0), (x + 8, y + shift), SMALL, INK, (HPos::Left, side))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(label: &str, paper_label: &str, mean: f64) -> Point {
        Point { label: label.into(), paper_label: paper_label.into(), mean: Some(mean), interval: None, paper: None }
    }

    /// An attribute of a text.
    fn attribute<'s>(svg: &'s str, text: &str, name: &str) -> &'s str {
        let at = svg.find(&format!("\n{text}\n")).unwrap_or_else(|| panic!("no {text} in {svg}"));
        let start = svg[..at].rfind(&format!(" {name}=\"")).unwrap();
        svg[start + name.len() + 3..].split('"').next().unwrap()
    }

    /// On which side of its place a text stands.
    fn side<'s>(svg: &'s str, text: &str) -> &'s str {
        attribute(svg, text, "dy")
    }

    #[test]
    fn numbers_stand_on_the_side_that_the_curve_leaves_free() {
        let draw = |means: [f64; 2]| {
            let points = [point("first (1)", "first (1)", means[0]), point("all (4)", "all (12)", means[1])];
            draw(&Depths { metric: "fd", interval: "", baseline: (Some(2.0), None), points: &points }).unwrap()
        };
        let (up, down) = (draw([2.1, 2.2]), draw([1.9, 1.8]));
        let (below, above) = (side(&up, "2.000"), side(&down, "2.000"));
        assert_ne!(below, above);
        assert_eq!([side(&up, "2.100"), side(&up, "2.200")], [below, above]);
        assert_eq!([side(&down, "1.900"), side(&down, "1.800")], [above; 2]);
        // A number of five signs is some 40 pixels wide; the word stands right of the last one, whatever its height.
        let left = |text: &str| attribute(&up, text, "x").parse::<i32>().unwrap();
        assert!(left("baseline") >= left("2.200") + 36, "{} {}", left("baseline"), left("2.200"));
    }

    #[test]
    fn each_panel_counts_its_own_networks_blocks() {
        let printed = Point { paper: Some(5.87), ..point("all (4)", "all (12)", 2.2) };
        let points = [point("first (1)", "first (1)", 2.1), printed];
        let baseline = (Some(2.0), Some(6.27));
        let both = draw(&Depths { metric: "fd", interval: "", baseline, points: &points }).unwrap();
        assert!(both.contains("all (4)") && both.contains("all (12)"));
    }
}
