//! Copying of a file's data: as a reflink if the file system can share blocks,
//! else inside the kernel, and always without filling holes.

use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

use crate::beneath::{Result, stat_fd};

/// Copies the first `length` bytes. The copy is `length` bytes long.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd, length: u64) -> Result<()> {
    if stat_fd(from)?.stx_size == length && ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    ftruncate(to, length)?;
    let mut at = 0;
    while at < length {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) if start < length => start,
            // Only a hole is left.
            Ok(_) | Err(Errno::NXIO) => return Ok(()),
            // A file system without SEEK_DATA: everything is data.
            Err(Errno::INVAL) => at,
            Err(errno) => return Err(errno),
        };
        let end = seek(from, SeekFrom::Hole(start)).map_or(length, |hole| hole.min(length));
        copy_range(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let wanted = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), wanted) {
            // The file has become shorter meanwhile.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // Different file systems, or one without this call.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_through_memory(from, to, read, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_through_memory(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let room = buffer
            .len()
            .min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let count = pread(from, &mut buffer[..room], at)?;
        if count == 0 {
            return Ok(());
        }
        write_all(to, &buffer[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

/// Writes all of `data` at `offset`.
pub(crate) fn write_all(to: &OwnedFd, mut data: &[u8], mut offset: u64) -> Result<()> {
    while !data.is_empty() {
        match pwrite(to, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                data = &data[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn holes_stay_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create_new(&from).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"end", 8 << 20).unwrap();
        let length = file.metadata().unwrap().len();
        let source = OwnedFd::from(File::open(&from).unwrap());
        let target = OwnedFd::from(File::create_new(&to).unwrap());
        copy(&source, &target, length).unwrap();
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn a_shorter_copy_has_the_length_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, b"0123456789").unwrap();
        let source = OwnedFd::from(File::open(&from).unwrap());
        let target = OwnedFd::from(File::create_new(&to).unwrap());
        copy(&source, &target, 4).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"0123");
    }
}
