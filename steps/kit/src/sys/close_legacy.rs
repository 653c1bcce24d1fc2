//! close(2), one descriptor at a time: for kernels before 5.9, which have no
//! close_range(2), and for old seccomp filters.

use std::fs;
use std::ops::RangeInclusive;

use anyhow::{Context, Result};

/// Closes the open descriptors in `range`, found in `/proc/self/fd`.
pub(super) fn close_each(range: RangeInclusive<u32>) -> Result<()> {
    let fds = fs::read_dir("/proc/self/fd")
        .context("read /proc/self/fd")?
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|fd| range.contains(&(*fd as u32)))
        .collect::<Vec<_>>();
    for fd in fds {
        // SAFETY: see `close_all_but`: what is closed is never used again.
        // EBADF is the listing's own descriptor.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
