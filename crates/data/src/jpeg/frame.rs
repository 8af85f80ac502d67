//! The segments of a file: tables, and the frame that says how large the image is and how its channels are sampled.

use super::huffman::Huffman;

/// A channel.
pub(super) struct Component {
    id: u8,
    /// Its samples across and down, for each of which the most that a channel has make one unit.
    pub(super) sampling: [usize; 2],
    /// Number of its table.
    pub(super) quantisation: usize,
    /// Blocks across and down, padded to whole units.
    pub(super) blocks: [usize; 2],
    /// Samples across and down, without padding.
    pub(super) samples: [usize; 2],
    /// Coefficients of all blocks, 64 each in rows.
    pub(super) coefficients: Vec<i16>,
}

/// The image.
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) progressive: bool,
    pub(super) components: Vec<Component>,
    /// Units of an interleaved scan across and down.
    pub(super) units: [usize; 2],
    /// The most samples of a channel across and down.
    pub(super) most: [usize; 2],
}

/// What three channels, or one, are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Grey,
    Rgb,
    YCbCr,
}

/// What lies before and between scans.
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
    frame_marker: u8,
    pub(super) quantisation: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Huffman>; 4],
    pub(super) ac: [Option<Huffman>; 4],
    /// Units between restarts; 0 for none.
    pub(super) restart: usize,
    jfif: bool,
    adobe: Option<u8>,
}

/// Places of coefficients in rows, in the order in which they are coded.
pub(super) const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

impl<'a> Segments<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(&[0xff, 0xd8]).then_some(Self {
            bytes,
            at: 2,
            frame_marker: 0,
            quantisation: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            restart: 0,
            jfif: false,
            adobe: None,
        })
    }

    /// The next marker's second byte.
    pub(super) fn next_marker(&mut self) -> Option<u8> {
        if *self.bytes.get(self.at)? != 0xff {
            return None;
        }
        while *self.bytes.get(self.at)? == 0xff {
            self.at += 1;
        }
        let marker = *self.bytes.get(self.at)?;
        self.at += 1;
        self.frame_marker = marker;
        Some(marker)
    }

    /// What a segment holds behind its length.
    pub(super) fn body(&mut self) -> Option<&'a [u8]> {
        let length = word(self.bytes, self.at)?;
        let body = self.bytes.get(self.at + 2..self.at + length.max(2))?;
        self.at += length;
        (length >= 2).then_some(body)
    }

    /// Coded data from here on.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Reads a table, or skips what needs not be known.
    pub(super) fn read(&mut self, marker: u8) -> Option<()> {
        match marker {
            0xdb => self.quantisation(),
            0xc4 => self.huffman(),
            0xdd => {
                self.restart = word(self.body()?, 0)?;
                Some(())
            }
            0xe0 => {
                self.jfif |= self.body()?.starts_with(b"JFIF\0");
                Some(())
            }
            0xee => {
                let body = self.body()?;
                if body.starts_with(b"Adobe") {
                    self.adobe = Some(*body.get(11)?);
                }
                Some(())
            }
            0xe1..=0xed | 0xef | 0xfe => self.body().map(|_| ()),
            // Other codings, other markers.
            _ => None,
        }
    }

    fn quantisation(&mut self) -> Option<()> {
        let mut body = self.body()?;
        while let Some((&head, rest)) = body.split_first() {
            let size = 1 + usize::from(head >> 4);
            let table = rest.get(..64 * size).filter(|_| size <= 2)?;
            let mut values = [0; 64];
            for (place, value) in ZIGZAG.iter().zip(table.chunks_exact(size)) {
                values[*place] = value.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
            }
            *self.quantisation.get_mut(usize::from(head & 15))? = Some(values);
            body = &rest[64 * size..];
        }
        Some(())
    }

    fn huffman(&mut self) -> Option<()> {
        let mut body = self.body()?;
        while let Some((&head, rest)) = body.split_first() {
            let counts = rest.get(..16)?;
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let table = Huffman::new(counts.try_into().ok()?, rest.get(16..16 + total)?)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head & 15)).filter(|_| head >> 4 <= 1)? = Some(table);
            body = &rest[16 + total..];
        }
        Some(())
    }

    /// What the channels are, as libjpeg guesses it.
    pub(super) fn colour(&self, frame: &Frame) -> Colour {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (ids.len(), self.jfif, self.adobe, ids.as_slice()) {
            (1, ..) => Colour::Grey,
            (_, true, ..) => Colour::YCbCr,
            (_, _, Some(0), _) | (_, _, None, b"RGB") => Colour::Rgb,
            _ => Colour::YCbCr,
        }
    }
}

impl Frame {
    pub(super) fn read(segments: &mut Segments<'_>) -> Option<Self> {
        let progressive = segments.frame_marker == 0xc2;
        let body = segments.body()?;
        let (height, width) = (word(body, 1)?, word(body, 3)?);
        let count = usize::from(*body.get(5)?);
        if body[0] != 8 || width == 0 || height == 0 || ![1, 3].contains(&count) || body.len() != 6 + 3 * count {
            return None;
        }
        let sampled = |entry: &[u8]| [usize::from(entry[1] >> 4), usize::from(entry[1] & 15)];
        let entries = || body[6..].chunks_exact(3);
        let most = [0, 1].map(|axis| entries().map(|entry| sampled(entry)[axis]).max().unwrap_or(1));
        let sides = [width, height];
        let units = [0, 1].map(|axis| sides[axis].div_ceil(8 * most[axis].max(1)));
        let component = |entry: &[u8]| {
            let sampling = sampled(entry);
            let whole = |axis: usize| (1..=4).contains(&sampling[axis]) && most[axis].is_multiple_of(sampling[axis]);
            ([0, 1].into_iter().all(whole) && entry[2] < 4).then(|| Component {
                id: entry[0],
                sampling,
                quantisation: usize::from(entry[2]),
                blocks: [0, 1].map(|axis| units[axis] * sampling[axis]),
                samples: [0, 1].map(|axis| (sides[axis] * sampling[axis]).div_ceil(most[axis])),
                coefficients: Vec::new(),
            })
        };
        let components = entries().map(component).collect::<Option<Vec<_>>>()?;
        Some(Self { width, height, progressive, components, units, most })
    }

    /// Blocks of all channels.
    pub(super) fn blocks(&self) -> usize {
        self.components.iter().map(|component| component.blocks[0] * component.blocks[1]).sum()
    }

    pub(super) fn allocated(mut self) -> Self {
        for component in &mut self.components {
            component.coefficients = vec![0; 64 * component.blocks[0] * component.blocks[1]];
        }
        self
    }

    /// The channel with an id.
    pub(super) fn place(&self, id: u8) -> Option<usize> {
        self.components.iter().position(|component| component.id == id)
    }
}

/// Two bytes, the higher one first.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2).map(|pair| usize::from(pair[0]) << 8 | usize::from(pair[1]))
}
