//! Canonical JSON (RFC 8785): one text for one value, so that its hash identifies it.
//!
//! Keys are sorted, nothing is indented, and a number has one spelling whatever its type: `1` and `1.0` are both `1`.
//! One departure from the RFC: integers are written with all their digits, also above `2^53` (seeds have 64 bits).

use serde::Serialize;

use crate::tree::{Node, Value};
use crate::yaml;

/// The canonical JSON of a value; an error if a number in it is not finite or a map's key is not a string.
pub fn to_json<T: Serialize>(value: &T) -> Result<String, NotCanonical> {
    let mut out = String::new();
    write(&yaml::tree(value).map_err(NotCanonical::Unsupported)?, &mut out)?;
    Ok(out)
}

/// A value has no canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// JSON would turn it into null, and two values into one.
    #[error("{0} is not a finite number")]
    NotFinite(String),
    /// Not a tree of maps, lists, numbers, texts and booleans.
    #[error("{0}")]
    Unsupported(String),
}

fn write(node: &Node, out: &mut String) -> Result<(), NotCanonical> {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(v) => out.push_str(&v.to_string()),
        Value::Int(v) => out.push_str(&v.to_string()),
        Value::Float(v) if v.is_finite() => out.push_str(&number(*v)),
        Value::Float(v) => return Err(NotCanonical::NotFinite(v.to_string())),
        Value::Text(v) => text(v, out),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (i, (key, entry)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                text(key, out);
                out.push(':');
                write(&entry.node, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// A finite number as ECMAScript writes it: the shortest digits that read back as the same double.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned(); // also -0
    }
    let (sign, scientific) = if value < 0.0 { ("-", format!("{:e}", -value)) } else { ("", format!("{value:e}")) };
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` has an exponent");
    let digits = mantissa.replace('.', "");
    let point = exponent.parse::<i32>().expect("an integer") + 1; // place of the decimal point within the digits
    let count = digits.len() as i32;
    let zeros = |n: i32| "0".repeat(n as usize);
    let magnitude = match point {
        _ if count <= point && point <= 21 => digits + &zeros(point - count),
        1..=21 => format!("{}.{}", &digits[..point as usize], &digits[point as usize..]),
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => {
            let fraction = if count > 1 { format!(".{}", &digits[1..]) } else { String::new() };
            format!("{}{fraction}e{:+}", &digits[..1], point - 1)
        }
    };
    format!("{sign}{magnitude}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn numbers_are_spelt_as_in_the_rfc() {
        // RFC 8785, appendix B: IEEE 754 bits and the text.
        let vectors: [(u64, &str); 22] = [
            (0x0000000000000000, "0"),
            (0x8000000000000000, "0"),
            (0x0000000000000001, "5e-324"),
            (0x8000000000000001, "-5e-324"),
            (0x7fefffffffffffff, "1.7976931348623157e+308"),
            (0xffefffffffffffff, "-1.7976931348623157e+308"),
            (0x4340000000000000, "9007199254740992"),
            (0xc340000000000000, "-9007199254740992"),
            (0x4430000000000000, "295147905179352830000"),
            (0x44b52d02c7e14af5, "9.999999999999997e+22"),
            (0x44b52d02c7e14af6, "1e+23"),
            (0x44b52d02c7e14af7, "1.0000000000000001e+23"),
            (0x444b1ae4d6e2ef4e, "999999999999999700000"),
            (0x444b1ae4d6e2ef4f, "999999999999999900000"),
            (0x444b1ae4d6e2ef50, "1e+21"),
            (0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"),
            (0x3eb0c6f7a0b5ed8d, "0.000001"),
            (0x41b3de4355555553, "333333333.3333332"),
            (0x41b3de4355555554, "333333333.33333325"),
            (0x41b3de4355555555, "333333333.3333333"),
            (0x41b3de4355555557, "333333333.33333343"),
            (0xbecbf647612f3696, "-0.0000033333333333333333"),
        ];
        for (bits, text) in vectors {
            assert_eq!(number(f64::from_bits(bits)), text, "{bits:x}");
        }
    }

    #[test]
    fn keys_are_sorted_and_integers_keep_their_digits() {
        let value = BTreeMap::from([("b", vec![u64::MAX, 1]), ("A\n", vec![])]);
        assert_eq!(to_json(&value).unwrap(), r#"{"A\n":[],"b":[18446744073709551615,1]}"#);
        assert_eq!(to_json(&(1.0, 1, 0.75, -0.0)).unwrap(), "[1,1,0.75,0]");
        assert_eq!(to_json(&(None::<u8>, true, "é\"\u{1}")).unwrap(), "[null,true,\"é\\\"\\u0001\"]");
    }

    #[test]
    fn numbers_that_are_not_finite_have_no_form() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(to_json(&[value]), Err(NotCanonical::NotFinite(value.to_string())));
        }
    }
}
