//! The kernels of feature maps with their grids, as `crate::launch`.

use super::arguments::{AddMaps, Columns, GroupNorm, Images, Means, Pool, Resize, Softmax, Windows};
use crate::launch::{Launcher, flat, kernels};
use crate::machine::{Error, Grid, Machine};

/// Places whose moments one thread takes, `MOMENT_PLACES` of `groupnorm.cuh`.
const MOMENT_PLACES: usize = 64;

/// Parts of the moments of a map of so many places.
pub(super) fn moment_parts(places: usize) -> usize {
    places.div_ceil(MOMENT_PLACES)
}

kernels! {
    /// Images to a map.
    images_to_map(a: Images) in both, |_, a| flat((a.batch * a.places) as usize * a.padded as usize);
    /// A map to images.
    map_to_images(a: Images) in both, |_, a| flat((a.batch * a.places) as usize * a.channels as usize);
    /// What a window sees, a row for each place of the output.
    gather_windows(a: Windows) in both, |s, a| {
        flat(a.count as usize * (a.kernel_height * a.kernel_width * a.channels) as usize / s.pack())
    };
    /// What a window sees, as one.
    pool_windows(a: Pool) in both, |s, a| flat(a.windows.count as usize * a.windows.channels as usize / s.pack());
    /// Channels of a map among those of a wider one.
    copy_columns(a: Columns) in both, |s, a| flat(a.rows * a.width as usize / s.pack());
    /// Means over the places.
    mean_places(a: Means) in both, |_, a| flat(a.batch as usize * a.channels as usize);
    /// Images of another size.
    resize_map(a: Resize) in both, |s, a| {
        flat((a.batch * a.out_height * a.out_width) as usize * a.channels as usize / s.pack())
    };
    /// The sum of two maps.
    add_maps(a: AddMaps) in both, |s, a| flat(a.count / s.pack());
    /// Moments of each channel over some places.
    channel_moments(a: GroupNorm) in both, |s, a| {
        flat(a.batch as usize * moment_parts(a.places as usize) * a.channels as usize / s.pack())
    };
    /// Mean and deviation of each group.
    group_statistics(a: GroupNorm) in both, |s, a| s.warps((a.batch * a.groups) as usize);
    /// Normalised, with SiLU or without.
    group_normalise(a: GroupNorm) in both, |s, a| {
        flat(a.batch as usize * a.places as usize * a.channels as usize / s.pack())
    };
    /// Probabilities of scores.
    softmax_rows(a: Softmax) in both, |s, a| s.warps(a.rows as usize);
}
