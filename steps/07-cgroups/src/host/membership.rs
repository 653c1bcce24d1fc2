//! The group of a process in each hierarchy, and the mount that shows it: the
//! lines of /proc/PID/cgroup and /proc/self/mountinfo.

use std::path::{Component, Path, PathBuf};

use kit::mountinfo::{self, Mount};

use crate::host::hierarchy::{Hierarchy, Version};

/// A mount of a cgroup file system.
pub(crate) struct CgroupMount {
    version: Version,
    /// The group that is the root of this mount.
    root: PathBuf,
    mount_point: PathBuf,
    read_only: bool,
    /// The file system's options: among them a v1 hierarchy's controllers, and
    /// `name=…`.
    options: Vec<String>,
}

impl CgroupMount {
    /// The cgroup file systems among the mounts of a mountinfo. Omits those that
    /// another mount hides: their mount point leads to something else.
    pub(crate) fn all(mountinfo: &[u8]) -> Vec<Self> {
        let mounts = mountinfo::reachable(mountinfo, |mount| version(mount).is_some());
        mounts.filter_map(Self::of).collect()
    }

    fn of(mount: Mount<'_>) -> Option<Self> {
        let version = version(&mount)?;
        let mut all = mount.options().chain(mount.file_system_options());
        Some(CgroupMount {
            version,
            root: mount.root(),
            mount_point: mount.mount_point(),
            read_only: all.any(|option| option == "ro"),
            options: mount.file_system_options().map(str::to_owned).collect(),
        })
    }
}

/// The version of a cgroup file system; `None` for another file system.
fn version(mount: &Mount<'_>) -> Option<Version> {
    match mount.file_system() {
        "cgroup" => Some(Version::V1),
        "cgroup2" => Some(Version::V2),
        _ => None,
    }
}

/// A line of /proc/PID/cgroup: `4:memory:/a/b`, `9:name=x:/`, `0::/a/b`.
pub(crate) struct Membership<'a> {
    version: Version,
    controllers: Vec<&'a str>,
    name: Option<&'a str>,
    path: &'a Path,
}

impl<'a> Membership<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let (id, rest) = line.split_once(':')?;
        let (list, path) = rest.split_once(':')?;
        let (names, controllers): (Vec<&str>, Vec<&str>) = list
            .split(',')
            .filter(|word| !word.is_empty())
            .partition(|word| word.starts_with("name="));
        Some(Membership {
            version: if id == "0" { Version::V2 } else { Version::V1 },
            controllers,
            name: names.first().and_then(|name| name.strip_prefix("name=")),
            path: Path::new(path),
        })
    }

    /// Finds the mount that shows this group: a writable one before a read-only
    /// one, then the one that shows most of the hierarchy.
    pub(crate) fn find(&self, mounts: &[CgroupMount]) -> Option<Hierarchy> {
        // A group above the root of the caller's cgroup namespace.
        if self
            .path
            .components()
            .any(|part| part == Component::ParentDir)
        {
            return None;
        }
        let mount = mounts
            .iter()
            .filter(|mount| self.is_of(mount) && self.path.starts_with(&mount.root))
            .min_by_key(|mount| (mount.read_only, mount.root.components().count()))?;
        let below = self.path.strip_prefix(&mount.root).ok()?;
        Some(Hierarchy {
            version: self.version,
            controllers: self.controllers.iter().map(|c| (*c).to_owned()).collect(),
            name: self.name.map(String::from),
            mount_point: mount.mount_point.clone(),
            // Without a trailing slash if there is nothing below.
            own: mount.mount_point.join(below).components().collect(),
            read_only: mount.read_only,
        })
    }

    fn is_of(&self, mount: &CgroupMount) -> bool {
        let has = |option: &str| mount.options.iter().any(|o| o == option);
        self.version == mount.version
            && match (self.version, self.name, self.controllers.first()) {
                (Version::V2, ..) => true,
                (_, _, Some(controller)) => has(controller),
                (_, Some(name), None) => has(&format!("name={name}")),
                (_, None, None) => false,
            }
    }
}
