//! The pixels of a face: its parts, painted over each other from back to front.

use super::face::Face;
use super::ink::{Colour, blend, ellipse, inside, line, mix, rounded_box, scaled, smoothstep};

const INK: Colour = [0.06, 0.05, 0.07];
const WHITE: Colour = [0.97, 0.97, 0.97];
const THROAT: Colour = [0.28, 0.07, 0.08];

/// Left and right in the picture.
const SIDES: [f32; 2] = [-1.0, 1.0];

/// How far eyes, mouth and the tip of the nose stand out from the axis that the head turns around.
const EYE_DEPTH: f32 = 0.52;
const MOUTH_DEPTH: f32 = 0.66;
const NOSE_DEPTH: f32 = 0.85;

/// A place in the picture, in the units of [`Face`].
struct Spot {
    /// Coordinates of the rolled head.
    x: f32,
    y: f32,
    /// Upright coordinates of the body.
    body: [f32; 2],
    /// Size of a pixel.
    pixel: f32,
}

impl Face {
    /// Draws the face to `out`, `[3, side, side]`.
    pub(super) fn draw(&self, side: usize, out: &mut [u8]) {
        let step = 2.0 / side as f32;
        for row in 0..side {
            for column in 0..side {
                // Middle of the pixel in the frame [-1, 1]^2.
                let (fx, fy) = ((column as f32 + 0.5) * step - 1.0, (row as f32 + 0.5) * step - 1.0);
                let body = [(fx - self.centre[0]) / self.unit, (fy - self.centre[1]) / self.unit];
                let [cos, sin] = self.roll;
                let (x, y) = (cos * body[0] + sin * body[1], cos * body[1] - sin * body[0]);
                let spot = Spot { x, y, body, pixel: step / self.unit };

                let backdrop = scaled(self.backdrop, 1.0 - 0.12 * fy + 0.25 * self.light * fx);
                for (c, v) in self.paint(backdrop, &spot).into_iter().enumerate() {
                    out[(c * side + row) * side + column] = (v * 255.0 + 0.5) as u8;
                }
            }
        }
    }

    /// The colour at `spot`, on `backdrop`.
    fn paint(&self, backdrop: Colour, spot: &Spot) -> Colour {
        let mut colour = self.shirt(backdrop, spot);
        colour = self.back_hair(colour, spot);
        colour = self.neck(colour, spot);
        let head = self.head_distance(spot);
        // Farther out there is no part of the head.
        if head < 0.6 {
            colour = self.ears(colour, spot);
            let mut skin = self.head(spot);
            skin = self.nose(skin, spot);
            skin = self.mouth(skin, spot);
            for side in SIDES {
                skin = self.brow(skin, side, spot);
                skin = self.eye(skin, side, spot);
            }
            colour = blend(colour, skin, inside(head, spot.pixel));
            colour = self.front_hair(colour, spot);
            colour = self.spectacles(colour, spot);
        }
        colour
    }

    /// Brightness of a surface that faces to the side by `u` in [-1, 1].
    fn lit(&self, u: f32) -> f32 {
        1.0 + self.light * u.clamp(-1.0, 1.0)
    }

    /// Share of its width that the side of the face at `side` keeps when the head is turned.
    fn near(&self, side: f32) -> f32 {
        1.0 - 0.45 * side * self.turn
    }

    fn shirt(&self, colour: Colour, spot: &Spot) -> Colour {
        let [x, y] = spot.body;
        let shoulders = ellipse(x, y - 2.15, 1.55, 0.98);
        let fold = 0.85 + 0.15 * smoothstep(0.0, -0.4, shoulders);
        blend(colour, scaled(self.shirt, fold * self.lit(0.6 * x)), inside(shoulders, spot.pixel))
    }

    fn neck(&self, colour: Colour, spot: &Spot) -> Colour {
        let [x, y] = spot.body;
        let neck = rounded_box(x, y - 0.85, 0.08 + 0.40 * self.width, 0.55, 0.15);
        let shadow_of_chin = 0.62 + 0.20 * smoothstep(0.95, 1.35, y);
        blend(colour, scaled(self.skin, shadow_of_chin * self.lit(x)), inside(neck, spot.pixel))
    }

