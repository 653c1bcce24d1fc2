//! A user namespace without processes, held by a descriptor for the sake of its
//! maps: a mount can be ID-mapped to its users (mount_setattr(2), “ID-mapped
//! mounts”).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid};

use crate::choice::Mapping;
use crate::ids::Ids;
use crate::inside::in_new_namespace;

/// A held user namespace, and the IDs of its root outside.
#[derive(Debug)]
pub struct Users {
    namespace: OwnedFd,
    /// The outside UID of UID 0 inside, or of the lowest mapped UID.
    pub uid: Uid,
    /// The outside GID of GID 0 inside, or of the lowest mapped GID.
    pub gid: Gid,
}

impl AsFd for Users {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Creates a user namespace with these maps. A short-lived child process makes
/// it; it has ended when this returns. The caller must be single-threaded.
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
