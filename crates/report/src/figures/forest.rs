//! Every cell's difference to the baseline with its interval, grouped as in the table.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{FAINT, Failure, GREY, INK, LABEL, PALETTE, SMALL, headline, range, signed, svg, tick, write};

/// What the figure shows.
pub struct Forest<'a> {
    /// Name of the metric; lower is better.
    pub metric: &'a str,
    /// What an interval means, in a few words.
    pub interval: &'a str,
    /// Rows, top to bottom.
    pub rows: &'a [Row],
    /// The smallest difference that the protocol could have detected.
    pub detectable: Option<f64>,
}

/// One line of the figure.
pub struct Row {
    /// The group it belongs to; a new one starts with its heading.
    pub group: String,
    /// Its name.
    pub label: String,
    /// The difference to the baseline.
    pub difference: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// What is said beside it: the verdict, or why there is no number.
    pub note: String,
    /// How it is marked.
    pub mark: Mark,
    /// Whether it is the same run as an earlier row.
    pub again: bool,
}

/// How a row is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The difference has the paper's sign, and its interval excludes zero.
    Holds,
    /// The difference has the other sign, and its interval excludes zero.
    Contradicted,
    /// Neither.
    Open,
    /// The positive control.
    Control,
}

impl Mark {
    fn colour(self) -> RGBColor {
        match self {
            Self::Holds => PALETTE[0],
            Self::Contradicted => PALETTE[1],
            Self::Open => GREY,
            Self::Control => INK,
        }
    }
}

const LEFT: i32 = 290;
const PLOT: i32 = 420;
const RIGHT: i32 = 330;
const TOP: i32 = 66;
const LINE: i32 = 21;

