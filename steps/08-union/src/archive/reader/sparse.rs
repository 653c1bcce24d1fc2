//! Files with holes. An archive holds their data one piece after the other, and
//! a map says where in the file each goes. GNU tar has written that map in four
//! ways (its manual, “Storing Sparse Files”):
//!
//! | format | type | map |
//! |---|---|---|
//! | old | `S` | in the header, and in blocks behind it |
//! | PAX 0.0 | regular | two records for each piece |
//! | PAX 0.1 | regular | one record, `GNU.sparse.map` |
//! | PAX 1.0 | regular | text in front of the data |

use anyhow::{Context, Result, bail};

use super::pax::{MAP, Records};
use super::{BLOCK, numbers};

/// The largest number of pieces of a file.
pub const EXTENTS: usize = 1 << 18;

/// A piece of a file's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its position in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The sparse format of an entry with PAX records.
pub(super) enum Format {
    /// 0.0 and 0.1: the map.
    InRecords(Vec<Extent>),
    /// 1.0: the map comes before the data.
    InContent,
}

/// The sparse format that the records declare; `None` for a file without holes.
///
/// # Errors
/// If the version is unknown, or the map damaged.
pub(super) fn format(records: &Records) -> Result<Option<Format>> {
    let record = |key: &[u8]| records.get(key).filter(|value| !value.is_empty());
    let major = record(b"GNU.sparse.major").map(Vec::as_slice);
    let minor = record(b"GNU.sparse.minor").map(Vec::as_slice);
    match (major, minor) {
        (Some(b"1"), Some(b"0")) => return Ok(Some(Format::InContent)),
        (Some(b"0"), Some(b"0" | b"1")) | (None, None) => {}
        _ => bail!("it is a sparse file of an unknown format"),
    }
    let Some(count) = record(b"GNU.sparse.numblocks") else {
        // A file of a newer version must not be taken for a plain one.
        let key = records.keys().find(|key| key.starts_with(b"GNU.sparse."));
        return match key {
            Some(_) => bail!("it is sparse, and has no map of its data"),
            None => Ok(None),
        };
    };
    let count = count_of(count)?;
    let mut extents = Vec::new();
    let map = record(MAP).map(Vec::as_slice).unwrap_or_default();
    let mut numbers = map
        .split(|byte| *byte == b',')
        .filter(|number| !number.is_empty());
    while let (Some(offset), length) = (numbers.next(), numbers.next()) {
        if extents.len() == count {
            bail!("it is sparse, and its map is longer than it says");
        }
        extents.push(extent(
            numbers::decimal(offset),
            length.and_then(numbers::decimal),
        )?);
    }
    if extents.len() != count {
        bail!("it is sparse, and its map is shorter than it says");
    }
    Ok(Some(Format::InRecords(extents)))
}

/// The size of a file in bytes, holes included, if the records have it.
pub(super) fn size(records: &Records) -> Result<Option<u64>> {
    let record = |key: &[u8]| records.get(key).filter(|value| !value.is_empty());
    let size = record(b"GNU.sparse.size").or(record(b"GNU.sparse.realsize"));
    size.map(|size| positive(numbers::decimal(size)))
        .transpose()
}

/// Reads the map of format 1.0 by `block`, which returns the content block by
/// block: one decimal number per line, the first that of the pieces.
pub(super) fn in_content(mut block: impl FnMut() -> Result<[u8; BLOCK]>) -> Result<Vec<Extent>> {
    let mut text = block()?;
    let mut at = 0;
    let mut number = || -> Result<Vec<u8>> {
        let mut digits = Vec::new();
        loop {
            if at == BLOCK {
                (text, at) = (block()?, 0);
            }
            let byte = text[at];
            at += 1;
            match byte {
                b'\n' => return Ok(digits),
                // 64 bits have at most 20 digits.
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => bail!("it is sparse, and its map is not a number"),
            }
        }
    };
    let count = count_of(&number()?)?;
    let mut extents = Vec::new();
    for _ in 0..count {
        let offset = numbers::decimal(&number()?);
        let length = numbers::decimal(&number()?);
        extents.push(extent(offset, length)?);
    }
    Ok(extents)
}

/// Adds the pieces that a block of the old format lists, up to an empty one.
///
/// # Errors
/// If there are more than [`EXTENTS`], or if they are no numbers.
pub(super) fn in_header(block: &[u8], extents: &mut Vec<Extent>) -> Result<()> {
    for entry in block.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        if extents.len() == EXTENTS {
            bail!("it is sparse, and has more than {EXTENTS} pieces: refused");
        }
        let (offset, length) = entry.split_at(12);
        extents.push(extent(numbers::field(offset), numbers::field(length))?);
    }
    Ok(())
}

/// Checks that pieces follow one another, end within `size` bytes of a file,
/// and have no more than the archive holds.
pub(super) fn check(extents: &[Extent], size: u64, held: u64) -> Result<()> {
    let (mut end, mut data) = (0, 0_u64);
    for extent in extents {
        let next = extent.offset.checked_add(extent.length);
        match next.filter(|next| extent.offset >= end && *next <= size) {
            Some(next) => end = next,
            None => bail!("it is sparse, and its pieces overlap or lie outside of it"),
        }
        // No overflow: all of them are within `size`.
        data += extent.length;
    }
    if data > held {
        bail!("it is sparse, and the archive holds {held} of its {data} bytes");
    }
    Ok(())
}

fn count_of(digits: &[u8]) -> Result<usize> {
    let count = positive(numbers::decimal(digits))?;
    match usize::try_from(count) {
        Ok(count) if count <= EXTENTS => Ok(count),
        _ => bail!("it is sparse, and has more than {EXTENTS} pieces: refused"),
    }
}

fn extent(offset: Option<i64>, length: Option<i64>) -> Result<Extent> {
    Ok(Extent {
        offset: positive(offset)?,
        length: positive(length)?,
    })
}

fn positive(number: Option<i64>) -> Result<u64> {
    number
        .and_then(|number| u64::try_from(number).ok())
        .context("it is sparse, and its map is not a number")
}
