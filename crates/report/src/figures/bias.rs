//! Figure 7: when and where prompts act. Above: over the timesteps, averaged over patches; below: over the patches,
//! averaged over timesteps, as they lie in the image.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, Axes, Bitmap, Failure, INK, LABEL, PALETTE, SMALL, headline, range, svg, write};

/// The strength of prompts, block by block.
pub struct Bias<'a> {
    /// Which cell and seed they belong to.
    pub title: &'a str,
    /// The timesteps, ascending.
    pub timesteps: &'a [i64],
    /// Patches in a row of the image.
    pub side: usize,
    /// For every block its temporal curve `[timesteps]` and its spatial map `[side * side]`.
    pub blocks: &'a [(Vec<f64>, Vec<f64>)],
}

const CHART: (i32, i32) = (620, 250);
const MAP: i32 = 130;
const TOP: i32 = 62;
const COLUMNS: usize = 4;

/// Draws the figure. All maps share one scale of colours.
pub fn draw(bias: &Bias) -> Result<String, Failure> {
    let rows = bias.blocks.len().div_ceil(COLUMNS) as i32;
    let size = ((CHART.0 + 130) as u32, (TOP + CHART.1 + rows * (MAP + 30) + 16) as u32);
    svg(size, &format!("Structural bias of prompts, {}", bias.title), |root| {
        headline(root, "Structural bias of prompts (weight times length of the prompt)", bias.title)?;
        temporal(root, bias)?;
        spatial(root, bias)
    })
}

fn temporal(root: &Area, bias: &Bias) -> Result<(), Failure> {
    let area = root.clone().shrink((0, TOP), (CHART.0 as u32, CHART.1 as u32));
    let curves = || bias.blocks.iter().map(|(temporal, _)| temporal);
    let last = bias.timesteps.last().copied().unwrap_or(1).max(1) as f64;
    let Some((low, high)) = range(curves().flatten().copied(), 0.06) else { return Ok(()) };
    let axes = Axes {
        room: (8, 12, 42, 66),
        x: (0.0, last),
        y: (low, high),
        numbers: (6, 5),
        title: Some("timestep t"),
        unit: 1.0,
    };
    let mut chart = axes.draw(&area)?;
    for (number, curve) in curves().enumerate() {
        let colour = PALETTE[number % PALETTE.len()];
        let points = bias.timesteps.iter().map(|t| *t as f64).zip(curve.iter().copied());
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        let (x, y) = (CHART.0 + 8, TOP + 16 + number as i32 * 18);
        root.draw(&PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)))?;
        write(root, &format!("block {}", number + 1), (x + 24, y), SMALL, INK, (HPos::Left, VPos::Center))?;
    }
    Ok(())
}

fn spatial(root: &Area, bias: &Bias) -> Result<Vec<Bitmap>, Failure> {
    let maps = || bias.blocks.iter().map(|(_, spatial)| spatial);
    let (low, high) = maps()
        .flatten()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
    let factor = (MAP as usize / bias.side.max(1)).max(1) as u32;
    let mut bitmaps = Vec::new();
    for (number, map) in maps().enumerate() {
        let column = (number % COLUMNS) as i32;
        let place = (66 + column * (MAP + 22), TOP + CHART.1 + 26 + (number / COLUMNS) as i32 * (MAP + 30));
        write(root, &format!("block {}", number + 1), (place.0, place.1 - 4), LABEL, INK, (HPos::Left, VPos::Bottom))?;
        let shade = |value: &f64| {
            let share = if high > low { (value - low) / (high - low) } else { 0.5 };
            let RGBColor(r, g, b) = ViridisRGB.get_color(share);
            [r, g, b]
        };
        let size = (bias.side as u32, bias.side as u32);
        bitmaps.push(Bitmap { place, factor: (factor, factor), size, rgb: map.iter().flat_map(shade).collect() });
    }
    Ok(bitmaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_a_curve_and_a_map() {
        let blocks = vec![(vec![1.0, 2.0, 3.0], vec![0.0, 1.0, 2.0, 3.0]); 5];
        let text = draw(&Bias { title: "dmp", timesteps: &[0, 5, 9], side: 2, blocks: &blocks }).unwrap();
        assert_eq!(text.matches("<image").count(), 5);
        assert_eq!(text.matches("\nblock 5\n").count(), 2, "{text}");
    }
}