    /// Signed distance to the hair: a cap around the skull and the lengths beside the face.
    fn hair_distance(&self, spot: &Spot) -> f32 {
        let (x, y, volume) = (spot.x + 0.10 * self.turn, spot.y, self.hair_volume);
        let cap = ellipse(x, y + 0.10, self.width + volume, 0.92 + volume).max(y - 0.25);
        let (top, end) = (-0.2, self.hair_end);
        let half_width = self.width + 0.05 + 0.75 * volume;
        let lengths = rounded_box(x, y - 0.5 * (end + top), half_width, 0.5 * (end - top), 0.2);
        cap.min(lengths)
    }

    /// Hair at signed distance `outline` from its outline: darker at the rim, shining near the top.
    fn hair_at(&self, outline: f32, spot: &Spot) -> Colour {
        let rim = 0.68 + 0.32 * smoothstep(0.0, -0.22, outline);
        let shine = 0.056 * smoothstep(0.5, 0.0, (spot.y + 0.75).abs()) * self.lit(spot.x);
        scaled(self.hair, rim * self.lit(spot.x)).map(|v| v + shine * (0.3 + v))
    }

    fn back_hair(&self, colour: Colour, spot: &Spot) -> Colour {
        let outline = self.hair_distance(spot);
        blend(colour, scaled(self.hair_at(outline, spot), 0.86), inside(outline, spot.pixel))
    }

    fn front_hair(&self, colour: Colour, spot: &Spot) -> Colour {
        let outline = self.hair_distance(spot).min(self.head_distance(spot) - 0.02);
        // The hairline falls towards the temples.
        let u = (spot.x - 0.35 * self.turn) / self.width;
        let hairline = self.hairline + u * (self.parting + u * (0.12 + 0.62 * u * u));
        let distance = outline.max(spot.y - hairline);
        blend(colour, self.hair_at(outline, spot), inside(distance, spot.pixel))
    }

    /// Signed distance to the head: an ellipse that narrows towards the chin.
    fn head_distance(&self, spot: &Spot) -> f32 {
        let narrowing = 1.0 - 0.16 * smoothstep(-0.2, 1.0, spot.y);
        ellipse((spot.x - 0.06 * self.turn) / narrowing, spot.y, self.width, 1.0)
    }

    fn ears(&self, colour: Colour, spot: &Spot) -> Colour {
        SIDES.into_iter().fold(colour, |colour, side| {
            let middle = side * (self.width + 0.02) - 0.30 * self.turn;
            let ear = ellipse(spot.x - middle, spot.y - 0.03, 0.13, 0.22);
            blend(colour, scaled(self.skin, 0.82 * self.lit(side)), inside(ear, spot.pixel))
        })
    }

    /// Skin in the light, cheeks and beard.
    fn head(&self, spot: &Spot) -> Colour {
        let (x, y) = (spot.x, spot.y);
        let u = x / self.width;
        let frontal = (1.0 - 0.48 * (u * u).min(1.0) - 0.25 * y * y).max(0.2);
        let mut colour = scaled(self.skin, (0.78 + 0.24 * frontal) * self.lit(u));
        for side in SIDES {
            let cheek = ellipse(x - 0.42 * side - 0.45 * self.turn, y - 0.32, 0.22, 0.18);
            let flush = 0.10 * smoothstep(0.1, -0.15, cheek);
            colour = [colour[0] * (1.0 + 0.4 * flush), colour[1] * (1.0 - flush), colour[2] * (1.0 - flush)];
        }
        let jaw = smoothstep(0.22, 0.5, y + 0.42 * u * u);
        let beard = blend(scaled(self.hair, 0.8), scaled(self.skin, 0.45), 0.25);
        blend(colour, scaled(beard, self.lit(u)), self.beard * jaw)
    }

    /// Middle of the eye at `side`.
    fn eye_x(&self, side: f32) -> f32 {
        side * (0.17 + 0.245 * self.width) + EYE_DEPTH * self.turn
    }

