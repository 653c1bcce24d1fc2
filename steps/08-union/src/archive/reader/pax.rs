//! Records of a PAX extended header (pax(1), “pax Extended Header”): each is
//! `LENGTH KEY=VALUE\n`, and its length counts all of it. The length alone says
//! where a record ends: values are binary, and may hold newlines and NULs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64_NOPAD;
use kit::say;

use super::numbers;
use crate::tree::node::Xattrs;

/// The key of the record with the map of sparse format 0.1.
pub(super) const MAP: &[u8] = b"GNU.sparse.map";

/// Values by their keys. Of several with one key the last counts.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads the records of an extended header, up to the NULs that may fill it up.
///
/// # Errors
/// If a record is malformed.
pub(super) fn records(mut bytes: &[u8]) -> Result<Records> {
    let mut records = Records::new();
    let mut map: Vec<&[u8]> = Vec::new();
    while bytes.first().is_some_and(|first| *first != 0) {
        let (key, value, rest) = record(bytes).context("a PAX record is damaged")?;
        bytes = rest;
        // Sparse format 0.0 repeats two keys for each piece of data, in turn;
        // format 0.1 has one key with the same numbers.
        let is_offset = match key {
            b"GNU.sparse.offset" => true,
            b"GNU.sparse.numbytes" => false,
            _ => {
                records.insert(key.to_owned(), value.to_owned());
                continue;
            }
        };
        if is_offset != map.len().is_multiple_of(2) || value.contains(&b',') {
            bail!("the PAX records of a sparse file are out of order");
        }
        map.push(value);
    }
    if !map.is_empty() {
        records.insert(MAP.to_owned(), map.join(&b','));
    }
    Ok(records)
}

/// The first record: its key, its value, and the bytes after it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(numbers::decimal(&bytes[..blank])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let is_text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    if key.is_empty() || key.contains(&0) || is_text && value.contains(&0) {
        return None;
    }
    Some((key, value, rest))
}

/// The extended attributes among the records. star, GNU tar and Go keep them as
/// `SCHILY.xattr.NAME`; libarchive also as `LIBARCHIVE.xattr.NAME`, with the
/// name encoded as in URLs and the value in base64.
pub(super) fn xattrs(records: &Records) -> Xattrs {
    let mut xattrs = Xattrs::new();
    for (key, value) in records {
        let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") else {
            continue;
        };
        let name = from_url(name);
        let digits = value.split(|byte| *byte == b'=').next().unwrap_or_default();
        match BASE64_NOPAD.decode(digits) {
            Ok(value) => drop(xattrs.insert(name, value)),
            // Go and GNU tar read only `SCHILY.xattr.NAME`.
            Err(error) => say!("the attribute {name:?} is skipped: {error}"),
        }
    }
    for (key, value) in records {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            xattrs.insert(OsString::from_vec(name.to_owned()), value.clone());
        }
    }
    xattrs
}

fn from_url(name: &[u8]) -> OsString {
    let mut plain = Vec::new();
    let mut rest = name;
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        let digit = |at: usize| Some(char::from(*others.get(at)?).to_digit(16)? as u8);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                plain.push(high << 4 | low);
                rest = &others[2..];
            }
            _ => plain.push(*first),
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_ends_a_record_and_nothing_else() {
        let found = records(b"12 a=\n\0=b c\n7 b=xy\n\0\0junk").unwrap();
        assert_eq!(found[&b"a"[..]], b"\n\0=b c");
        assert_eq!(found[&b"b"[..]], b"xy");
        assert!(records(b"").unwrap().is_empty());
        for damaged in [
            &b"6 a=b"[..],
            b"7 a=b\n",
            b"6 a=bc",
            b"6 abcd\n",
            b"-1 a=b\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"x a=b\n",
            b"10 path=\0\n",
        ] {
            assert!(records(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn attributes_come_in_two_spellings() {
        let found = records(b"36 LIBARCHIVE.xattr.user.a%20b=AAEK\n").unwrap();
        let found = xattrs(&found);
        assert_eq!(found[&OsString::from("user.a b")], [0, 1, 10]);
    }
}
