//! Figure 4: the distance against the number of blocks that have prompts, beside the values that the paper prints.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, FAINT, Failure, GREY, INK, LABEL, PALETTE, SMALL, headline, range, svg, tick, write};

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
    /// Its name on the axis.
    pub label: String,
    /// The mean of our metric.
    pub mean: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// The value that the paper prints.
    pub paper: Option<f64>,
}

/// A value, its interval and where it stands on the axis.
type Drawn = (usize, f64, Option<(f64, f64)>);

const PANEL: i32 = 400;
const HEIGHT: u32 = 380;

/// Draws our curve on the left and the paper's printed values on the right.
pub fn draw(depths: &Depths) -> Result<String, Failure> {
    let description = format!("{} against prompt depth", depths.metric);
    svg((2 * PANEL as u32 + 16, HEIGHT), &description, |root| {
        headline(root, "Prompt depth", depths.interval)?;
        let labels: Vec<&str> = std::iter::once("none").chain(depths.points.iter().map(|p| p.label.as_str())).collect();
        let with_start = |start: Option<f64>, points: Vec<Drawn>| -> Vec<Drawn> {
            start.map(|value| (0, value, None)).into_iter().chain(points).collect()
        };
        let numbered = || depths.points.iter().enumerate().map(|(i, point)| (i + 1, point));
        let ours = numbered().filter_map(|(i, p)| p.mean.map(|mean| (i, mean, p.interval))).collect();
        let paper = numbered().filter_map(|(i, p)| p.paper.map(|value| (i, value, None))).collect();
        panel(root, 0, &format!("ours: {}", depths.metric), &labels, &with_start(depths.baseline.0, ours), PALETTE[0])?;
        let title = "paper: FID (only these are printed)";
        panel(root, PANEL, title, &labels, &with_start(depths.baseline.1, paper), PALETTE[1])?;
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
    let mut chart = ChartBuilder::on(&area)
        .margin_top(28)
        .margin_right(16)
        .x_label_area_size(48)
        .y_label_area_size(66)
        .build_cartesian_2d(-0.5f64..last, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&|value| tick(*value, span))
        .label_style(("sans-serif", SMALL).into_font().color(&INK))
        .draw()?;
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
        write(&area, "baseline", (x - corner_x - 4, y - corner_y - 5), SMALL, GREY, (HPos::Right, VPos::Bottom))?;
    }
    if points.len() == labels.len() {
        let line = points.iter().map(|&(i, value, _)| (i as f64, value));
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
    }
    for &(i, value, interval) in points {
        if let Some((a, b)) = interval {
            chart.draw_series([PathElement::new([(i as f64, a), (i as f64, b)], colour.stroke_width(2))])?;
        }
        let (x, y) = chart.backend_coord(&(i as f64, value));
        let (x, y) = (x - corner_x, y - corner_y);
        area.draw(&Circle::new((x, y), 4, colour.filled()))?;
        write(&area, &tick(value, span / 3.0), (x + 8, y - 4), SMALL, INK, (HPos::Left, VPos::Bottom))?;
    }
    Ok(())
}
