//! A user namespace that nobody is in. What holds it is a descriptor, and what it
//! is good for is its maps: a mount can be shown to its users (mount_setattr(2),
//! “ID-mapped mounts”).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Uid, pipe2};
use process::sys;

use crate::choice::Mapping;
use crate::ids::Ids;
use crate::write_maps;

/// Such a namespace, and who its root is outside.
#[derive(Debug)]
pub struct Users {
    namespace: OwnedFd,
    /// The user that stands for UID 0, or for the first that there is.
    pub uid: Uid,
    /// The group likewise.
    pub gid: Gid,
}

impl AsFd for Users {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// A user namespace with these maps. A process is born to make it, and is gone
/// when this returns.
///
/// # Errors
/// Those of unshare(2), and of writing the maps; where the caller has threads.
pub fn with_maps(mappings: &[Mapping]) -> Result<Users> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("pipe2");
    let ((told, tell), (ended, end)) = (pipe()?, pipe()?);
    let ForkResult::Parent { child } = sys::fork()? else {
        drop((told, end));
        // It is there until the launcher has taken what it wants, or is gone.
        let made = unshare(CloneFlags::CLONE_NEWUSER)
            .is_ok_and(|()| File::from(tell).write_all(&[1]).is_ok())
            && File::from(ended).read(&mut [0]).is_ok();
        sys::exit(u8::from(!made));
    };
    drop((tell, ended));
    let mut told = File::from(told);
    let made = told.read(&mut [0]).context("read from a pipe");
    let held = made.and_then(|bytes| {
        ensure!(
            bytes == 1,
            "unshare(CLONE_NEWUSER): there is no user namespace to be had"
        );
        for mapping in mappings {
            write_maps::write_map(child, mapping)?;
        }
        let path = format!("/proc/{child}/ns/user");
        let namespace = File::open(&path).with_context(|| format!("open({path})"))?;
        Ok(Users {
            namespace: namespace.into(),
            uid: Uid::from_raw(root_of(mappings, Ids::User)?),
            gid: Gid::from_raw(root_of(mappings, Ids::Group)?),
        })
    });
    drop(end);
    waitpid(child, None).with_context(|| format!("waitpid({child})"))?;
    held
}

fn root_of(mappings: &[Mapping], ids: Ids) -> Result<u32> {
    mappings
        .iter()
        .filter(|mapping| mapping.ids == ids)
        .flat_map(|mapping| &mapping.maps)
        .min_by_key(|map| map.inside)
        .map(|map| map.outside)
        .with_context(|| format!("the {} maps nobody", ids.file()))
}
