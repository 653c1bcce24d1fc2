//! Files of the container, opened by the engine's own process in the
//! container's root: the image decides what the paths lead to.
//!
//! A magic link (proc(5)) is a link of `/proc/PID` to an open file, a working
//! directory or a program. The kernel follows it straight to its target, even
//! out of the root: `/proc/self/exe` is the engine's program on the host. The
//! functions here resolve no path through a magic link (openat2(2),
//! `RESOLVE_NO_MAGICLINKS`).

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};

/// Opens `path` close-on-exec, without following magic links.
///
/// # Errors
/// `ELOOP` for a magic link, or for too many symbolic links.
pub fn open(path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(AT_FDCWD, path, how) {
            // Another process renames in the tree at this moment (openat2(2)).
            Err(Errno::EAGAIN) => {}
            done => return done,
        }
    }
}

/// Reads a regular file of at most `limit` bytes. Returns `None` if the file
/// does not exist.
///
/// # Errors
/// Refuses a magic link (`ELOOP`), a longer file, and a file that is not
/// regular: reading it might never start or never end.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    // O_NONBLOCK: open(2) of a FIFO would wait for a writer.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match open(path, flags) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(Errno::ELOOP) => bail!(
            "open {path:?}: ELOOP: too many symbolic links, or one of /proc that leads to an open \
             file, which is not followed"
        ),
        // Such as ENXIO for a socket, or for a device without a driver.
        Err(errno) => return Err(errno).with_context(|| format!("open {path:?}")),
    };
    if !is_regular(&file).with_context(|| format!("read {path:?}"))? {
        bail!("{path:?} is not a regular file: it is not read");
    }
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {path:?}"))?;
    if bytes.len() as u64 > limit {
        bail!("{path:?} has more than {limit} bytes: it is not read");
    }
    Ok(Some(bytes))
}

/// Whether `file` is a regular file.
pub fn is_regular(file: impl AsFd) -> Result<bool> {
    let mode = fstat(file).context("fstat")?.st_mode;
    Ok(SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_some_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "12345").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", at("magic")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&at("link"), 5).unwrap().unwrap(), b"12345");
        assert!(read(&at("nothing"), 5).unwrap().is_none());
        for (name, why) in [
            ("file", "more than 4"),
            ("magic", "ELOOP"),
            ("zero", "not a regular file"),
            ("fifo", "not a regular file"),
            (".", "not a regular file"),
        ] {
            let error = format!("{:#}", read(&at(name), 4).unwrap_err());
            assert!(error.contains(why), "{name}: {error}");
        }
    }
}
