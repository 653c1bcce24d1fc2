//! The lines of /proc/self/mountinfo and /proc/PID/cgroup that say which group
//! of a hierarchy a process is in, and where that group is seen.

use std::path::{Component, Path, PathBuf};

use crate::host::layout::{Hierarchy, Version};

/// A line of mountinfo, if it is that of a cgroup file system.
pub(crate) struct Mount {
    version: Version,
    /// Which group of the hierarchy is the root of this mount.
    root: PathBuf,
    mount_point: PathBuf,
    read_only: bool,
    /// The controllers of a v1 hierarchy, and `name=…`, among other options.
    options: Vec<String>,
}

impl Mount {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut file_system = file_system.split(' ');
        let version = match file_system.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        let root = unescape(mount.next()?);
        let mount_point = unescape(mount.next()?);
        let mount_options = mount.next()?;
        let options: Vec<String> = file_system.nth(1)?.split(',').map(String::from).collect();
        Some(Mount {
            version,
            root: root.into(),
            mount_point: mount_point.into(),
            read_only: mount_options.split(',').any(|o| o == "ro") || options[0] == "ro",
            options,
        })
    }
}

/// Undoes the octal escapes of mountinfo, for the four characters that it has
/// them for.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
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

    /// The mount that shows this group: a writable one before a read-only one,
    /// and the one that shows most of the hierarchy.
    pub(crate) fn find(&self, mounts: &[Mount]) -> Option<Hierarchy> {
        // Seen from inside a cgroup namespace, a group above its root.
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
            // A path must not end in a slash when there is nothing below.
            own: mount.mount_point.join(below).components().collect(),
            read_only: mount.read_only,
        })
    }

    fn is_of(&self, mount: &Mount) -> bool {
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
