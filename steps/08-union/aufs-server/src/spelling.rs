//! The syntax of a branch in the mount options: `./ro=ro+wh`, with backslashes
//! before separators that belong to the name. aufs(5).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Result, anyhow};

/// The right to a branch: whether the union writes to it, and whether others
/// do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// `rw`: read and written through the union.
    Rw,
    /// `ro`: never written through the union; changes by others are seen.
    Ro,
    /// `rr`: "real read-only": never changes at all, so that its attributes are
    /// cached.
    Rr,
}

/// A branch in the mount options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchOption {
    /// The directory, as given.
    pub path: PathBuf,
    /// The right to it.
    pub access: Rights,
    /// Whether whiteouts in it count: always if it is `rw`, else with `+wh`.
    pub whiteouts: bool,
}

/// Parses a branch. Without a right, the first is `rw` and the others are `ro`.
///
/// # Errors
/// If there is no directory.
pub(super) fn branch_option(text: Vec<u8>, first: bool) -> Result<BranchOption> {
    let by_place = if first { Rights::Rw } else { Rights::Ro };
    let equals = text.iter().rposition(|&byte| byte == b'=');
    // What follows the last `=` is a right, or else part of the name.
    let right = equals.and_then(|at| right(&text[at + 1..]).map(|right| (at, right)));
    let (path, (access, wh)) = match right {
        Some((at, right)) => (text[..at].to_vec(), right),
        None => (text, (by_place, false)),
    };
    if path.is_empty() {
        return Err(anyhow!("a branch without a directory"));
    }
    Ok(BranchOption {
        path: PathBuf::from(OsString::from_vec(path)),
        access,
        whiteouts: wh || access == Rights::Rw,
    })
}

/// Parses `rw`, `ro+wh` and the like. Attributes that only say how AUFS stores
/// whiteouts or watches a branch (`+nolwh`, `+moo`…) have no effect here.
fn right(text: &[u8]) -> Option<(Rights, bool)> {
    let mut parts = text.split(|&byte| byte == b'+');
    let access = match parts.next()? {
        b"rw" => Rights::Rw,
        b"ro" => Rights::Ro,
        b"rr" => Rights::Rr,
        _ => return None,
    };
    let mut whiteouts = false;
    for attribute in parts {
        match attribute {
            b"wh" => whiteouts = true,
            b"nolwh" | b"moo" | b"coo_reg" | b"coo_all" | b"unpin" => {}
            _ => return None,
        }
    }
    Some((access, whiteouts))
}

/// Splits at `separator`. A backslash makes a following separator of the option
/// syntax, or a following backslash, an ordinary character. It is dropped only
/// in the innermost split, that of the branches.
pub(super) fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let innermost = separator == b':';
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let escaped = match byte {
            b'\\' => bytes.next(),
            byte if byte == separator => {
                parts.push(Vec::new());
                continue;
            }
            _ => None,
        };
        let Some(part) = parts.last_mut() else {
            continue;
        };
        match escaped {
            Some(next) if innermost && matches!(next, b',' | b':' | b'\\') => part.push(next),
            Some(next) => part.extend([byte, next]),
            None => part.push(byte),
        }
    }
    parts
}

/// Escapes a path of any bytes so that
/// [`Options::parse`](crate::Options::parse) reads it back.
pub fn escape(path: &OsStr) -> OsString {
    let mut escaped = Vec::new();
    for &byte in path.as_bytes() {
        if matches!(byte, b',' | b':' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}

/// A branch's right as `/sys/fs/aufs/si_*/br*` prints it: `rw`, `ro+wh`.
pub fn right_text(access: Rights, whiteouts: bool) -> &'static str {
    match (access, whiteouts) {
        (Rights::Rw, _) => "rw",
        (Rights::Ro, false) => "ro",
        (Rights::Ro, true) => "ro+wh",
        (Rights::Rr, false) => "rr",
        (Rights::Rr, true) => "rr+wh",
    }
}
