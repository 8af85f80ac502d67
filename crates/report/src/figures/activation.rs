//! Figure 5: how strongly the gate weights every prompt at every timestep, one panel per block. Brighter is stronger.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, Bitmap, Failure, INK, LABEL, SMALL, headline, svg, tick, write};

/// The gate's weights over the timesteps.
pub struct Activation<'a> {
    /// Which cell and seed they belong to.
    pub title: &'a str,
    /// The timesteps, ascending.
    pub timesteps: &'a [i64],
    /// Number of prompted blocks `L'`.
    pub blocks: usize,
    /// Number of prompts `N`.
    pub prompts: usize,
    /// `[timesteps, L', N]`.
    pub weights: &'a [f32],
}

/// Panels side by side, at most; fewer of wide ones, whose figure would be too wide to read.
const COLUMNS: usize = 4;
/// Room for the pixels of a panel, which have whole sizes; more than that if there are more prompts or timesteps.
const ROOM: (usize, usize) = (200, 170);
/// Around the pixels of a panel: left, right, above, below.
const EDGE: (i32, i32, i32, i32) = (58, 10, 26, 34);
const TOP: i32 = 62;
const BAR: i32 = 96;

/// Draws the figure. The colours reach from the 0.5% to the 99.5% quantile over all panels; what lies outside has the
/// end's colour, and the bar says so.
pub fn draw(activation: &Activation) -> Result<String, Failure> {
    let steps = activation.timesteps.len();
    let fit = |room: usize, count: usize| (room / count.max(1)).max(1);
    let factor = (fit(ROOM.0, activation.prompts), fit(ROOM.1, steps));
    let inner = ((activation.prompts * factor.0) as i32, (steps * factor.1) as i32);
    let panel_size = (inner.0 + EDGE.0 + EDGE.1, inner.1 + EDGE.2 + EDGE.3);
    let usual = ROOM.0 as i32 + EDGE.0 + EDGE.1;
    let fitting = (COLUMNS as i32 * usual / panel_size.0) as usize;
    let columns = activation.blocks.min(fitting).clamp(1, COLUMNS);
    let rows = activation.blocks.div_ceil(columns);
    let width = columns as i32 * panel_size.0 + BAR + 24;
    let height = TOP + rows as i32 * panel_size.1 + 4;
    let scale = Scale::of(activation.weights);
    let description = format!("Gate weight per timestep and prompt, {}", activation.title);
    svg((width as u32, height as u32), &description, |root| {
        let subtitle = format!(
            "{} — every row of a panel sums to 1 over its {} prompts; a uniform gate would be {:.4} everywhere",
            activation.title,
            activation.prompts,
            1.0 / activation.prompts as f64
        );
        headline(root, "Prompt activation (brighter = stronger)", &subtitle)?;
        let mut bitmaps = Vec::new();
        for block in 0..activation.blocks {
            let corner = ((block % columns) as i32 * panel_size.0, TOP + (block / columns) as i32 * panel_size.1);
            let place = (corner.0 + EDGE.0, corner.1 + EDGE.2, inner.0, inner.1);
            let factor = (factor.0 as u32, factor.1 as u32);
            let (size, rgb) = panel(root, activation, block, place, &scale)?;
            bitmaps.push(Bitmap { place: (place.0, place.1), factor, size, rgb });
        }
        bitmaps.push(bar(root, &scale, (columns as i32 * panel_size.0 + 20, TOP + EDGE.2, inner.1))?);
        Ok(bitmaps)
    })
}

/// From a weight to a colour.
struct Scale {
    low: f64,
    high: f64,
    least: f64,
    most: f64,
}

impl Scale {
    fn of(weights: &[f32]) -> Self {
        let mut sorted: Vec<f32> = weights.iter().copied().filter(|w| w.is_finite()).collect();
        sorted.sort_by(f32::total_cmp);
        let at = |share: f64| {
            sorted.get((share * sorted.len().saturating_sub(1) as f64).round() as usize).map_or(0.0, |&w| f64::from(w))
        };
        Self { low: at(0.005), high: at(0.995), least: at(0.0), most: at(1.0) }
    }

