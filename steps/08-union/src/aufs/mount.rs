//! The mount of a stack of branches: the first writable, the others read-only.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kit::say;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::mount::MountFlags;
use rustix::process::geteuid;

use crate::cli::aufs::kernel_has_aufs;
use crate::driver::{Access, View};
use crate::mounts::detached::{self, FileSystem};
use aufs_server::background::{self, Die, ServerHandle};
use aufs_server::device;
use aufs_server::options::{Options, Udba};
use aufs_server::spelling::{BranchOption, Rights, escape};

/// Time limit for a server to end after its mount: the kernel dismantles a
/// container's mount namespace in the background.
const END: Duration = Duration::from_secs(5);

/// Why AUFS does not work here; `None` if it does.
pub(crate) fn unsupported() -> Option<String> {
    if !geteuid().is_root() {
        // A server in the container's user namespace would be within reach of
        // the container's root, and it has the layers of the image open.
        return Some(
            "it needs root: the server of the file system must run outside of the \
                     container"
                .into(),
        );
    }
    match kernel_has_aufs() {
        true => None,
        false => device::open().err().map(|error| format!("{error:#}")),
    }
}

/// The implementation of AUFS in use, in words.
pub(super) fn whose() -> &'static str {
    match kernel_has_aufs() {
        true => "the kernel's",
        false => "in user space (FUSE)",
    }
}

/// A view of `branches`, the topmost first. If AUFS is in user space, this
/// starts its server, which ends with the mount.
pub(super) fn view(branches: Vec<PathBuf>, access: Access) -> Result<Box<dyn View>> {
    if kernel_has_aufs() {
        let made = by_kernel(&branches, access)?;
        return Ok(Box::new(Made {
            mount: Some(made),
            server: None,
        }));
    }
    let mut options = Options::new(Vec::new());
    for (n, path) in branches.into_iter().enumerate() {
        let written = n == 0 && access == Access::ReadWrite;
        options.branches.push(BranchOption {
            path,
            access: if written { Rights::Rw } else { Rights::Rr },
            whiteouts: true,
        });
    }
    // Only this union writes to its topmost layer, and nobody to the others.
    options.udba = Udba::None;
    if access == Access::ReadOnly {
        options.flags |= MountFlags::RDONLY;
    }
    let (server, mount) = background::detached(&options, Die::WithMount)?;
    say!("aufs: served by process {}", server.pid);
    Ok(Box::new(Made {
        mount: Some(mount),
        server: Some(server),
    }))
}

/// Mounts with the kernel's AUFS, one option per branch: fsconfig(2) takes 255
/// bytes at once.
fn by_kernel(branches: &[PathBuf], access: Access) -> Result<OwnedFd> {
    let aufs = FileSystem::new("aufs")?;
    aufs.set("source", "none")?;
    for (n, path) in branches.iter().enumerate() {
        let mut value: OsString = escape(path.as_os_str());
        value.push(match n {
            0 if access == Access::ReadWrite => "=rw",
            _ => "=ro+wh",
        });
        match n {
            0 => aufs.set("br", value)?,
            _ => aufs.set("append", value)?,
        }
    }
    detached::mount(aufs, access, access)
}

struct Made {
    mount: Option<OwnedFd>,
    server: Option<ServerHandle>,
}

impl View for Made {
    fn detached(&mut self) -> Result<OwnedFd> {
        self.mount.take().context("the view is mounted already")
    }

    fn keeps(&self) -> Option<BorrowedFd<'_>> {
        self.mount.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Made {
    /// Waits for the server, which ends with the mount: it has the layers open,
    /// and they may be removed next.
    fn drop(&mut self) {
        self.mount = None;
        let Some(server) = self.server.take() else {
            return;
        };
        if let Err(error) = reap(&server) {
            kit::errln!("{error:#}");
        }
    }
}

fn reap(server: &ServerHandle) -> Result<()> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match waitpid(server.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            // ECHILD: the server is no child of a process that has a copy of
            // this.
            Ok(_) | Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno).with_context(|| format!("waitpid({})", server.pid)),
        }
        let waited = start.elapsed();
        if waited > 2 * END {
            bail!(
                "process {} does not end: the AUFS that it serves is still mounted",
                server.pid
            );
        }
        if waited > END && !told {
            told = true;
            kill(server.pid, Signal::SIGTERM)
                .with_context(|| format!("kill({}, SIGTERM)", server.pid))?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
