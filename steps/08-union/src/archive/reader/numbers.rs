//! Numbers of headers: octal text, GNU's base-256, and the decimal text of PAX
//! records.

/// The number in a field of a header; `None` if there is none. A field of NULs
/// or blanks is 0.
///
/// Base-256 begins with a set bit; the rest is a two's complement number, the
/// highest byte first. Octal text may have NULs and blanks on both sides; GNU
/// tar takes what stands before the first of them.
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return base_256(bytes);
    }
    let is_blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let start = bytes.iter().position(|byte| !is_blank(byte));
    let digits = &bytes[start.unwrap_or(bytes.len())..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    let mut number: i64 = 0;
    for digit in &digits[..end] {
        let digit = char::from(*digit).to_digit(8)?;
        number = number.checked_mul(8)?.checked_add(digit.into())?;
    }
    Some(number)
}

fn base_256(bytes: &[u8]) -> Option<i64> {
    // The first bit marks base-256, the second is the sign.
    let is_negative = bytes.first()? & 0x40 != 0;
    let mut number: i64 = if is_negative { -1 } else { 0 };
    for (at, byte) in bytes.iter().enumerate() {
        let byte = match (at, is_negative) {
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        number = number.checked_mul(256)? | i64::from(byte);
    }
    Some(number)
}

/// The number in a PAX record.
pub(super) fn decimal(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The time in a PAX record: seconds and nanoseconds since 1970. Digits after
/// the ninth are cut off.
pub(super) fn time(bytes: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    let seconds: i64 = whole.parse().ok()?;
    // Before 1970 the fraction counts away from zero; the kernel's does not.
    Some(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_octal_or_base_256_or_empty() {
        for (bytes, number) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\x00000644\0", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"12 34\0\0\0", Some(0o12)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"", Some(0)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"\x80\0\0\0\0\0\x01\x02", Some(0x102)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX),
            ),
        ] {
            assert_eq!(field(bytes), number, "{bytes:x?}");
        }
    }

    #[test]
    fn times_are_decimal_on_both_sides_of_1970() {
        for (text, parsed) in [
            ("1.000000005", Some((1, 5))),
            ("1.0000000059", Some((1, 5))),
            ("1.", Some((1, 0))),
            ("-0.5", Some((-1, 500_000_000))),
            ("-3", Some((-3, 0))),
            ("-9223372036854775808.5", None),
            ("x", None),
            ("", None),
            ("1.-5", None),
            ("1e9", None),
        ] {
            assert_eq!(time(text.as_bytes()), parsed, "{text}");
        }
    }
}
