//! Attempts that show what a process may do, without doing it.
//!
//! No attempt changes anything, even where it is allowed, and even for the real
//! root of the host. Most rely on the kernel's order of checks: rights first,
//! arguments after. With an argument that can never be valid, `EPERM` means
//! that the caller lacks the right, and another errno that it has it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};

use anyhow::{Context, Result};
use kit::errno;
use nix::errno::Errno;
use nix::kmod::init_module;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::chroot;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use rustix::process::{getpriority_process, setpriority_process};
use rustix::system::sethostname;

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Allowed.
    May,
    /// Refused, with this errno.
    MayNot(Errno),
    /// Not tried, for this reason.
    Unknown(String),
}

/// An attempt and its outcome.
pub struct Attempt {
    /// The action that was tried.
    pub what: &'static str,
    /// What the action requires: a capability, and the user namespace in which
    /// it counts.
    pub asks_for: &'static str,
    /// The outcome.
    pub outcome: Outcome,
}

type Try = fn() -> Result<Outcome>;

/// Makes every attempt.
pub fn attempts() -> Vec<Attempt> {
    let table: [(&str, Try, &str); 9] = [
        (
            "change the root directory",
            change_root,
            "CAP_SYS_CHROOT in one's own user namespace",
        ),
        (
            "set the host name",
            set_host_name,
            "CAP_SYS_ADMIN in the user namespace that owns the UTS namespace",
        ),
        (
            "mount a tmpfs",
            mount_tmpfs,
            "CAP_SYS_ADMIN in the user namespace that owns the mount namespace",
        ),
        (
            "set the host's clock",
            set_clock,
            "CAP_SYS_TIME in the first user namespace: there is one clock for all",
        ),
        (
            "load a kernel module",
            load_module,
            "CAP_SYS_MODULE in the first user namespace: there is one kernel for all",
        ),
        (
            "make a node for a disk",
            make_disk,
            "CAP_MKNOD in the first user namespace: a node opens the device to all",
        ),
        (
            "mount a block device",
            mount_disk,
            "CAP_SYS_ADMIN in the first user namespace: a forged disk can attack the kernel",
        ),
        (
            "change a file of the host's root",
            change_file,
            "its owner, or CAP_DAC_OVERRIDE where the owner is mapped",
        ),
        (
            "take more CPU time than others",
            raise_priority,
            "CAP_SYS_NICE in the first user namespace",
        ),
    ];
    table
        .map(|(what, attempt, asks_for)| Attempt {
            what,
            asks_for,
            outcome: attempt().unwrap_or_else(|error| Outcome::Unknown(format!("{error:#}"))),
        })
        .into()
}

/// Sorts an errno into an outcome. `allowed` is the errno that follows when the
/// rights suffice.
fn sort(errno: Errno, allowed: Errno) -> Result<Outcome> {
    match errno {
        _ if errno == allowed => Ok(Outcome::May),
        Errno::EPERM | Errno::EACCES | Errno::EROFS => Ok(Outcome::MayNot(errno)),
        other => Err(other.into()),
    }
}

/// Tries chroot(2) to the current root.
fn change_root() -> Result<Outcome> {
    chroot("/").map_or_else(|errno| sort(errno, Errno::EINVAL), |()| Ok(Outcome::May))
}

/// Tries sethostname(2) with a name that is too long (`EINVAL`).
fn set_host_name() -> Result<Outcome> {
    match sethostname(&[b'x'; 65]) {
        Ok(()) => Ok(Outcome::May),
        Err(error) => sort(errno::nix(error), Errno::EINVAL),
    }
}

/// Tries to mount a tmpfs that is attached nowhere: the mount that fsmount(2)
/// makes ends with its descriptor.
fn mount_tmpfs() -> Result<Outcome> {
    let mounted = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|tmpfs| {
        fsconfig_create(&tmpfs)?;
        fsmount(
            &tmpfs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    });
    match mounted {
        Ok(_detached) => Ok(Outcome::May),
        Err(error) => sort(errno::nix(error), Errno::EINVAL),
    }
}

/// Tries adjtimex(2) with a tick of 0 µs, which is out of range (`EINVAL`).
fn set_clock() -> Result<Outcome> {
    match kit::sys::adjust_tick(0) {
        Ok(()) => Ok(Outcome::May),
        Err(errno) => sort(errno, Errno::EINVAL),
    }
}

/// Tries init_module(2) with an empty image, which is not a module (`ENOEXEC`).
fn load_module() -> Result<Outcome> {
    match init_module(&[], &CString::default()) {
        Ok(()) => Ok(Outcome::May),
        Err(Errno::ENOSYS) => Ok(Outcome::Unknown("this kernel has no modules".to_owned())),
        Err(errno) => sort(errno, Errno::ENOEXEC),
    }
}

/// Tries to make a block device node, in a directory that only the owner may
/// enter, with mode 0. The node is removed at once.
fn make_disk() -> Result<Outcome> {
    let Some(dir) = ["/tmp", "/dev/shm", "/run"]
        .iter()
        .find_map(|parent| tempfile::tempdir_in(parent).ok())
    else {
        return Ok(Outcome::Unknown("no directory to write to".to_owned()));
    };
    let sda = makedev(8, 0);
    let node = dir.path().join("sda");
    let outcome = match mknod(&node, SFlag::S_IFBLK, Mode::empty(), sda) {
        Ok(()) => {
            fs::remove_file(&node).with_context(|| format!("unlink({node:?})"))?;
            Outcome::May
        }
        Err(errno) => sort(errno, Errno::EINVAL)?,
    };
    dir.close().context("remove the directory again")?;
    Ok(outcome)
}

/// Tries to mount a file system from a directory as its block device
/// (`ENOTBLK`). The mount would be attached nowhere.
fn mount_disk() -> Result<Outcome> {
    let Some(kind) = block_file_system()? else {
        return Ok(Outcome::Unknown(
            "this kernel has no file system for disks".to_owned(),
        ));
    };
    let created = fsopen(kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_set_string(&context, "source", "/")?;
        fsconfig_create(&context)
    });
    match created {
        Ok(()) => Ok(Outcome::May),
        Err(error) => sort(errno::nix(error), Errno::ENOTBLK),
    }
}

/// Returns a block file system that is already loaded: the request for another
/// would load its module.
fn block_file_system() -> Result<Option<String>> {
    let list = "/proc/filesystems";
    Ok(fs::read_to_string(list)
        .with_context(|| format!("read {list}"))?
        .lines()
        .find_map(|line| line.strip_prefix('\t'))
        .map(str::to_owned))
}

/// Tries to open `/etc/passwd` for writing, and writes nothing.
fn change_file() -> Result<Outcome> {
    let opened: std::io::Result<File> = OpenOptions::new().write(true).open("/etc/passwd");
    match opened {
        Ok(_unchanged) => Ok(Outcome::May),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(errno) => sort(errno, Errno::EINVAL).context("open /etc/passwd"),
            None => Err(error.into()),
        },
    }
}

/// Tries to raise the priority of this process, which is about to end.
fn raise_priority() -> Result<Outcome> {
    let nice = getpriority_process(None).context("getpriority")?;
    match setpriority_process(None, nice - 1) {
        Ok(()) => Ok(Outcome::May),
        Err(error) => sort(errno::nix(error), Errno::EINVAL),
    }
}
