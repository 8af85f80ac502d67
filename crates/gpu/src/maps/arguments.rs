//! What the kernels of feature maps are told, as `crate::arguments`.

use crate::machine::Address;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Images {
    pub images: Address,
    pub map: Address,
    pub batch: i32,
    pub channels: i32,
    pub padded: i32,
    pub places: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows {
    pub x: Address,
    pub out: Address,
    pub first: i32,
    pub count: i32,
    pub height: i32,
    pub width: i32,
    pub channels: i32,
    pub out_height: i32,
    pub out_width: i32,
    pub kernel_height: i32,
    pub kernel_width: i32,
    pub stride: i32,
    pub above: i32,
    pub left: i32,
    pub doubled: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    pub windows: Windows,
    pub mean: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    pub from: Address,
    pub to: Address,
    pub rows: usize,
    pub width: i32,
    pub all: i32,
    pub first: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Means {
    pub map: Address,
    pub means: Address,
    pub batch: i32,
    pub channels: i32,
    pub padded: i32,
    pub places: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Resize {
    pub x: Address,
    pub out: Address,
    pub batch: i32,
    pub height: i32,
    pub width: i32,
    pub out_height: i32,
    pub out_width: i32,
    pub channels: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AddMaps {
    pub a: Address,
    pub b: Address,
    pub sum: Address,
    pub count: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupNorm {
    pub x: Address,
    pub moments: Address,
    pub statistics: Address,
    pub weight: Address,
    pub bias: Address,
    pub out: Address,
    pub batch: i32,
    pub places: i32,
    pub channels: i32,
    pub groups: i32,
    pub epsilon: f32,
    pub silu: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Softmax {
    pub scores: Address,
    pub probabilities: Address,
    pub rows: i32,
    pub width: i32,
    pub scale: f32,
}