    fn brow(&self, colour: Colour, side: f32, spot: &Spot) -> Colour {
        let x = spot.x - self.eye_x(side);
        let y = spot.y - self.brow_y + self.brow_slant * side * x;
        let brow = line(y, 0.065, spot.pixel) * inside(x.abs() - 0.25 * self.near(side), spot.pixel);
        blend(colour, blend(scaled(self.hair, 0.55), INK, 0.3), 0.92 * brow)
    }

    fn eye(&self, colour: Colour, side: f32, spot: &Spot) -> Colour {
        let pixel = spot.pixel;
        let near = self.near(side);
        let (x, y) = (spot.x - self.eye_x(side), spot.y + 0.06);
        let half = 0.20 * near;
        let lids = ellipse(x, y + 0.02, half + 0.05, self.eye_height + 0.06);
        let opening = ellipse(x, y, half, self.eye_height);
        let iris = ellipse(x - self.gaze, y, 0.115 * near, 0.125);
        let pupil = ellipse(x - self.gaze, y, 0.05, 0.06);
        let ball = blend(blend(WHITE, self.iris, inside(iris, pixel)), INK, inside(pupil, pixel));
        let colour = blend(colour, scaled(self.skin, 0.42), 0.75 * inside(lids, pixel));
        blend(colour, ball, inside(opening, pixel))
    }

    fn nose(&self, colour: Colour, spot: &Spot) -> Colour {
        // The root lies between the eyes, the tip stands out.
        let y = spot.y;
        let x = spot.x - self.turn * mix(EYE_DEPTH, NOSE_DEPTH, smoothstep(-0.2, 0.3, y));
        let bridge = smoothstep(-0.15, 0.1, y) * smoothstep(0.40, 0.28, y) * smoothstep(0.2, 0.08, x.abs());
        let colour = scaled(colour, 1.0 + bridge * (0.06 + self.light * (8.0 * x).clamp(-1.0, 1.0)));
        let nostrils = ellipse(x, y - 0.31, 0.15, 0.06);
        blend(colour, scaled(self.skin, 0.55), 0.75 * inside(nostrils, spot.pixel))
    }

    fn mouth(&self, colour: Colour, spot: &Spot) -> Colour {
        let x = spot.x - MOUTH_DEPTH * self.turn;
        let half_width = 0.30 + 0.20 * self.smile;
        let u = x / half_width;
        let y = spot.y - 0.58 + self.smile * (u * u - 0.45);
        let profile = (1.0 - u * u).max(0.0);
        let opening = self.mouth_height * profile;
        let across = inside(x.abs() - half_width, spot.pixel);
        let band = |y, half| line(y, half, spot.pixel) * across;

        let [r, g, b] = self.skin;
        let colour = blend(colour, [0.74 * r, 0.42 * g, 0.44 * b], 0.95 * band(y, opening + 0.03 + 0.045 * profile));
        let colour = blend(colour, THROAT, band(y, opening));
        blend(colour, WHITE, 0.9 * band(y + 0.45 * opening, 0.38 * opening))
    }

    /// Two rims, the bridge between them and the temples to the ears.
    fn spectacles(&self, colour: Colour, spot: &Spot) -> Colour {
        let (x, y, pixel) = (spot.x, spot.y + 0.05, spot.pixel);
        let bar = |y| line(y, self.glasses, pixel);
        let radius = SIDES.map(|side| 0.29 * self.near(side));
        let [left, right] = SIDES.map(|side| self.eye_x(side));
        let rim = |middle, radius| bar(rounded_box(x - middle, y, radius, 0.25, 0.16));
        let beyond = (left - radius[0] - x).max(x - right - radius[1]);
        let between = (left + radius[0] - x).max(x - right + radius[1]);
        let temples = bar(y + 0.06) * inside(-beyond, pixel) * inside(self.head_distance(spot), pixel);
        let bridge = bar(y + 0.04) * inside(between, pixel);
        let frame = rim(left, radius[0]).max(rim(right, radius[1])).max(temples).max(bridge);
        blend(colour, INK, frame)
    }
}
