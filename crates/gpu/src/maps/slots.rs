//! Where the maps of a program lie: buffers that one map takes after another.

use super::program::Program;

/// The slot of each map, and how many numbers each slot holds.
pub(super) struct Slots {
    pub(super) of_map: Vec<usize>,
    pub(super) lengths: Vec<usize>,
}

impl Slots {
    /// A map takes the slot that fits it best of those whose map nobody reads any more; the last is read at the end.
    pub(super) fn new(program: &Program) -> Self {
        let count = program.sizes.len();
        // Behind which layer a map is free; layer `i` makes map `i + 1`.
        let mut last = (0..count).map(|map| map.saturating_sub(1)).collect::<Vec<_>>();
        for (number, layer) in program.layers.iter().enumerate() {
            layer.reads().into_iter().for_each(|map| last[map] = number);
        }
        last[count - 1] = count;
        let mut slots = Self { of_map: vec![0], lengths: vec![program.sizes[0].len()] };
        for map in 1..count {
            let (layer, length) = (map - 1, program.sizes[map].len());
            let taken = |slot: usize| (0..map).any(|other| slots.of_map[other] == slot && last[other] >= layer);
            let free = (0..slots.lengths.len()).filter(|&slot| !taken(slot));
            // the smallest that is large enough, else the largest
            let best = free.min_by_key(|&slot| {
                let has = slots.lengths[slot];
                if has >= length { (0, has) } else { (1, usize::MAX - has) }
            });
            match best {
                Some(slot) => {
                    slots.lengths[slot] = slots.lengths[slot].max(length);
                    slots.of_map.push(slot);
                }
                None => {
                    slots.of_map.push(slots.lengths.len());
                    slots.lengths.push(length);
                }
            }
        }
        slots
    }
}