    fn colour(&self, weight: f64) -> [u8; 3] {
        let span = self.high - self.low;
        let share = if span > 0.0 { ((weight - self.low) / span).clamp(0.0, 1.0) } else { 0.5 };
        let RGBColor(r, g, b) = ViridisRGB.get_color(share);
        [r, g, b]
    }
}

/// Axes of one block, and its pixels with their columns and rows: prompts to the right, timesteps upwards.
fn panel(
    root: &Area,
    activation: &Activation,
    block: usize,
    (x, y, width, height): (i32, i32, i32, i32),
    scale: &Scale,
) -> Result<((u32, u32), Vec<u8>), Failure> {
    let (steps, prompts) = (activation.timesteps.len(), activation.prompts);
    let title = format!("block {}", block + 1);
    write(root, &title, (x + width / 2, y - 6), LABEL, INK, (HPos::Center, VPos::Bottom))?;
    let ends = [(0, "0".to_string()), (width, prompts.saturating_sub(1).to_string())];
    for (at, label) in &ends {
        root.draw(&PathElement::new([(x + at, y + height), (x + at, y + height + 4)], INK))?;
        write(root, label, (x + at, y + height + 6), SMALL, INK, (HPos::Center, VPos::Top))?;
    }
    write(root, "prompt", (x + width / 2, y + height + 6), SMALL, INK, (HPos::Center, VPos::Top))?;
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let index = (share * steps.saturating_sub(1) as f64).round() as usize;
        let row = y + height - (height as f64 * (index as f64 + 0.5) / steps.max(1) as f64).round() as i32;
        root.draw(&PathElement::new([(x - 4, row), (x, row)], INK))?;
        if let Some(timestep) = activation.timesteps.get(index) {
            write(root, &timestep.to_string(), (x - 7, row), SMALL, INK, (HPos::Right, VPos::Center))?;
        }
    }
    if block.is_multiple_of(COLUMNS) {
        let style = ("sans-serif", SMALL).into_font().transform(FontTransform::Rotate270).color(&INK);
        let style = style.pos(plotters::style::text_anchor::Pos::new(HPos::Center, VPos::Top));
        root.draw_text("timestep t", &style, (x - 52, y + height / 2))?;
    }
    let mut rgb = Vec::with_capacity(steps * prompts * 3);
    for step in (0..steps).rev() {
        let start = (step * activation.blocks + block) * prompts;
        for &weight in &activation.weights[start..start + prompts] {
            rgb.extend(scale.colour(f64::from(weight)));
        }
    }
    Ok(((prompts as u32, steps as u32), rgb))
}

/// The colour bar with its ends.
fn bar(root: &Area, scale: &Scale, (x, y, height): (i32, i32, i32)) -> Result<Bitmap, Failure> {
    let span = scale.high - scale.low;
    write(root, "gate weight", (x, y - 10), SMALL, INK, (HPos::Left, VPos::Bottom))?;
    for share in [0.0, 0.5, 1.0] {
        let row = y + height - (height as f64 * share) as i32;
        let value = tick(scale.low + share * span, span / 2.0);
        let clipped = match share {
            0.0 if scale.least < scale.low => "≤ ",
            1.0 if scale.most > scale.high => "≥ ",
            _ => "",
        };
        write(root, &format!("{clipped}{value}"), (x + 21, row), SMALL, INK, (HPos::Left, VPos::Center))?;
    }
    let shade = |row: i32| scale.colour(scale.high - span * f64::from(row) / f64::from(height.max(2) - 1));
    let rgb = (0..height).flat_map(shade).collect();
    Ok(Bitmap { place: (x, y), factor: (16, 1), size: (1, height as u32), rgb })
}
