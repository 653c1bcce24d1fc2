//! close(2), one descriptor at a time: for kernels before 5.9, which have no
//! close_range(2), and for old seccomp filters.

use std::fs;
use std::ops::RangeInclusive;

use anyhow::{Context, Result};

/// Closes the open descriptors in `range`, found in `/proc/self/fd`.
pub(super) fn close_each(range: RangeInclusive<u32>) -> Result<()> {
    let reading = || "read /proc/self/fd";
    let mut fds = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").with_context(reading)? {
        let name = entry.with_context(reading)?.file_name();
        fds.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    fds.retain(|fd| range.contains(&(*fd as u32)));
    for fd in fds {
        // SAFETY: see `close_all_but`: what is closed is never used again.
        // EBADF is the listing's own descriptor.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
