//! A reader that gives so much and no more, to be told again for each entry of
//! an archive. What comes before an entry, its long name and its PAX records, is
//! read whole into memory by the library, however long it says it is.
//!
//! It also fills up the last block, which some programs (umoci) leave out where
//! no file's content is cut off by that.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// The most that the headers of one entry may have, in bytes: the kernel's
/// limit on one extended attribute is 64 KiB, on a path 4 KiB.
pub const HEADERS: u64 = 1 << 20;

/// Archives are made of blocks of so many bytes (tar(5)).
const BLOCK: u64 = 512;

/// How much may still be read.
#[derive(Clone, Debug)]
pub struct Meter(Rc<Cell<u64>>);

/// A reader with a [`Meter`].
#[derive(Debug)]
pub struct Metered<R> {
    inner: R,
    meter: Meter,
    passed: u64,
}

impl Meter {
    /// From here on the headers of one entry may be read, and no more.
    pub fn headers(&self) {
        self.0.set(HEADERS);
    }

    /// From here on all may be read: the content of an entry.
    pub fn content(&self) {
        self.0.set(u64::MAX);
    }
}

impl<R> Metered<R> {
    /// A reader of `inner`, and its meter, which begins with the headers.
    pub fn new(inner: R) -> (Self, Meter) {
        let meter = Meter(Rc::new(Cell::new(HEADERS)));
        let reader = Metered {
            inner,
            meter: meter.clone(),
            passed: 0,
        };
        (reader, meter)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.0.get();
        if left == 0 {
            let why = format!("the headers of an entry have more than {HEADERS} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut read = self.inner.read(&mut buffer[..most])?;
        let missing = self.passed.next_multiple_of(BLOCK) - self.passed;
        if read == 0 && left != u64::MAX {
            read = most.min(missing as usize);
            buffer[..read].fill(0);
        }
        self.passed += read as u64;
        if left != u64::MAX {
            self.meter.0.set(left - read as u64);
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.passed = self.inner.seek(to)?;
        Ok(self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_an_end_and_content_has_none() {
        let (mut reader, meter) = Metered::new(io::repeat(1));
        let mut all = Vec::new();
        assert!(
            reader
                .by_ref()
                .take(2 * HEADERS)
                .read_to_end(&mut all)
                .is_err()
        );
        assert_eq!(all.len() as u64, HEADERS);
        meter.content();
        assert!(reader.take(2 * HEADERS).read_to_end(&mut all).is_ok());
    }

    #[test]
    fn a_last_block_is_filled_up_after_the_content_only() {
        let (mut reader, meter) = Metered::new(&[1_u8; 700][..]);
        meter.content();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 700);
        meter.headers();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 1024);
    }
}
