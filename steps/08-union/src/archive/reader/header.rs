//! A header: one block, whose fields tar(5) lists.

use anyhow::{Context, Result};

use super::{BLOCK, numbers};

/// A block of an archive, read as a header.
pub(super) struct Header([u8; BLOCK]);

/// The layouts after the first 257 bytes, which are the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// No fields there.
    V7,
    /// POSIX: names, device numbers, a prefix of the path.
    Ustar,
    /// star's: as POSIX, with a shorter prefix and two times behind it.
    Star,
    /// GNU's before POSIX: times and the map of a sparse file.
    Gnu,
}

impl Header {
    pub(super) fn new(block: [u8; BLOCK]) -> Self {
        Header(block)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0 == [0; BLOCK]
    }

    /// Whether the checksum is right: the sum of all bytes, its own field
    /// counted as blanks. Some old programs added up signed bytes.
    pub(super) fn is_valid(&self) -> bool {
        let rest = || self.0[..148].iter().chain(&self.0[156..]);
        let blanks = 8 * i64::from(b' ');
        let unsigned: i64 = rest().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = rest().map(|byte| i64::from(byte.cast_signed())).sum();
        let sum = numbers::field(&self.0[148..156]);
        sum == Some(blanks + unsigned) || sum == Some(blanks + signed)
    }

    fn format(&self) -> Format {
        match &self.0[257..265] {
            b"ustar  \0" => Format::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if &self.0[508..] == b"tar\0" => Format::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            _ => Format::V7,
        }
    }

    /// The type flag.
    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }

    /// The path, as far as it fits into a header.
    pub(super) fn path(&self) -> Vec<u8> {
        let prefix = match self.format() {
            Format::V7 => &[],
            Format::Ustar => text(&self.0[345..500]),
            Format::Star => text(&self.0[345..476]),
            // GNU has times in place of the prefix. Go before 1.8 wrote a
            // prefix nevertheless, and so did Docker; it does not look like a
            // time.
            Format::Gnu if self.has_times() => &[],
            Format::Gnu => Some(text(&self.0[345..500]))
                .filter(|prefix| prefix.is_ascii())
                .unwrap_or(&[]),
        };
        let name = text(&self.0[..100]);
        match prefix {
            [] => name.to_owned(),
            _ => [prefix, b"/", name].concat(),
        }
    }

    fn has_times(&self) -> bool {
        [&self.0[345..357], &self.0[357..369]]
            .iter()
            .all(|time| time[0] == 0 || numbers::field(time).is_some())
    }

    /// The target of a link, as far as it fits.
    pub(super) fn link(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<i64> {
        numbers::field(&self.0[100..108]).context("its mode is not a number")
    }

    pub(super) fn uid(&self) -> Result<i64> {
        numbers::field(&self.0[108..116]).context("its uid is not a number")
    }

    pub(super) fn gid(&self) -> Result<i64> {
        numbers::field(&self.0[116..124]).context("its gid is not a number")
    }

    pub(super) fn size(&self) -> Result<i64> {
        numbers::field(&self.0[124..136]).context("its size is not a number")
    }

    pub(super) fn mtime(&self) -> Result<i64> {
        numbers::field(&self.0[136..148]).context("its mtime is not a number")
    }

    /// Major and minor number of a device; 0 and 0 in V7, which has no fields
    /// for them.
    pub(super) fn device(&self) -> Result<(i64, i64)> {
        if self.format() == Format::V7 {
            return Ok((0, 0));
        }
        let major = numbers::field(&self.0[329..337]).context("its major is not a number")?;
        let minor = numbers::field(&self.0[337..345]).context("its minor is not a number")?;
        Ok((major, minor))
    }

    /// GNU's map of a sparse file: the entries in the header, whether more
    /// follow in the next block, and the file's size, holes included. `None` in
    /// other formats.
    pub(super) fn sparse(&self) -> Option<(&[u8], bool, &[u8])> {
        (self.format() == Format::Gnu).then(|| {
            let is_continued = self.0[482] != 0;
            (&self.0[386..482], is_continued, &self.0[483..495])
        })
    }
}

/// A text field, which ends with the field or the first NUL.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(magic: &[u8], prefix: &[u8]) -> Header {
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(b"name");
        block[257..257 + magic.len()].copy_from_slice(magic);
        block[345..345 + prefix.len()].copy_from_slice(prefix);
        Header(block)
    }

    #[test]
    fn only_posix_has_a_prefix_and_what_go_wrote() {
        assert_eq!(header(b"ustar\x0000", b"pre").path(), b"pre/name");
        assert_eq!(header(b"", b"pre").path(), b"name");
        assert_eq!(header(b"ustar  \0", b"00000000017\0").path(), b"name");
        assert_eq!(header(b"ustar  \0", b"pre").path(), b"pre/name");
        assert_eq!(header(b"ustar  \0", b"pr\xff").path(), b"name");
    }

    #[test]
    fn both_checksums_are_right() {
        let mut header = header(b"ustar\x0000", b"\xff\xfe");
        assert!(!header.is_valid());
        for is_signed in [false, true] {
            header.0[148..156].fill(b' ');
            let one = |byte: &u8| match is_signed {
                true => i64::from(byte.cast_signed()),
                false => i64::from(*byte),
            };
            let sum: i64 = header.0.iter().map(one).sum();
            header.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert!(header.is_valid());
        }
    }
}
