//! Setting the times of files: utimensat(2).

use std::io;
use std::path::Path;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

pub(super) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds);
    let link = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, link)?)
}
