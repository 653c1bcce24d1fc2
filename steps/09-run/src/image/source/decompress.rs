//! Compression of layers and archives, recognised by their first bytes: media
//! types may lie, and `docker save` archives have none.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The compression of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// None.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// bzip2. Root file systems and sources come so packed, and layers of images
    /// from before the specification.
    Bzip2,
    /// xz, like bzip2.
    Xz,
}

/// The most memory for unpacking xz, in KiB: `xz -9` needs 65 MiB.
const XZ: u32 = 128 << 10;

impl Packing {
    /// The compression of data that begins with `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            // A skippable frame, with which `zstd:chunked` may begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [b'B', b'Z', b'h', ..] => Packing::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Packing::Xz,
            _ => Packing::Plain,
        }
    }
}

/// A reader of what is in `from`, decompressed.
///
/// # Errors
/// If the first bytes cannot be read.
pub fn decompress<'a>(from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    Ok(match Packing::of(from.fill_buf()?) {
        Packing::Plain => Box::new(from),
        Packing::Gzip => Box::new(Gzip(Some(GzDecoder::new(from)))),
        Packing::Zstd => Box::new(Zstd { from, frame: None }),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
        Packing::Xz => Box::new(Xz(lzma_rust2::XzReader::new_mem_limit(from, true, XZ))),
    })
}

/// A reader of xz that is only asked for something: the library takes a read of
/// no bytes for the end of its block, and misses the checksum there.
struct Xz<R>(R);

impl<R: Read> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match buffer.is_empty() {
            true => Ok(0),
            false => self.0.read(buffer),
        }
    }
}

/// A reader of gzip members, one after another. The library's own decoder for
/// several members fails at the zeroes that fill the last block of a tape,
/// which gzip(1) ignores.
struct Gzip<R: Read>(Option<GzDecoder<BufReader<R>>>);

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut from) = self.0.take().map(GzDecoder::into_inner) else {
                break;
            };
            let begins = from.fill_buf()?.first().copied();
            if begins == Some(0) {
                only_zeroes(&mut from)?;
            } else if begins.is_some() {
                self.0 = Some(GzDecoder::new(from));
            }
        }
        Ok(0)
    }
}

fn only_zeroes(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = from.fill_buf()?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(io::Error::other("gzip: something else follows its end"));
        }
        let length = bytes.len();
        if length == 0 {
            return Ok(());
        }
        from.consume(length);
    }
}

/// A reader of Zstandard frames, one after another: the library reads one.
struct Zstd<R: Read> {
    from: BufReader<R>,
    frame: Option<FrameDecoder>,
}

impl<R: Read> Zstd<R> {
    /// Starts the next frame; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        while !self.from.fill_buf()?.is_empty() {
            let mut decoder = self.frame.take().unwrap_or_default();
            match decoder.init(&mut self.from) {
                Ok(()) => {
                    self.frame = Some(decoder);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.from).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                    let (requested, max) = (requested >> 20, max >> 20);
                    let why = format!(
                        "zstd: unpacking needs {requested} MiB of memory, and the limit is {max}: \
                         pack it with --long=27 or less"
                    );
                    return Err(io::Error::other(why));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                while frame.can_collect() == 0 && !frame.is_finished() {
                    frame
                        .decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1))
                        .map_err(io::Error::other)?;
                }
                let read = frame.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                // The library leaves comparing the checksums to its callers.
                let promised = frame.get_checksum_from_data();
                if promised.is_some() && promised != frame.get_calculated_checksum() {
                    return Err(io::Error::other("zstd: the checksum is wrong"));
                }
            }
            if !self.next()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        decompress(bytes)?.read_to_end(&mut all)?;
        Ok(all)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(bytes, level)
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut to = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    }

    /// `layers layers layers`, as xz(1) packs it.
    const XZ_FILE: [u8; 72] = [
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21,
        0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0xe0, 0x00, 0x13, 0x00, 0x0d, 0x5d,
        0x00, 0x36, 0x18, 0x4b, 0x98, 0xe9, 0xc5, 0xd9, 0xf2, 0x8f, 0xd6, 0xbd, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x80, 0xcd, 0x48, 0x8a, 0x00, 0x01, 0x25, 0x14, 0xb1, 0xb1, 0xaf, 0xd2,
        0x90, 0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
    ];

    #[test]
    fn several_members_are_one_stream() {
        let text = b"layers ".repeat(1000);
        assert_eq!(unpacked(&text).unwrap(), text);
        for pack in [gzip, zstd, bzip2] {
            let two = [pack(&text), pack(b""), pack(b"end")].concat();
            assert_eq!(unpacked(&two).unwrap(), [&text[..], b"end"].concat());
        }
        // Zeroes behind gzip fill a block; anything else is not skipped.
        let padded = [gzip(&text), gzip(b"end"), vec![0; 70_000]].concat();
        assert_eq!(unpacked(&padded).unwrap(), [&text[..], b"end"].concat());
        for more in [&b"garbage"[..], b"\0\0garbage"] {
            assert!(unpacked(&[&gzip(b"end")[..], more].concat()).is_err());
        }
        let two = [XZ_FILE, XZ_FILE].concat();
        assert_eq!(unpacked(&two).unwrap(), b"layers layers layers".repeat(2));
        let skipped = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(b"end")].concat();
        assert_eq!(unpacked(&skipped).unwrap(), b"end");
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_an_error() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        for pack in [gzip, zstd, bzip2] {
            let whole = pack(&text);
            for length in [5, whole.len() / 2, whole.len() - 1] {
                assert!(unpacked(&whole[..length]).is_err(), "{length}");
            }
            let mut damaged = whole.clone();
            damaged[whole.len() - 2] ^= 1;
            assert!(unpacked(&damaged).is_err());
        }
        assert!(unpacked(b"BZh91AY").is_err());
        for length in [6, XZ_FILE.len() / 2, XZ_FILE.len() - 1] {
            assert!(unpacked(&XZ_FILE[..length]).is_err(), "{length}");
        }
        for at in [30, 40] {
            let mut damaged = XZ_FILE;
            damaged[at] ^= 1;
            assert!(unpacked(&damaged).is_err(), "{at}");
        }
    }
}
