//! Trying what a process may do, without doing it.
//!
//! Each attempt is made so that nothing changes even where it is allowed, and
//! even for the real root of the host. Most rest on the order in which the
//! kernel checks: rights first, arguments after. An argument that can never be
//! valid then tells the two apart: `EPERM` for who may not, another errno for
//! who may.

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

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is allowed.
    May,
    /// It is not, with this error.
    MayNot(Errno),
    /// It could not be tried, and why.
    Unknown(String),
}

/// An attempt and its outcome.
pub struct Attempt {
    /// What was tried.
    pub what: &'static str,
    /// What it asks for: the right, and of which user namespace.
    pub asks_for: &'static str,
    /// What came of it.
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

/// Sorts an errno: `allowed` is the one that follows when the rights suffice.
fn sort(errno: Errno, allowed: Errno) -> Result<Outcome> {
    match errno {
        _ if errno == allowed => Ok(Outcome::May),
        Errno::EPERM | Errno::EACCES | Errno::EROFS => Ok(Outcome::MayNot(errno)),
        other => Err(other.into()),
    }
}

/// To where it is already.
fn change_root() -> Result<Outcome> {
    chroot("/").map_or_else(|errno| sort(errno, Errno::EINVAL), |()| Ok(Outcome::May))
}

/// To one that is too long (`EINVAL`).
fn set_host_name() -> Result<Outcome> {
    match sethostname(&[b'x'; 65]) {
        Ok(()) => Ok(Outcome::May),
        Err(error) => sort(errno::nix(error), Errno::EINVAL),
    }
}

/// On nothing: fsmount(2) makes a mount that is attached nowhere, and it is
/// gone when its descriptor is.
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

/// With a tick of 0 µs, which is out of range (`EINVAL`, adjtimex(2)).
fn set_clock() -> Result<Outcome> {
    match kit::sys::adjust_tick(0) {
        Ok(()) => Ok(Outcome::May),
        Err(errno) => sort(errno, Errno::EINVAL),
    }
}

/// An image of no bytes is no module (`ENOEXEC`, init_module(2)).
fn load_module() -> Result<Outcome> {
    match init_module(&[], &CString::default()) {
        Ok(()) => Ok(Outcome::May),
        Err(Errno::ENOSYS) => Ok(Outcome::Unknown("this kernel has no modules".to_owned())),
        Err(errno) => sort(errno, Errno::ENOEXEC),
    }
}

/// In a directory that only the owner may enter, with a mode that lets nobody
/// open it, and removed at once.
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

/// From a source that is a directory (`ENOTBLK`), attached nowhere.
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

/// One that is loaded already: asking for another would load its module.
fn block_file_system() -> Result<Option<String>> {
    let list = "/proc/filesystems";
    Ok(fs::read_to_string(list)
        .with_context(|| format!("read {list}"))?
        .lines()
        .find_map(|line| line.strip_prefix('\t'))
        .map(str::to_owned))
}

/// Opens it for writing and writes nothing.
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

/// Of this process alone, which is about to end.
fn raise_priority() -> Result<Outcome> {
    let nice = getpriority_process(None).context("getpriority")?;
    match setpriority_process(None, nice - 1) {
        Ok(()) => Ok(Outcome::May),
        Err(error) => sort(errno::nix(error), Errno::EINVAL),
    }
}
