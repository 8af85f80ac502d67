//! Huffman codes and the bits that they are read from.

/// Bits that are looked up at once.
const FAST: usize = 9;

/// A table of codes.
pub(super) struct Huffman {
    /// Symbol and length of the code that begins with these bits; length 0 where it is longer.
    fast: Vec<(u8, u8)>,
    /// By length: one more than the last code, and its place minus its value.
    ends: [(i32, i32); 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// Codes of each length, 1 to 16, and their symbols in order; `None` where there is no such code.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let (mut code, mut place) = (0_i32, 0_usize);
        let (mut fast, mut ends) = (vec![(0, 0); 1 << FAST], [(0, 0); 17]);
        for (length, &count) in (1..).zip(counts) {
            ends[length] = (code + i32::from(count), place as i32 - code);
            for _ in 0..count {
                if code >= 1 << length {
                    return None;
                }
                if length <= FAST {
                    let first = (code as usize) << (FAST - length);
                    fast[first..first + (1 << (FAST - length))].fill((symbols[place], length as u8));
                }
                (code, place) = (code + 1, place + 1);
            }
            code <<= 1;
        }
        Some(Self { fast, ends, symbols: symbols.to_vec() })
    }
}

/// Coded data, read bit by bit up to the next marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
    /// Bits that were asked for behind the data's end, and are 0.
    missing: u32,
}

/// A code is complete in so many bits behind the data's end: what is asked for beyond is not there.
const MOST_MISSING: u32 = 32;

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, count: 0, missing: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 24 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                (Some(0xff), _) | (None, _) => {
                    self.missing += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.held |= u32::from(byte) << (24 - self.count);
            self.count += 8;
        }
    }

    fn take(&mut self, count: u32) -> Option<()> {
        self.held <<= count;
        self.count -= count;
        // Whole bytes that were held and not used are not missing.
        (self.missing.saturating_sub(self.count) <= MOST_MISSING).then_some(())
    }

    /// The next `count` bits, at most 16.
    pub(super) fn bits(&mut self, count: u32) -> Option<i32> {
        if count == 0 {
            return Some(0);
        }
        self.fill();
        let value = (self.held >> (32 - count)) as i32;
        self.take(count)?;
        Some(value)
    }

    /// A number of `count` bits whose first bit is 0 where it is negative.
    pub(super) fn signed(&mut self, count: u32) -> Option<i32> {
        let value = self.bits(count)?;
        Some(if count > 0 && value < 1 << (count - 1) { value - (1 << count) + 1 } else { value })
    }

    /// The next symbol.
    pub(super) fn symbol(&mut self, table: &Huffman) -> Option<u8> {
        self.fill();
        let (symbol, length) = table.fast[(self.held >> (32 - FAST)) as usize];
        if length > 0 {
            self.take(u32::from(length))?;
            return Some(symbol);
        }
        for length in FAST + 1..=16 {
            let code = (self.held >> (32 - length)) as i32;
            let (end, offset) = table.ends[length];
            if code < end {
                self.take(length as u32)?;
                return table.symbols.get(usize::try_from(code + offset).ok()?).copied();
            }
        }
        None
    }

    /// Goes on behind a restart marker, which must be next.
    pub(super) fn restart(&mut self) -> Option<()> {
        (self.held, self.count, self.missing) = (0, 0, 0);
        while self.bytes.get(self.at) == Some(&0xff) && self.bytes.get(self.at + 1) == Some(&0xff) {
            self.at += 1;
        }
        let marker = self.bytes.get(self.at..self.at + 2)?;
        self.at += 2;
        (marker[0] == 0xff && (0xd0..=0xd7).contains(&marker[1])).then_some(())
    }

    /// Bytes up to the marker behind the data.
    pub(super) fn read(&self) -> usize {
        self.at
    }
}
