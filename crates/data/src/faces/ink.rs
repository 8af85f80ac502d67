//! Antialiased shapes: signed distances in pixels, and how much of a pixel they cover.

/// A colour in [0, 1] (it may overshoot; the last step clamps).
pub(super) type Colour = [f32; 3];

/// Between `a` (t = 0) and `b` (t = 1).
pub(super) fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Between two colours.
pub(super) fn blend(a: Colour, b: Colour, t: f32) -> Colour {
    [mix(a[0], b[0], t), mix(a[1], b[1], t), mix(a[2], b[2], t)]
}

/// A colour times a brightness.
pub(super) fn scaled(colour: Colour, by: f32) -> Colour {
    colour.map(|v| v * by)
}

/// A colour at `t` in [-1, 1] on the polyline through equally spaced `stops`.
pub(super) fn along<const N: usize>(stops: &[Colour; N], t: f32) -> Colour {
    let place = (t * 0.5 + 0.5).clamp(0.0, 1.0) * (N - 1) as f32;
    let i = (place as usize).min(N - 2);
    blend(stops[i], stops[i + 1], place - i as f32)
}

/// 0 up to `from`, 1 from `to` on, `3 s^2 - 2 s^3` between.
pub(super) fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let s = ((x - from) / (to - from)).clamp(0.0, 1.0);
    s * s * (3.0 - 2.0 * s)
}

/// Share of a pixel of size `pixel` covered by the inside of a shape at signed distance `distance` (inside negative).
pub(super) fn inside(distance: f32, pixel: f32) -> f32 {
    smoothstep(0.75, -0.75, distance / pixel)
}

/// Share of a pixel covered by a line of half-width `half` at distance `distance` from its middle: the overlap of the
/// intervals, so that it fades to nothing with its width.
pub(super) fn line(distance: f32, half: f32, pixel: f32) -> f32 {
    let d = distance.abs();
    let reach = 0.5 * pixel;
    (((d + reach).min(half) - (d - reach).max(-half)) / pixel).clamp(0.0, 1.0)
}

/// Signed distance to an ellipse at the origin with radii `a`, `b`, to first order: `f |f| / |grad f^2|`.
pub(super) fn ellipse(x: f32, y: f32, a: f32, b: f32) -> f32 {
    let (u, v) = (x / a, y / b);
    let level = u * u + v * v;
    let (gx, gy) = (u / a, v / b);
    let slope = (gx * gx + gy * gy).sqrt();
    // At the centre the slope vanishes; any distance deep inside will do.
    (level - 1.0) * 0.5 / slope.max(0.25 / a.max(b))
}

/// Signed distance to a box at the origin of half-sizes `a`, `b` with corners of radius `r`.
pub(super) fn rounded_box(x: f32, y: f32, a: f32, b: f32, r: f32) -> f32 {
    let (dx, dy) = (x.abs() - (a - r), y.abs() - (b - r));
    let (ox, oy) = (dx.max(0.0), dy.max(0.0));
    (ox * ox + oy * oy).sqrt() + dx.max(dy).min(0.0) - r
}
