//! The shape of a DiT trunk, with everything that follows from it.

/// A DiT's shape. Letters used in this crate: `B` batch, `T` image tokens, `N` prompts, `D` width, `H` heads, `L` blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Side of the square image (or latent), in pixels.
    pub image_size: usize,
    /// Channels `C` of the image.
    pub channels: usize,
    /// Side `P` of a patch, in pixels.
    pub patch: usize,
    /// Width `D` of a token.
    pub hidden: usize,
    /// Blocks `L`.
    pub depth: usize,
    /// Attention heads `H`.
    pub heads: usize,
    /// Rows of the label embedding table.
    pub label_rows: usize,
    /// Channels `O` of the output (`2 C` where the variance is predicted too).
    pub out_channels: usize,
}

/// A shape that no DiT can have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    /// A size is zero.
    #[error("{what} is 0: every size of a DiT must be at least 1")]
    Zero {
        /// The size's name.
        what: &'static str,
    },
    /// One size must divide another.
    #[error("{what} ({divisor}) does not divide {of} ({dividend}): choose a divisor of {dividend}")]
    Division {
        /// The divisor's name.
        what: &'static str,
        /// Its value.
        divisor: usize,
        /// The dividend's name.
        of: &'static str,
        /// Its value.
        dividend: usize,
    },
}

impl Shape {
    /// Width of the sinusoidal timestep features.
    pub const TIMESTEP_FEATURES: usize = 256;

    /// The shape itself, if it is sound.
    ///
    /// # Errors
    /// [`ShapeError`] where a size is zero, the patch does not divide the image, or the heads do not divide the width.
    pub fn check(self) -> Result<Self, ShapeError> {
        let sizes = [
            ("image_size", self.image_size),
            ("channels", self.channels),
            ("patch", self.patch),
            ("hidden", self.hidden),
            ("depth", self.depth),
            ("heads", self.heads),
            ("label_rows", self.label_rows),
            ("out_channels", self.out_channels),
        ];
        if let Some((what, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ShapeError::Zero { what });
        }
        let divides = |what, divisor, of, dividend: usize| match dividend.is_multiple_of(divisor) {
            true => Ok(()),
            false => Err(ShapeError::Division { what, divisor, of, dividend }),
        };
        divides("patch", self.patch, "image_size", self.image_size)?;
        divides("heads", self.heads, "hidden", self.hidden)?;
        Ok(self)
    }

    /// Patches along one side of the image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch
    }

    /// Image tokens `T`.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Width of one head, `D / H`.
    pub fn head_width(&self) -> usize {
        self.hidden / self.heads
    }

    /// Width of the MLPs, `4 D`.
    pub fn mlp(&self) -> usize {
        4 * self.hidden
    }

    /// Values of one input patch, `C P P`.
    pub fn patch_in(&self) -> usize {
        self.channels * self.patch * self.patch
    }

    /// Values of one output patch, `P P O`.
    pub fn patch_out(&self) -> usize {
        self.out_channels * self.patch * self.patch
    }

    /// Values of one input image, `C x image_size x image_size`.
    pub fn image(&self) -> usize {
        self.channels * self.image_size * self.image_size
    }

    /// Values of one output image, `O x image_size x image_size`.
    pub fn output(&self) -> usize {
        self.out_channels * self.image_size * self.image_size
    }

    /// Values of all modulations of one sample: shift, scale and gate of both branches of `L` blocks, then the
    /// final layer's shift and scale: `(6 L + 2) D`.
    pub fn modulations(&self) -> usize {
        (6 * self.depth + 2) * self.hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Shape =
        Shape { image_size: 16, channels: 1, patch: 2, hidden: 64, depth: 4, heads: 4, label_rows: 1, out_channels: 2 };

    #[test]
    fn derived_sizes() {
        assert_eq!(TINY.check(), Ok(TINY));
        assert_eq!((TINY.tokens(), TINY.head_width(), TINY.patch_in(), TINY.patch_out()), (64, 16, 4, 8));
        assert_eq!(TINY.modulations(), 26 * 64);
    }

    #[test]
    fn unsound_shapes_name_the_reason() {
        let text = |shape: Shape| shape.check().unwrap_err().to_string();
        assert!(text(Shape { patch: 3, ..TINY }).contains("patch (3) does not divide image_size (16)"));
        assert!(text(Shape { heads: 5, ..TINY }).contains("heads (5) does not divide hidden (64)"));
        assert!(text(Shape { depth: 0, ..TINY }).contains("depth is 0"));
    }
}
