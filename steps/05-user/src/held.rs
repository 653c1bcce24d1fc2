//! A user namespace that nobody is in. What holds it is a descriptor, and what it
//! is good for is its maps: a mount can be shown to its users (mount_setattr(2),
//! “ID-mapped mounts”).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid};

use crate::choice::Mapping;
use crate::ids::Ids;
use crate::inside::in_new_namespace;

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
    let hold = |child| {
        let path = format!("/proc/{child}/ns/user");
        let namespace = File::open(&path).with_context(|| format!("open({path})"))?;
        Ok(Users {
            namespace: namespace.into(),
            uid: Uid::from_raw(root_of(mappings, Ids::User)?),
            gid: Gid::from_raw(root_of(mappings, Ids::Group)?),
        })
    };
    in_new_namespace(mappings, hold, || Ok(()))
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
