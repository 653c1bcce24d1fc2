//! A mounted hierarchy of groups.

use std::path::PathBuf;

/// The interface of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// The file system `cgroup`: a hierarchy for one controller, or for a few.
    V1,
    /// The file system `cgroup2`: one hierarchy for all controllers.
    V2,
}

/// A mounted hierarchy, and the caller's group in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The interface.
    pub version: Version,
    /// The controllers. For v2, those of the topmost visible group; empty for a
    /// named v1 hierarchy.
    pub controllers: Vec<String>,
    /// `name=` of a v1 hierarchy.
    pub name: Option<String>,
    /// The directory of its topmost visible group.
    pub mount_point: PathBuf,
    /// The caller's group, as a directory below the mount point.
    pub own: PathBuf,
    /// The mount or the file system is read-only.
    pub read_only: bool,
}

impl Hierarchy {
    /// Whether it has one of these controllers.
    pub(crate) fn has(&self, controllers: &[&str]) -> bool {
        self.controllers
            .iter()
            .any(|controller| controllers.contains(&controller.as_str()))
    }
}
