//! Figures: pure functions of arrays that return SVG text. Same arrays, same bytes.

use std::io;

use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub mod activation;
pub mod bias;
pub mod curves;
pub mod depth;
pub mod forest;
pub mod samples;
pub mod series;

/// Text and axes.
const INK: RGBColor = RGBColor(40, 40, 40);
/// Secondary text, reference lines.
const GREY: RGBColor = RGBColor(120, 120, 120);
/// Grid lines and bands.
const FAINT: RGBColor = RGBColor(225, 225, 225);
/// Colours that stay apart for colour-blind readers (Okabe & Ito 2008), darkest first.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(130, 90, 44),
];
/// Font sizes as plotters counts them (1.24 times the size in the file).
const TITLE: u32 = 19;
const LABEL: u32 = 16;
const SMALL: u32 = 14;

/// What drawing into memory can fail with.
type Failure = DrawingAreaErrorKind<io::Error>;
/// The part of a figure that is being drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels, and where in the figure they lie.
struct Bitmap {
    /// Left and top in the figure.
    place: (i32, i32),
    /// Columns and rows of the figure that one pixel fills.
    factor: (u32, u32),
    /// Columns and rows.
    size: (u32, u32),
    /// RGB, row by row.
    rgb: Vec<u8>,
}

/// What the figures' charts have in common: lines across at the numbers of the vertical axis, none down.
struct Axes<'a> {
    /// Pixels above and right of a chart, and below and left of it, where its numbers stand.
    room: (u32, u32, u32, u32),
    /// Ends of the horizontal axis.
    x: (f64, f64),
    /// Ends of the vertical axis.
    y: (f64, f64),
    /// Numbers on both, about.
    numbers: (usize, usize),
    /// Below the horizontal axis.
    title: Option<&'a str>,
    /// What a one on the vertical axis stands for.
    unit: f64,
}

impl Axes<'_> {
    /// Draws them, for curves to be drawn into.
    fn draw<'a, 'b>(
        &self,
        area: &'a Area<'b>,
    ) -> Result<ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>, Failure> {
        let (above, right, below, left) = self.room;
        let mut chart = ChartBuilder::on(area)
            .margin_top(above)
            .margin_right(right)
            .x_label_area_size(below)
            .y_label_area_size(left)
            .build_cartesian_2d(self.x.0..self.x.1, self.y.0..self.y.1)?;
        let across = |value: &f64| tick(*value, self.x.1 - self.x.0);
        let up = |value: &f64| tick(*value / self.unit, (self.y.1 - self.y.0) / self.unit);
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().light_line_style(TRANSPARENT).bold_line_style(FAINT).axis_style(GREY);
        mesh.x_labels(self.numbers.0).y_labels(self.numbers.1).x_label_formatter(&across).y_label_formatter(&up);
        mesh.label_style(("sans-serif", SMALL).into_font().color(&INK));
        if let Some(title) = self.title {
            mesh.x_desc(title);
        }
        mesh.draw()?;
        Ok(chart)
    }
}

/// Draws one figure on white. `description` is its accessible title. Bitmaps that `draw` returns are laid over the
/// drawing as embedded PNG, unsmoothed.
fn svg(
    (width, height): (u32, u32),
    description: &str,
    draw: impl FnOnce(&Area) -> Result<Vec<Bitmap>, Failure>,
) -> Result<String, Failure> {
    let mut text = String::new();
    let bitmaps = {
        let root = SVGBackend::with_string(&mut text, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let bitmaps = draw(&root)?;
        root.present()?;
        bitmaps
    };
    let head = text.find('>').map_or(0, |at| at + 1);
    text.insert_str(head, &format!("\n<title>{}</title>", escape(description)));
    let images: String = bitmaps.iter().map(embed).collect();
    let tail = text.rfind("</svg>").unwrap_or(text.len());
    text.insert_str(tail, &images);
    Ok(text)
}

/// Text that is safe inside XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A bitmap as an SVG element. It is enlarged here, since not every viewer honours `image-rendering`.
fn embed(bitmap: &Bitmap) -> String {
    let ((x, y), (width, height), rgb) = (bitmap.place, bitmap.size, &bitmap.rgb);
    let (width, height, rgb) = enlarge((width, height), rgb, bitmap.factor);
    format!(
        "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
         style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
        base64(&png((width, height), &rgb))
    )
}

/// Repeats every pixel, without smoothing: width, height, RGB.
fn enlarge((width, height): (u32, u32), rgb: &[u8], (across, down): (u32, u32)) -> (u32, u32, Vec<u8>) {
    let mut large = Vec::with_capacity(rgb.len() * (across * down) as usize);
    for row in rgb.chunks_exact(width as usize * 3) {
        let wide: Vec<u8> = row.chunks_exact(3).flat_map(|pixel| pixel.repeat(across as usize)).collect();
        large.extend(wide.repeat(down as usize));
    }
    (width * across, height * down, large)
}

/// RGB pixels as a PNG file.
pub(crate) fn png((width, height): (u32, u32), rgb: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive)
        .write_image(rgb, width, height, image::ExtendedColorType::Rgb8)
        .expect("writing to memory with matching sizes");
    bytes
}

