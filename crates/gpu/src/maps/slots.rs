//! Where the maps of a program lie: buffers that one map takes after another.

use super::program::Program;

/// The slot of each map, and how many numbers each slot holds.
pub(super) struct Slots {
    pub(super) of_map: Vec<usize>,
    pub(super) lengths: Vec<usize>,
}

impl Slots {
    /// A map takes the slot that fits it best of those whose map nobody reads any more; outputs are read at the end.
    pub(super) fn new(program: &Program) -> Self {
        let count = program.sizes.len();
        // Behind which layer a map is free; layer `i` makes map `i + 1`.
        let mut last = (0..count).map(|map| map.saturating_sub(1)).collect::<Vec<_>>();
        for (number, layer) in program.layers.iter().enumerate() {
            layer.reads().into_iter().for_each(|map| last[map] = number);
        }
        program.outputs.iter().for_each(|output| last[output.map] = count);
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

#[cfg(test)]
mod tests {
    use super::super::program::{Map, Size, Window};
    use super::*;

    /// A convolution of one place.
    fn point(program: &mut Program, x: Map, out: usize) -> Map {
        let (kernel, bias) = (vec![0.0; out * program.size(x).channels], vec![0.0; out]);
        program.convolution(x, Window::POINT, [&kernel, &bias], false).unwrap()
    }

    #[test]
    fn a_chain_takes_two_slots_and_what_is_read_later_keeps_its_own() {
        let (mut program, input) = Program::new(Size { height: 2, width: 3, channels: 3 });
        let kept = point(&mut program, input, 8);
        let mut x = kept;
        for channels in [8, 16, 8, 16] {
            x = point(&mut program, x, channels);
        }
        let x = point(&mut program, x, 8);
        let sum = program.sum([kept, x]).unwrap();
        program.read(sum, 8).unwrap();
        let Slots { of_map, lengths } = Slots::new(&program);
        let later = &of_map[kept.number + 1..=x.number];
        assert!(later.iter().all(|slot| *slot != of_map[kept.number]), "{of_map:?}");
        assert!(later.windows(2).all(|pair| pair[0] != pair[1]), "no layer writes what it reads: {of_map:?}");
        assert_eq!(lengths.len(), 3, "{of_map:?}");
        assert!(program.sizes.iter().zip(&of_map).all(|(size, slot)| size.len() <= lengths[*slot]));
    }

    #[test]
    fn outputs_keep_their_slots_to_the_end() {
        let (mut program, input) = Program::new(Size { height: 1, width: 1, channels: 8 });
        let first = point(&mut program, input, 8);
        program.read(first, 8).unwrap();
        let mut x = first;
        for _ in 0..4 {
            x = point(&mut program, x, 8);
        }
        program.read_means(x).unwrap();
        let slots = Slots::new(&program);
        assert!(slots.of_map[first.number + 1..].iter().all(|slot| *slot != slots.of_map[first.number]));
    }
}
