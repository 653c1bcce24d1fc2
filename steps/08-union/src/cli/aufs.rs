//! `step-08 mount`, `umount` and `branches`: the AUFS commands of older
//! courses, on kernels without AUFS.

use std::ffi::{CString, OsString};
use std::io::{Write, stdout};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kit::{say, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use process::Exit;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount, unmount};

use aufs_server::{Die, Options, mount_in_background, serve, si};

/// What can be done with an AUFS without a container.
#[derive(Subcommand, Clone, Debug)]
pub enum AufsTool {
    /// Mount a stack of directories as an AUFS, like mount(8) on a kernel with
    /// AUFS
    Mount(MountAufs),
    /// Unmount an AUFS
    Umount {
        /// Detach the mount now, and end the file system when it is no longer
        /// in use
        #[arg(short, long)]
        lazy: bool,
        /// Mount point
        #[arg(value_name = "DIR")]
        target: PathBuf,
    },
    /// List the branches of a mounted AUFS, like /sys/fs/aufs/si_*/br*
    Branches {
        /// Mount point
        #[arg(value_name = "DIR")]
        target: PathBuf,
    },
}

/// The arguments of `mount`.
#[derive(Args, Clone, Debug)]
pub struct MountAufs {
    /// File system type
    #[arg(short = 't', long = "types", value_name = "TYPE", default_value = "aufs", value_parser = ["aufs"])]
    kind: String,
    /// Mount options: branches from the top down, and others, as in
    /// dirs=TOP=rw:NEXT=ro+wh,create=mfs
    #[arg(short, long, value_name = "OPTIONS", value_delimiter = None)]
    options: Vec<OsString>,
    /// Serve the file system in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Source shown in mountinfo; it has no other effect
    #[arg(value_name = "SOURCE")]
    source: OsString,
    /// Mount point
    #[arg(value_name = "DIR")]
    target: PathBuf,
}

/// Runs the command.
pub fn run(tool: AufsTool) -> Result<Exit> {
    match tool {
        AufsTool::Mount(args) => mount_aufs(&args)?,
        AufsTool::Umount { lazy, target } => umount(&target, lazy)?,
        AufsTool::Branches { target } => {
            let mut out = Vec::new();
            for branch in si::branches(&target)? {
                out.extend_from_slice(branch.as_encoded_bytes());
                out.push(b'\n');
            }
            stdout()
                .write_all(&out)
                .context("write to standard output")?;
        }
    }
    Ok(Exit::Code(0))
}

fn mount_aufs(args: &MountAufs) -> Result<()> {
    let text = args.options.join(std::ffi::OsStr::new(","));
    let options = Options::parse(&text)?;
    if kernel_has_aufs() {
        say!("aufs: /proc/filesystems lists it, the kernel mounts it");
        return mount_by_kernel(args, &text);
    }
    say!("aufs: not in /proc/filesystems, so this program serves it over /dev/fuse");
    if args.foreground {
        return serve(&options, &args.target, || say!("aufs: mounted"));
    }
    let server = mount_in_background(&options, &args.target, Die::WithMount)?;
    say!("aufs: mounted, served by process {}", server.pid);
    Ok(())
}

/// Whether the kernel itself has AUFS: as a loaded module, or built in.
pub fn kernel_has_aufs() -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known
        .lines()
        .any(|line| line.split('\t').nth(1) == Some("aufs"))
}

fn mount_by_kernel(args: &MountAufs, text: &OsString) -> Result<()> {
    let data: CString = sys::c_string(text)?;
    let (target, flags) = (&args.target, rustix::mount::MountFlags::empty());
    mount(&args.source, target, "aufs", flags, data.as_c_str())
        .with_context(|| format!("mount(aufs, {target:?}, {text:?})"))
}

/// Time limit for the server of an unmounted union to end, in milliseconds.
const END: u16 = 2000;

/// Unmounts a union and waits for its server to end: only then are the branches
/// free.
fn umount(target: &Path, lazy: bool) -> Result<()> {
    // Something else may be mounted there, or the server may be dead.
    let server = si::server(target).ok();
    let flags = match lazy {
        true => UnmountFlags::DETACH,
        false => UnmountFlags::empty(),
    };
    match unmount(target, flags | UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => bail!("{target:?} is in use: leave it first, or umount --lazy"),
        Err(Errno::INVAL) => bail!("{target:?} is not a mount point"),
        unmounted => unmounted.with_context(|| format!("umount2({target:?})"))?,
    }
    if let Some(server) = server.filter(|_| !lazy) {
        let mut ends = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ends, PollTimeout::from(END)).context("poll(pidfd)")? == 0 {
            say!(
                "aufs: the union is still mounted in another mount namespace: its server keeps \
                  running"
            );
        }
    }
    Ok(())
}
