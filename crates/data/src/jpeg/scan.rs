//! A scan: coded coefficients of some channels, of some frequencies, of some bits.

use super::frame::{Frame, Segments, ZIGZAG};
use super::huffman::{Bits, Huffman};

/// A scan's header.
pub(super) struct Scan {
    /// Place of each channel in the frame, and its tables.
    components: Vec<(usize, usize, usize)>,
    /// First and last frequency.
    band: [usize; 2],
    /// Whether it adds a bit to coefficients that are known.
    refines: bool,
    /// The lowest bit that it has.
    low: u32,
}

/// What a scan carries from block to block.
struct Carried {
    dc: [i32; 3],
    /// Blocks whose band has ended.
    ended: u32,
}

impl Scan {
    pub(super) fn read(segments: &mut Segments<'_>, frame: &Frame) -> Option<Self> {
        let body = segments.body()?;
        let count = usize::from(*body.first()?);
        if body.len() != 4 + 2 * count || count == 0 || count > frame.components.len() {
            return None;
        }
        let component = |entry: &[u8]| {
            let (dc, ac) = (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
            (dc < 4 && ac < 4).then_some((frame.place(entry[0])?, dc, ac))
        };
        let components = body[1..1 + 2 * count].chunks_exact(2).map(component).collect::<Option<Vec<_>>>()?;
        let [first, last, bits] = [0, 1, 2].map(|at| usize::from(body[1 + 2 * count + at]));
        let (high, low) = (bits >> 4, (bits & 15) as u32);
        let sound = match frame.progressive {
            false => (first, last, bits) == (0, 63, 0),
            true => last < 64 && low < 14 && if first == 0 { last == 0 } else { first <= last && count == 1 },
        };
        sound.then_some(Self { components, band: [first, last], refines: high > 0, low })
    }

    /// Decodes it into the frame; bytes up to the marker behind it.
    pub(super) fn decode(&self, segments: &Segments<'_>, frame: &mut Frame) -> Option<usize> {
        let mut bits = Bits::new(segments.rest());
        let mut carried = Carried { dc: [0; 3], ended: 0 };
        // A channel alone has no padding: its units are its blocks.
        let alone = self.components.len() == 1;
        let [across, down] = match self.components[0].0 {
            place if alone => frame.components[place].samples.map(|samples| samples.div_ceil(8)),
            _ => frame.units,
        };
        for unit in 0..across * down {
            if segments.restart > 0 && unit > 0 && unit.is_multiple_of(segments.restart) {
                bits.restart()?;
                carried = Carried { dc: [0; 3], ended: 0 };
            }
            for &(place, dc, ac) in &self.components {
                let component = &mut frame.components[place];
                let [h, v] = if alone { [1, 1] } else { component.sampling };
                for (y, x) in (0..v).flat_map(|y| (0..h).map(move |x| (y, x))) {
                    let block = (unit / across * v + y) * component.blocks[0] + unit % across * h + x;
                    let block = &mut component.coefficients[64 * block..][..64];
                    let tables = (segments.dc[dc].as_ref(), segments.ac[ac].as_ref());
                    match (frame.progressive, self.band[0], self.refines) {
                        (false, ..) => baseline(&mut bits, block, (tables.0?, tables.1?), &mut carried.dc[place])?,
                        (true, 0, false) => {
                            carried.dc[place] = difference(&mut bits, tables.0?, carried.dc[place])?;
                            block[0] = (carried.dc[place] << self.low) as i16;
                        }
                        (true, 0, true) => block[0] |= (bits.bits(1)? << self.low) as i16,
                        (true, _, false) => self.first(&mut bits, block, tables.1?, &mut carried.ended)?,
                        (true, _, true) => self.refine(&mut bits, block, tables.1?, &mut carried.ended)?,
                    }
                }
            }
        }
        Some(bits.read())
    }

    /// A band's coefficients for the first time.
    fn first(&self, bits: &mut Bits<'_>, block: &mut [i16], ac: &Huffman, ended: &mut u32) -> Option<()> {
        if *ended > 0 {
            *ended -= 1;
            return Some(());
        }
        let [mut k, last] = self.band;
        while k <= last {
            let symbol = bits.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => k += 16,
                (run, 0) => {
                    *ended = (1 << run) - 1 + bits.bits(run as u32)? as u32;
                    break;
                }
                _ => {
                    k += run;
                    let place = ZIGZAG.get(k).filter(|_| k <= last)?;
                    block[*place] = (bits.signed(size)? << self.low) as i16;
                    k += 1;
                }
            }
        }
        Some(())
    }

    /// One more bit of a band's coefficients.
    fn refine(&self, bits: &mut Bits<'_>, block: &mut [i16], ac: &Huffman, ended: &mut u32) -> Option<()> {
        let bit = 1_i16 << self.low;
        let [mut k, last] = self.band;
        while *ended == 0 && k <= last {
            let symbol = bits.symbol(ac)?;
            let (mut run, size) = (usize::from(symbol >> 4), symbol & 15);
            let new = match size {
                0 if run == 15 => 0,
                0 => {
                    *ended = (1 << run) + bits.bits(run as u32)? as u32;
                    break;
                }
                1 if bits.bits(1)? == 1 => bit,
                1 => -bit,
                _ => return None,
            };
            while k <= last {
                let value = &mut block[ZIGZAG[k]];
                k += 1;
                if *value != 0 {
                    add_bit(bits, value, bit)?;
                } else if run > 0 {
                    run -= 1;
                } else {
                    *value = new;
                    break;
                }
            }
        }
        if *ended > 0 {
            for &place in &ZIGZAG[k..=last] {
                if block[place] != 0 {
                    add_bit(bits, &mut block[place], bit)?;
                }
            }
            *ended -= 1;
        }
        Some(())
    }
}

/// Reads whether a coefficient grows by a bit that it does not have yet.
fn add_bit(bits: &mut Bits<'_>, value: &mut i16, bit: i16) -> Option<()> {
    if bits.bits(1)? == 1 && *value & bit == 0 {
        *value = if *value > 0 { value.wrapping_add(bit) } else { value.wrapping_sub(bit) };
    }
    Some(())
}

/// The next mean of a channel, which is coded by its difference to the last.
fn difference(bits: &mut Bits<'_>, dc: &Huffman, last: i32) -> Option<i32> {
    let size = u32::from(bits.symbol(dc)?);
    if size > 15 {
        return None;
    }
    Some(last.wrapping_add(bits.signed(size)?))
}

/// All coefficients of a block.
fn baseline(bits: &mut Bits<'_>, block: &mut [i16], tables: (&Huffman, &Huffman), dc: &mut i32) -> Option<()> {
    *dc = difference(bits, tables.0, *dc)?;
    block[0] = *dc as i16;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(tables.1)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (run, size) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ => {
                k += run;
                block[*ZIGZAG.get(k)?] = bits.signed(size)? as i16;
                k += 1;
            }
        }
    }
    Some(())
}
