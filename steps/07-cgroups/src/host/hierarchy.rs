//! A hierarchy of groups that is mounted on this host.

use std::path::PathBuf;

/// Which interface a hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// `cgroup`: a hierarchy for one controller, or for a few.
    V1,
    /// `cgroup2`: one hierarchy for all.
    V2,
}

/// One hierarchy that is mounted, and the caller's group in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// Its controllers. Of a v2 hierarchy those that its topmost visible group
    /// has; empty for a named v1 hierarchy.
    pub controllers: Vec<String>,
    /// `name=` of a v1 hierarchy.
    pub name: Option<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The caller's group, as a directory under the mount point.
    pub own: PathBuf,
    /// Whether the mount is read-only.
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
