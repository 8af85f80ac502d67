//! What a face is like: known factors, each large enough to be read off 24 x 24 pixels, and free variation besides.

use random::{Draws, Stream};

/// Number of known factors.
const KNOWN: usize = 16;

/// Number of free variations: not reported, since 24 x 24 pixels do not always show them.
const FREE: usize = 12;

/// Names of the known factors, in the order of `Images::factors`; each value lies in [-1, 1].
///
/// All are uniform but `glasses` and `beard`, which half of the faces do not have (-1).
pub const FACTORS: [&str; KNOWN] = [
    "yaw",
    "roll",
    "size",
    "width",
    "skin",
    "hair_colour",
    "hair_length",
    "hair_volume",
    "hairline",
    "eyes",
    "brows",
    "smile",
    "mouth",
    "glasses",
    "beard",
    "light",
];

/// Which known factors change sign when the face is mirrored: `yaw`, `roll` and `light`.
pub const MIRRORED: [bool; KNOWN] = {
    let mut mirrored = [false; KNOWN];
    mirrored[0] = true;
    mirrored[1] = true;
    mirrored[KNOWN - 1] = true;
    mirrored
};

/// Places of the factors that half of the faces do not have.
pub(super) const GLASSES: usize = 13;
/// See [`GLASSES`].
pub(super) const BEARD: usize = 14;

/// Factors that only the upper half of the draws shows: below 0 they are -1, above they are stretched over [-1, 1].
const OPTIONAL: [bool; KNOWN] = {
    let mut optional = [false; KNOWN];
    optional[GLASSES] = true;
    optional[BEARD] = true;
    optional
};

/// All faces are drawn under this seed: the dataset is the same in every experiment.
const SEED: u64 = 0x0066_6163_6573;

/// What one face is like; every value in [-1, 1].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Factors {
    /// In the order of [`FACTORS`].
    pub(super) known: [f32; KNOWN],
    /// Position (x, y), backdrop (brightness, red-blue, green), shirt (red, green, blue), gaze, parting, iris,
    /// undertone.
    pub(super) free: [f32; FREE],
}

impl Factors {
    /// Face `index`.
    pub(super) fn draw(index: u64) -> Self {
        // A step has 32 bits; what an index has above them selects another seed.
        let draws = Draws::new(SEED ^ (index >> 32), Stream::Factors, index & 0xffff_ffff);
        let value = |i: usize| draws.uniform(i as u64) * 2.0 - 1.0;
        let known = |i: usize| if OPTIONAL[i] { (value(i) * 2.0 - 1.0).max(-1.0) } else { value(i) };
        Self { known: std::array::from_fn(known), free: std::array::from_fn(|i| value(KNOWN + i)) }
    }

    /// The factors of the face's mirror image.
    #[cfg(test)]
    pub(super) fn mirrored(&self) -> Self {
        let known = std::array::from_fn(|i| if MIRRORED[i] { -self.known[i] } else { self.known[i] });
        let mut free = self.free;
        for i in [0, 8, 9] {
            free[i] = -free[i];
        }
        Self { known, free }
    }
}