/// Draws the figure. The axis covers all cells but those that reach far beyond the others; an arrow at the edge says so.
pub fn draw(forest: &Forest) -> Result<String, Failure> {
    let mut lines = 0;
    let places: Vec<i32> = (0..forest.rows.len())
        .map(|i| {
            lines += 1 + i32::from(i == 0 || forest.rows[i].group != forest.rows[i - 1].group);
            lines
        })
        .collect();
    let height = lines * LINE + 14;
    let size = ((LEFT + PLOT + RIGHT) as u32, (TOP + height + 52) as u32);
    let (low, high) = axis(forest);
    let description = format!("Difference of every cell to the baseline in {}", forest.metric);
    svg(size, &description, |root| {
        headline(root, &format!("Difference to the baseline in {}", forest.metric), forest.interval)?;
        let span = high - low;
        let across = |value: f64| LEFT + ((value - low) / span * f64::from(PLOT)).round() as i32;
        let bottom = TOP + height;
        if let Some(smallest) = forest.detectable {
            let band = [(across((-smallest).max(low)), TOP), (across(smallest.min(high)), bottom)];
            root.draw(&Rectangle::new(band, RGBColor(235, 235, 235).filled()))?;
        }
        let mut chart = ChartBuilder::on(root)
            .margin_left(LEFT)
            .margin_right(RIGHT)
            .margin_top(TOP)
            .margin_bottom(22)
            .x_label_area_size(30)
            .build_cartesian_2d(low..high, 0f64..1f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(GREY)
            .x_labels(7)
            .x_label_formatter(&|value| tick(*value, span))
            .label_style(("sans-serif", SMALL).into_font().color(&INK))
            .draw()?;
        root.draw(&PathElement::new([(across(0.0), TOP), (across(0.0), bottom)], INK.stroke_width(1)))?;
        let foot = size.1 as i32 - 6;
        write(root, "← better", (across(0.0) - 8, foot), SMALL, GREY, (HPos::Right, VPos::Bottom))?;
        write(root, "worse →", (across(0.0) + 8, foot), SMALL, GREY, (HPos::Left, VPos::Bottom))?;
        for (index, (row, place)) in forest.rows.iter().zip(&places).enumerate() {
            let y = TOP + place * LINE - LINE / 2 + 6;
            if index == 0 || row.group != forest.rows[index - 1].group {
                write(root, &row.group, (16, y - LINE), LABEL, INK, (HPos::Left, VPos::Center))?;
            }
            let colour = row.mark.colour();
            write(root, &row.label, (LEFT - 12, y), SMALL, INK, (HPos::Right, VPos::Center))?;
            // Two significant digits of the row's own interval: rows differ by orders of magnitude.
            let resolution = row.interval.map_or(span / 10.0, |(low, high)| high - low);
            let number = |value: f64| signed(value, resolution / 2.0);
            let note = match (row.difference, row.interval) {
                (Some(d), Some((a, b))) => format!("{} [{}, {}] {}", number(d), number(a), number(b), row.note),
                (Some(d), None) => format!("{} {}", number(d), row.note),
                (None, _) => row.note.clone(),
            };
            write(root, &note, (LEFT + PLOT + 12, y), SMALL, colour, (HPos::Left, VPos::Center))?;
            if let Some(difference) = row.difference {
                let (a, b) = row.interval.unwrap_or((difference, difference));
                if a <= high && b >= low {
                    let ends = [(across(a.max(low)), y), (across(b.min(high)), y)];
                    root.draw(&PathElement::new(ends, colour.stroke_width(2)))?;
                }
                mark(
                    root,
                    row.mark,
                    difference.clamp(low, high),
                    difference,
                    (across(difference.clamp(low, high)), y),
                )?;
            }
        }
        Ok(vec![])
    })
}

/// A disc, a diamond for the control, an arrow head at the edge for what lies beyond the axis.
fn mark(root: &super::Area, mark: Mark, shown: f64, value: f64, (x, y): (i32, i32)) -> Result<(), Failure> {
    let colour = mark.colour();
    if shown != value {
        let toward = if value > shown { 1 } else { -1 };
        root.draw(&Polygon::new([(x - 9 * toward, y - 6), (x, y), (x - 9 * toward, y + 6)], colour.filled()))
    } else if mark == Mark::Control {
        root.draw(&Polygon::new([(x - 6, y), (x, y - 6), (x + 6, y), (x, y + 6)], colour.filled()))
    } else {
        root.draw(&Circle::new((x, y), 4, colour.filled()))
    }
}

/// How many times the median row's reach a row may have before the axis is drawn without it.
const OUTLIER: f64 = 5.0;

/// How far a row reaches from zero, its interval included.
fn reach(row: &Row) -> Option<f64> {
    let (low, high) = row.interval.unwrap_or((row.difference?, row.difference?));
    Some(low.abs().max(high.abs()))
}

/// The range of the cells' intervals, zero and the detectable difference included. The control, and cells that reach
/// far beyond the others, do not stretch it: the others would shrink to points.
fn axis(forest: &Forest) -> (f64, f64) {
    let cells = || forest.rows.iter().filter(|row| row.mark != Mark::Control && row.difference.is_some());
    let mut reaches: Vec<f64> = cells().filter(|row| !row.again).filter_map(reach).collect();
    reaches.sort_by(f64::total_cmp);
    let limit = reaches.get(reaches.len() / 2).map_or(f64::INFINITY, |median| median * OUTLIER);
    let within = cells().filter(|row| reach(row).is_some_and(|reach| reach <= limit));
    let ends = within.flat_map(|row| row.interval.map_or([row.difference; 2], |(low, high)| [Some(low), Some(high)]));
    let band = forest.detectable.filter(|smallest| *smallest <= limit).unwrap_or_default();
    range(ends.flatten().chain([-band, 0.0, band]), 0.04).unwrap_or((-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(difference: f64, half: f64, mark: Mark) -> Row {
        let interval = Some((difference - half, difference + half));
        Row {
            group: "g".into(),
            label: "l".into(),
            difference: Some(difference),
            interval,
            note: "".into(),
            mark,
            again: false,
        }
    }

    #[test]
    fn what_lies_far_out_does_not_stretch_the_axis() {
        let small = || (0..5).map(|i| row(0.02 * f64::from(i - 2), 0.01, Mark::Open));
        let rows: Vec<Row> = small().chain([row(4.0, 8.0, Mark::Open), row(2.0, 0.5, Mark::Control)]).collect();
        let mut forest = Forest { metric: "fd", interval: "", rows: &rows, detectable: Some(0.03) };
        let (low, high) = axis(&forest);
        assert!(low < -0.05 && low > -0.06 && high > 0.05 && high < 0.06, "{low} {high}");
        let text = draw(&forest).unwrap();
        // An arrow head for each of the two beyond the axis, a disc for each cell within.
        assert_eq!((text.matches("<polygon").count(), text.matches("<circle").count()), (2, 5));
        // The other cells' names for one run do not make it the median.
        let again: Vec<Row> =
            small().chain((0..20).map(|_| Row { again: true, ..row(0.0, 1e-4, Mark::Open) })).collect();
        forest.rows = &again;
        assert_eq!(axis(&forest), (low, high));
    }
}
