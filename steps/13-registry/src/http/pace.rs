//! A body that comes too slowly. A server that sends a byte every ten seconds
//! never trips a time limit on single reads, and would keep a pull for ever.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

/// The fewest bytes per second that are worth waiting for.
const SLOWEST: u64 = 1024;

/// A reader that gives up when less than [`SLOWEST`] bytes per second have come
/// for as long as our patience lasts.
#[derive(Debug)]
pub struct Paced<R> {
    inner: R,
    patience: Duration,
    since: Instant,
    bytes: u64,
}

impl<R> Paced<R> {
    /// Watches `inner`.
    pub fn new(inner: R, patience: Duration) -> Self {
        Paced {
            inner,
            patience,
            since: Instant::now(),
            bytes: 0,
        }
    }
}

// ANCHOR: read
impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        let passed = self.since.elapsed();
        if read > 0 && passed >= self.patience {
            if self.bytes < SLOWEST * passed.as_secs().max(1) {
                let why = format!("only {} bytes in {} s", self.bytes, passed.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            self.since = Instant::now();
            self.bytes = 0;
        }
        Ok(read)
    }
}
// ANCHOR_END: read
