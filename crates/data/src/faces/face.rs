//! A face as places and colours.

use super::factors::Factors;
use super::ink::{Colour, along, mix};

/// From fair to dark.
const SKIN: [Colour; 4] = [[0.98, 0.85, 0.77], [0.90, 0.70, 0.56], [0.67, 0.45, 0.32], [0.36, 0.23, 0.17]];

/// From black over brown to blond.
const HAIR: [Colour; 5] =
    [[0.06, 0.05, 0.06], [0.24, 0.15, 0.10], [0.46, 0.28, 0.16], [0.74, 0.57, 0.34], [0.98, 0.90, 0.68]];

/// Brown, green, blue.
const IRIS: [Colour; 3] = [[0.25, 0.13, 0.06], [0.22, 0.38, 0.22], [0.22, 0.42, 0.70]];

/// One face, ready to be drawn at any side.
///
/// Lengths are in units of half the head's height, `x` to the right, `y` down, the origin in the middle of the head.
pub(super) struct Face {
    /// Middle of the head, in half-frames from the middle of the frame.
    pub(super) centre: [f32; 2],
    /// Half the head's height, in half-frames.
    pub(super) unit: f32,
    /// Cosine and sine of the rotation within the picture.
    pub(super) roll: [f32; 2],
    /// How far the head is turned: what stands out by `d` moves to the side by `d * turn`.
    pub(super) turn: f32,
    /// Half-width of the head.
    pub(super) width: f32,
    /// Light from the right, relative to the light from the front.
    pub(super) light: f32,
    pub(super) skin: Colour,
    pub(super) hair: Colour,
    /// Thickness of the hair on the skull.
    pub(super) hair_volume: f32,
    /// Where the hair beside the face ends.
    pub(super) hair_end: f32,
    /// Where the hair begins above the forehead.
    pub(super) hairline: f32,
    /// Slope of the hairline.
    pub(super) parting: f32,
    /// Half-height of the opening of the eyes.
    pub(super) eye_height: f32,
    pub(super) iris: Colour,
    /// How far the irises are off the middle of the eyes.
    pub(super) gaze: f32,
    pub(super) brow_y: f32,
    /// Slope of the brows: positive falls towards the nose.
    pub(super) brow_slant: f32,
    /// How far the corners of the mouth are above its middle.
    pub(super) smile: f32,
    /// Half-height of the opening of the mouth.
    pub(super) mouth_height: f32,
    /// Half-thickness of the frame; 0 without glasses.
    pub(super) glasses: f32,
    /// Opacity of the beard.
    pub(super) beard: f32,
    pub(super) backdrop: Colour,
    pub(super) shirt: Colour,
}

impl Face {
    pub(super) fn new(factors: &Factors) -> Self {
        let [yaw, roll, size, width, skin, hair, length, volume, hairline, eyes, brows, smile, mouth, ..] =
            factors.known;
        let [.., glasses, beard, light] = factors.known;
        let [x, y, bright, warm, green, red_dye, green_dye, blue_dye, gaze, parting, iris, undertone] = factors.free;
        let between = |least, most, factor: f32| mix(least, most, 0.5 + 0.5 * factor);

        // A rotation by `2 atan(h)`.
        let h = 0.13 * roll;
        let brightness = between(0.35, 0.86, bright);
        let [r, g, b] = along(&SKIN, skin);
        Self {
            centre: [0.05 * x, 0.09 + 0.03 * y],
            unit: between(0.65, 0.81, size),
            roll: [(1.0 - h * h) / (1.0 + h * h), 2.0 * h / (1.0 + h * h)],
            turn: 0.5 * yaw,
            width: between(0.67, 0.87, width),
            light: 0.42 * light,
            skin: [r, g * (1.0 + 0.03 * undertone), b * (1.0 - 0.07 * undertone)],
            hair: along(&HAIR, hair),
            hair_volume: between(0.03, 0.27, volume),
            hair_end: between(0.05, 1.35, length),
            hairline: between(-0.84, -0.50, hairline),
            parting: 0.22 * parting,
            eye_height: between(0.06, 0.18, eyes),
            iris: along(&IRIS, iris),
            gaze: 0.05 * gaze,
            brow_y: between(-0.49, -0.27, brows),
            brow_slant: 0.35 * brows,
            smile: between(-0.22, 0.36, smile),
            mouth_height: between(0.0, 0.17, mouth),
            glasses: between(0.0, 0.06, glasses),
            beard: between(0.0, 0.85, beard),
            backdrop: [brightness + 0.10 * warm, brightness + 0.07 * green, brightness - 0.12 * warm],
            shirt: [red_dye, green_dye, blue_dye].map(|dye| between(0.08, 0.88, dye)),
        }
    }
}
