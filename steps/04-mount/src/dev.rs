//! `/dev`: a tmpfs with the device nodes that every program may expect, and
//! without the host's disks. null(4), random(4), pts(4), mq_overview(7),
//! shm_overview(7). The nodes are those of the OCI runtime specification,
//! “Default Devices”.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::say;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::symlinkat;

use crate::detached::{Detached, FsOption, MountAttrFlags};
use crate::proc_sys::{INERT, directory};
use kit::errno::is;

// ANCHOR: nodes
/// The device nodes: name, major and minor number
/// (Documentation/admin-guide/devices.txt).
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
// ANCHOR_END: nodes

/// The symbolic links: name and target. `/dev/ptmx` has to be that of the
/// container's own devpts.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts a tmpfs on `/dev` of the root, fills it, and returns its descriptor:
/// a volume of the user may cover the path later. `hosts_queues` says whether
/// the IPC namespace is the one that the host's `/dev/mqueue` shows. `shm_size`
/// is the size of `/dev/shm` in bytes.
pub(crate) fn mount_dev(
    root: BorrowedFd<'_>,
    hosts_queues: bool,
    shm_size: u64,
) -> Result<OwnedFd> {
    let target = directory(root, "/dev")?;
    // Without MOUNT_ATTR_NODEV, because device nodes have to work here. Nodes
    // take no space: a small size keeps the container from storing files in
    // memory in /dev.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("mode", Some("755")), ("size", Some("64k"))];
    let mounted = Detached::new("tmpfs", &options, attributes)?.attach(target.as_fd())?;
    let dev = mounted.as_fd();
    for (name, major, minor) in NODES {
        node(dev, name, makedev(major, minor))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)
            .with_context(|| format!("symlinkat({target}, /dev/{name})"))?;
    }
    mount_pts(dev)?;
    let shm_size = shm_size.to_string();
    let shm = [("mode", Some("1777")), ("size", Some(&*shm_size))];
    Detached::new("tmpfs", &shm, INERT)?
        .attach(make_directory(dev, "shm")?.as_fd())
        .context("/dev/shm")?;
    mount_mqueue(dev, hosts_queues)?;
    Ok(mounted)
}

// ANCHOR: node
/// Makes a device node, or binds the host's if this process may not make one.
fn node(dev: BorrowedFd<'_>, name: &str, number: libc::dev_t) -> Result<()> {
    let mode = Mode::from_bits_truncate(0o666);
    match mknodat(dev, name, SFlag::S_IFCHR, mode, number) {
        // Root of a user namespace may not make device nodes: they give access
        // to the kernel.
        Err(Errno::EPERM) => {
            say!("mknod /dev/{name}: EPERM: a bind of the host's node instead");
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let file =
                openat(dev, name, flags, mode).with_context(|| format!("openat(/dev/{name})"))?;
            // The node is the host's: read-only, so that nobody inside changes
            // its mode or owner. Writing to a device works on a read-only mount
            // (mount(2)).
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            Detached::copy_of(&Path::new("/dev").join(name))?
                .attach_with(attributes, file.as_fd())
                .map(drop)
        }
        Err(Errno::EOVERFLOW) => bail!(
            "mknodat(/dev/{name}): EOVERFLOW: no ID of this user namespace is mapped that could \
             own it: give a map, or omit --rootfs"
        ),
        made => made.with_context(|| format!("mknodat(/dev/{name})")),
    }
}
// ANCHOR_END: node

/// Mounts a devpts of the container's own, whose pseudo-terminals start at 0.
fn mount_pts(dev: BorrowedFd<'_>) -> Result<()> {
    let target = make_directory(dev, "pts")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // Group 5 is tty on nearly every Linux: the group that write(1) runs as.
    let options: [FsOption<'_>; 4] = [
        ("newinstance", None),
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
        ("gid", Some("5")),
    ];
    let made = match Detached::new("devpts", &options, attributes) {
        Err(error) if is(&error, &[Errno::EINVAL]) => {
            say!("devpts: EINVAL: without gid=5, which this user namespace does not map");
            Detached::new("devpts", &options[..3], attributes)
        }
        made => made,
    };
    made?.attach(target.as_fd()).map(drop).context("/dev/pts")
}

/// Mounts the POSIX message queues of this process's IPC namespace. Only the
/// user namespace that owns it may do so (`EPERM`). If the IPC namespace is the
/// host's, the host's mount shows the same queues and is bound instead.
fn mount_mqueue(dev: BorrowedFd<'_>, hosts_queues: bool) -> Result<()> {
    let queues = match Detached::new("mqueue", &[], INERT) {
        Err(error) if is(&error, &[Errno::ENODEV]) && !has_queues()? => {
            say!("mqueue: ENODEV: this kernel has no POSIX message queues, so no /dev/mqueue");
            return Ok(());
        }
        Err(error) if is(&error, &[Errno::EPERM]) && hosts_queues => {
            let host = Path::new("/dev/mqueue");
            if !host.exists() {
                say!("mqueue: EPERM, and the host has no /dev/mqueue to bind");
                return Ok(());
            }
            say!("mqueue: EPERM: a bind of the host's /dev/mqueue instead");
            Detached::copy_of(host)?
        }
        Err(error) if is(&error, &[Errno::EPERM]) => {
            return Err(error.context(
                "/dev/mqueue: only the user namespace that owns an IPC namespace may mount its \
                 message queues: join that user namespace too (--userns container:PID), or use a \
                 new IPC namespace (--ipc private)",
            ));
        }
        made => made?,
    };
    queues
        .attach(make_directory(dev, "mqueue")?.as_fd())
        .map(drop)
        .context("/dev/mqueue")
}

/// Whether the kernel has POSIX message queues. They are never a module
/// (CONFIG_POSIX_MQUEUE), so `/proc/filesystems` is complete.
fn has_queues() -> Result<bool> {
    let known = fs::read_to_string("/proc/filesystems").context("read /proc/filesystems")?;
    Ok(known.lines().any(|line| line.ends_with("\tmqueue")))
}

fn make_directory(dev: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    mkdirat(dev, name, Mode::from_bits_truncate(0o755))
        .with_context(|| format!("mkdirat(/dev/{name})"))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dev, name, flags, Mode::empty()).with_context(|| format!("openat(/dev/{name})"))
}
