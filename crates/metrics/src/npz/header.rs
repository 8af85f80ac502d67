//! The header of one array: `\x93NUMPY`, a version, a length, and a Python dictionary of dtype, order and shape.

use std::fmt;
use std::io::Read;

use crate::npz::NpzError;

/// The longest header that numpy itself reads by default.
const MAX_HEADER: usize = 10_000;

/// The most sides that numpy's arrays have. Values in Fortran order are moved side by side: with thousands of sides, for hours.
const MOST_SIDES: usize = 64;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Type of an array's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Bytes.
    U8,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl Dtype {
    /// numpy's name of it.
    fn code(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::F32 => "<f4",
            Self::F64 => "<f8",
        }
    }

    /// Bytes of a value.
    pub(super) fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// A value as `f64`, exactly.
    pub(super) fn widen(self, bytes: &[u8]) -> f64 {
        match self {
            Self::U8 => f64::from(bytes[0]),
            Self::F32 => f64::from(f32::from_bytes(bytes)),
            Self::F64 => f64::from_bytes(bytes),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// A value of an array: `u8`, `f32` or `f64`.
pub trait Element: Copy {
    /// Its dtype.
    const DTYPE: Dtype;
    /// From little-endian bytes; panics on another number than the type has.
    fn from_bytes(bytes: &[u8]) -> Self;
    /// Appends its little-endian bytes.
    fn put_le(self, out: &mut Vec<u8>);
}

macro_rules! element {
    ($type:ty, $dtype:expr) => {
        impl Element for $type {
            const DTYPE: Dtype = $dtype;

            fn from_bytes(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("the bytes of one value"))
            }

            fn put_le(self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        }
    };
}

element!(f32, Dtype::F32);
element!(f64, Dtype::F64);

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;

    fn from_bytes(bytes: &[u8]) -> Self {
        bytes[0]
    }

    fn put_le(self, out: &mut Vec<u8>) {
        out.push(self);
    }
}

/// What an array says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) dtype: Dtype,
    /// Columns first.
    pub(super) fortran: bool,
    pub(super) shape: Vec<u64>,
}

impl Header {
    /// Values promised; none if their bytes do not fit 64 bits.
    pub(super) fn values(&self) -> Option<u64> {
        let values = self.shape.iter().try_fold(1_u64, |product, &side| product.checked_mul(side))?;
        values.checked_mul(self.dtype.size() as u64).map(|_| values)
    }

    /// Reads the header of array `name` and its length in bytes.
    pub(super) fn read(name: &str, reader: &mut impl Read) -> Result<(Self, u64), NpzError> {
        let bad = |reason: &str| NpzError::Header { name: name.to_owned(), reason: reason.to_owned() };
        let mut take = |count: usize| -> Result<Vec<u8>, NpzError> {
            let mut bytes = vec![0; count];
            reader.read_exact(&mut bytes).map_err(|source| NpzError::Read { name: name.to_owned(), source })?;
            Ok(bytes)
        };
        let start = take(8)?;
        if start[..6] != MAGIC[..] {
            return Err(bad("it does not begin as one"));
        }
        let width = match start[6] {
            1 => 2,
            2 | 3 => 4,
            version => return Err(bad(&format!("version {version} is not known"))),
        };
        let length = take(width)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
        if length > MAX_HEADER {
            return Err(bad(&format!("{length} bytes of header are more than the {MAX_HEADER} allowed")));
        }
        let text = String::from_utf8(take(length)?).map_err(|_| bad("it is no text"))?;
        let header = Dictionary { rest: &text }.parse(name)?;
        Ok((header, (8 + width + length) as u64))
    }