/// Base64 (RFC 4648) with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |sum, (i, &byte)| sum | u32::from(byte) << (16 - 8 * i));
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(DIGITS[(bits >> (18 - 6 * i)) as usize & 63] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Puts a line of text at a pixel; `across` and `down` say which point of the text the pixel is.
fn write(
    area: &Area,
    text: &str,
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
    (across, down): (HPos, VPos),
) -> Result<(), Failure> {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(across, down));
    area.draw_text(text, &style, at)
}

/// Puts a title in the top left corner.
fn headline(area: &Area, title: &str, subtitle: &str) -> Result<(), Failure> {
    write(area, title, (16, 14), TITLE, INK, (HPos::Left, VPos::Top))?;
    write(area, subtitle, (16, 36), SMALL, GREY, (HPos::Left, VPos::Top))
}

/// A number with as many decimals as an axis of length `span` needs.
fn tick(value: f64, span: f64) -> String {
    let decimals = (2.0 - span.abs().max(1e-12).log10().floor()).clamp(0.0, 8.0) as usize - usize::from(span < 100.0);
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') {
        "0".into()
    } else {
        text.replace('-', "−")
    }
}

/// A signed number with the two significant digits that an interval of this half width deserves; zero has no sign.
pub(crate) fn signed(value: f64, half_width: f64) -> String {
    let decimals = (1.0 - half_width.abs().max(1e-7).log10().floor()).clamp(1.0, 8.0) as usize;
    let text = format!("{value:+.decimals$}");
    if text.contains(|letter: char| ('1'..='9').contains(&letter)) { text } else { text[1..].to_owned() }
}

/// The range of finite values, widened by a share of itself on both sides; `None` where there is no finite value.
fn range(values: impl IntoIterator<Item = f64>, margin: f64) -> Option<(f64, f64)> {
    let (low, high) = values
        .into_iter()
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return None;
    }
    let pad = if high > low { (high - low) * margin } else { low.abs().max(1e-6) * 0.05 };
    Some((low - pad, high + pad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_the_rfc() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn ticks_have_the_decimals_their_axis_needs() {
        assert_eq!(tick(0.25, 1.0), "0.2");
        assert_eq!(tick(-0.00004, 0.1), "0");
        assert_eq!(tick(-0.123, 0.2), "−0.12");
        assert_eq!(tick(1500.0, 3000.0), "1500");
    }

    #[test]
    fn differences_have_the_digits_that_their_interval_deserves() {
        assert_eq!([signed(-2.651, 0.74), signed(0.0241, 0.0062), signed(50.0, 62.2)], ["-2.65", "+0.0241", "+50.0"]);
        assert_eq!(
            [signed(-0.00004, 0.0002), signed(-0.00004, 0.3), signed(0.0, 0.0)],
            ["-0.00004", "0.00", "0.00000000"]
        );
    }

    #[test]
    fn bitmaps_come_back_from_their_png() {
        let rgb: Vec<u8> = (0..5 * 3 * 3).map(|i| i as u8 * 5).collect();
        let decoded = image::load_from_memory(&png((5, 3), &rgb)).unwrap().to_rgb8();
        assert_eq!(decoded.dimensions(), (5, 3));
        assert_eq!(decoded.into_raw(), rgb);
    }

    #[test]
    fn markup_in_a_description_is_escaped() {
        let text = svg((40, 20), "a < b & \"c\"", |_| Ok(vec![])).unwrap();
        assert!(text.contains("<title>a &lt; b &amp; &quot;c&quot;</title>"), "{text}");
        assert!(text.trim_end().ends_with("</svg>"));
    }
}
