//! POSIX message queues (mq_overview(7)): files of the mqueue file system, of
//! which every IPC namespace has its own instance.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Error, Result, anyhow, ensure};
use nix::mqueue::{MQ_OFlag, MqAttr, mq_close, mq_open, mq_unlink};
use nix::sys::stat::Mode as NixMode;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The capacity of a new queue: the number of messages, and the bytes of each.
/// These are the kernel's defaults (`/proc/sys/fs/mqueue`).
const MESSAGES: i64 = 10;
const MESSAGE_BYTES: i64 = 8192;

/// One POSIX message queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The name, with the leading slash of mq_open(3).
    pub name: OsString,
    /// The user ID of the owner.
    pub uid: u32,
    /// The permissions: nine bits, as of a file.
    pub mode: u32,
    /// The size of all messages in it, in bytes. `None` if the caller may not
    /// read it.
    pub bytes: Option<u64>,
}

/// Makes a queue.
///
/// # Errors
/// Refuses a name that is not of the form `/NAME`. `EEXIST` if the name is
/// taken, `ENOSPC` or `EMFILE` beyond the limits (mq_overview(7)).
pub fn make(name: &OsStr, mode: u32) -> Result<()> {
    check_name(name)?;
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC;
    // nix passes the mode on only together with attributes.
    let attributes = MqAttr::new(0, MESSAGES, MESSAGE_BYTES, 0);
    let mode = NixMode::from_bits_truncate(mode);
    let queue = mq_open(name, flags, mode, Some(&attributes))
        .with_context(|| format!("mq_open({name:?})"))?;
    mq_close(queue).with_context(|| format!("mq_close({name:?})"))
}

/// Removes a queue: its name at once, its messages when the last process has
/// closed it.
///
/// # Errors
/// `ENOENT` if there is no such queue, `EACCES` if it belongs to another user.
pub fn remove(name: &OsStr) -> Result<()> {
    check_name(name)?;
    mq_unlink(name).with_context(|| format!("mq_unlink({name:?})"))
}

/// Lists the queues of the caller's IPC namespace.
///
/// The file system at `/dev/mqueue` belongs to the namespace of the process
/// that mounted it. This function therefore mounts the caller's own, attached
/// nowhere, with fsopen(2) and fsmount(2), and lists it through the descriptor.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, as for every mount; `ENODEV` if the kernel
/// has no POSIX message queues.
pub fn list() -> Result<Vec<Queue>> {
    // ANCHOR: exercise_list_queues
    let root = mount()?;
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(&root, ".", open, Mode::empty()).context("open the mqueue file system")?;
    let mut queues = Vec::new();
    for entry in Dir::read_from(&dir).context("read the mqueue file system")? {
        let entry = entry.context("read the mqueue file system")?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            queues.extend(queue(&dir, name)?);
        }
    }
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(queues)
    // ANCHOR_END: exercise_list_queues
}

fn mount() -> Result<OwnedFd> {
    let context = fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen(mqueue)")?;
    fsconfig_create(&context).context("fsconfig(mqueue, FSCONFIG_CMD_CREATE)")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context("fsmount(mqueue)")
}

/// The queue of this name in `dir`. `None` if it was removed in the meantime.
fn queue(dir: impl AsFd, name: &OsStr) -> Result<Option<Queue>> {
    let stat = match statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.with_context(|| format!("stat {name:?} in mqueue"))?,
    };
    let bytes = match openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => {
            let text = std::io::read_to_string(std::fs::File::from(fd))
                .with_context(|| format!("read {name:?} in mqueue"))?;
            Some(queue_size(&text).with_context(|| format!("{name:?} in mqueue: {text:?}"))?)
        }
        Err(Errno::ACCESS) => None,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno).with_context(|| format!("open {name:?} in mqueue")),
    };
    let mut slashed = OsString::from("/");
    slashed.push(name);
    Ok(Some(Queue {
        name: slashed,
        uid: stat.st_uid,
        mode: stat.st_mode & 0o777,
        bytes,
    }))
}

/// Parses the size, in bytes, from the content of a queue's file:
/// `QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260` (mq_overview(7)).
fn queue_size(text: &str) -> Result<u64> {
    text.split_whitespace()
        .find_map(|field| field.strip_prefix("QSIZE:"))
        .context("no QSIZE")?
        .parse()
        .context("QSIZE")
}

fn check_name(name: &OsStr) -> Result<()> {
    let rest = name.as_bytes().strip_prefix(b"/").ok_or_else(|| -> Error {
        anyhow!("{name:?}: the name of a queue begins with a slash (mq_overview(7))")
    })?;
    ensure!(
        !rest.is_empty() && !rest.contains(&b'/'),
        "{name:?}: the name of a queue is a slash, followed by one or more characters other than \
         slashes (mq_overview(7))"
    );
    ensure!(
        rest.len() <= 255,
        "{name:?} has {} bytes after its slash, and 255 is the limit (NAME_MAX)",
        rest.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_out_of_the_status_line() {
        let line = "QSIZE:129     NOTIFY:2    SIGNO:0    NOTIFY_PID:8260\n";
        assert_eq!(queue_size(line).unwrap(), 129);
        assert!(queue_size("").is_err());
    }

    #[test]
    fn names_are_a_slash_and_no_other() {
        assert!(check_name(OsStr::new("/jobs")).is_ok());
        for name in ["", "/", "jobs", "/a/b", &format!("/{}", "a".repeat(256))] {
            assert!(check_name(OsStr::new(name)).is_err(), "{name} was accepted");
        }
    }
}