    /// The header as bytes, a multiple of 64 of them as numpy writes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let sides: String = self.shape.iter().map(|side| format!("{side}, ")).collect();
        let shape = if self.shape.len() == 1 { sides.trim_end() } else { sides.trim_end_matches(", ") };
        let order = if self.fortran { "True" } else { "False" };
        let mut text = format!("{{'descr': '{}', 'fortran_order': {order}, 'shape': ({shape}), }}", self.dtype.code());
        let padding = (64 - (10 + text.len() + 1) % 64) % 64;
        text.push_str(&" ".repeat(padding));
        text.push('\n');
        let length = u16::try_from(text.len()).expect("a short header");
        [&MAGIC[..], &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat()
    }
}

/// What is left of `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`; keys may come in any order.
struct Dictionary<'a> {
    rest: &'a str,
}

impl<'a> Dictionary<'a> {
    fn parse(mut self, name: &str) -> Result<Header, NpzError> {
        let bad = |reason: &str| NpzError::Header { name: name.to_owned(), reason: reason.to_owned() };
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        self.token("{").ok_or_else(|| bad("it is no dictionary"))?;
        while self.token("}").is_none() {
            let key = self.quoted().ok_or_else(|| bad("a key is no text"))?;
            self.token(":").ok_or_else(|| bad(&format!("no value follows {key:?}")))?;
            let found_before = match key {
                "descr" => dtype.replace(self.dtype(name)?).is_some(),
                "fortran_order" => fortran.replace(self.truth().ok_or_else(|| bad("no order"))?).is_some(),
                "shape" => shape.replace(self.sides().ok_or_else(|| bad("its shape is no tuple of sizes"))?).is_some(),
                other => return Err(bad(&format!("key {other:?} is not known"))),
            };
            if found_before {
                return Err(bad(&format!("key {key:?} comes twice")));
            }
            if self.token(",").is_none() && !self.rest.trim_start().starts_with('}') {
                return Err(bad(&format!("something follows the value of {key:?}")));
            }
        }
        if !self.rest.trim().is_empty() {
            return Err(bad("something follows the dictionary"));
        }
        match (dtype, fortran, shape) {
            (Some(dtype), Some(fortran), Some(shape)) => Ok(Header { dtype, fortran, shape }),
            _ => Err(bad("dtype, order or shape is missing")),
        }
    }

    fn token(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn quoted(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (inside, rest) = text[1..].split_once(quote)?;
        self.rest = rest;
        Some(inside)
    }

    fn truth(&mut self) -> Option<bool> {
        self.token("True").map(|()| true).or_else(|| self.token("False").map(|()| false))
    }

    /// `()`, `(3,)` or `(3, 4)`.
    fn sides(&mut self) -> Option<Vec<u64>> {
        self.token("(")?;
        let (inside, rest) = self.rest.split_once(')')?;
        self.rest = rest;
        let inside = inside.trim();
        let inside = inside.strip_suffix(',').filter(|first| !first.is_empty()).unwrap_or(inside);
        let digits = |side: &str| side.bytes().all(|byte| byte.is_ascii_digit());
        let side = |side: &str| Some(side.trim()).filter(|side| digits(side)).and_then(|side| side.parse().ok());
        if inside.is_empty() {
            return Some(Vec::new());
        }
        let sides: Option<Vec<u64>> = inside.split(',').map(side).collect();
        sides.filter(|sides| sides.len() <= MOST_SIDES)
    }

    fn dtype(&mut self, name: &str) -> Result<Dtype, NpzError> {
        let name = name.to_owned();
        let Some(code) = self.quoted() else {
            return Err(NpzError::Dtype { name, dtype: "of several fields".to_owned() });
        };
        match code {
            "|u1" | "<u1" | "u1" => Ok(Dtype::U8),
            "<f4" => Ok(Dtype::F32),
            "<f8" => Ok(Dtype::F64),
            _ if code.trim_start_matches(['|', '<', '>', '=']).starts_with('O') => Err(NpzError::Pickle { name }),
            _ => Err(NpzError::Dtype { name, dtype: code.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Header, NpzError> {
        let length = (text.len() as u16).to_le_bytes();
        let bytes = [&MAGIC[..], &[1, 0], &length, text.as_bytes()].concat();
        Header::read("x", &mut &bytes[..]).map(|(header, _)| header)
    }

    #[test]
    fn what_is_written_is_read() {
        for shape in [vec![], vec![0], vec![3], vec![2, 0, 4], vec![50_000, 256, 256, 3]] {
            for dtype in [Dtype::U8, Dtype::F32, Dtype::F64] {
                for fortran in [false, true] {
                    let header = Header { dtype, fortran, shape: shape.clone() };
                    let bytes = header.to_bytes();
                    assert_eq!(bytes.len() % 64, 0);
                    assert_eq!(Header::read("x", &mut &bytes[..]).unwrap(), (header, bytes.len() as u64));
                }
            }
        }
    }

    #[test]
    fn other_spellings_are_read() {
        let header = read("{\"shape\": (2,3), 'fortran_order':True,'descr':'<f8'}  \n").unwrap();
        assert_eq!(header, Header { dtype: Dtype::F64, fortran: true, shape: vec![2, 3] });
        let text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }";
        let later = [&MAGIC[..], &[3, 0], &(text.len() as u32).to_le_bytes(), text].concat();
        assert_eq!(Header::read("x", &mut &later[..]).unwrap().0.shape, [7]);
    }

    #[test]
    fn other_dtypes_are_named() {
        let error = |descr: &str| {
            read(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}")).unwrap_err().to_string()
        };
        for object in ["'|O'", "'O'", "'|O8'", "'O8'"] {
            assert!(error(object).contains("pickle"), "{object}");
        }
        for other in [">f4", ">f8", "<f2", "<i8", "|S3", "<c16", "f4"] {
            assert!(error(&format!("'{other}'")).contains(&format!("dtype {other};")), "{other}");
        }
        assert!(error("[('a', '<f4'), ('b', '<f4')]").contains("several fields"));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let whole = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        assert!(read(whole).is_ok());
        for (from, to) in [
            ("{", ""),
            ("}", ""),
            ("'descr'", "descr"),
            ("'descr':", "'descr'"),
            ("'descr': '<f4', ", ""),
            ("'shape'", "'size'"),
            ("'shape'", "'descr': '<f4', 'shape'"),
            ("False", "0"),
            ("(2,)", "2"),
            ("(2,)", "(-2,)"),
            ("(2,)", "(+2,)"),
            ("(2,)", "(2.5,)"),
            ("(2,)", "(2,,)"),
            ("(2,)", "(,)"),
            ("(2,)", "(99999999999999999999,)"),
            ("(2,)", &format!("({})", "1, ".repeat(65))),
            ("(2,), }", "(2,) 3 }"),
            ("(2,), }", "(2,), } + __import__('os')"),
        ] {
            let spoiled = whole.replacen(from, to, 1);
            assert!(matches!(read(&spoiled), Err(NpzError::Header { .. })), "{spoiled}");
        }
        let start = |bytes: &[u8]| Header::read("x", &mut &bytes[..]).unwrap_err().to_string();
        assert!(start(b"\x93NUMPX\x01\x00\x00\x00").contains("does not begin"));
        assert!(start(b"\x93NUMPY\x09\x00\x00\x00").contains("version 9"));
        assert!(start(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("more than the 10000"));
        assert!(start(b"\x93NUMPY\x01\x00\x05\x00ab").contains("damaged"));
        assert!(start(b"").contains("damaged"));
    }

    #[test]
    fn shapes_that_overflow_have_no_number_of_values() {
        let values = |shape: Vec<u64>| Header { dtype: Dtype::F64, fortran: false, shape }.values();
        assert_eq!(values(vec![]), Some(1));
        assert_eq!(values(vec![3, 0, 5]), Some(0));
        assert_eq!(values(vec![1 << 32, 1 << 32]), None);
        assert_eq!(values(vec![1 << 61]), None, "its bytes");
    }
}
