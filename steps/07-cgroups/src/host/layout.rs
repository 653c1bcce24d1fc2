//! The hierarchies of this host, and the caller's group in each (cgroups(7),
//! proc_pid_mountinfo(5), proc_pid_cgroup(5)).
//!
//! | layout | what is mounted |
//! |---|---|
//! | v2 | one cgroup2 file system that has every controller |
//! | v1 | a cgroup file system for each controller, or for a few together |
//! | hybrid | both: a controller is in one of them, never in both |
//!
//! cgroups-rs distinguishes v1 and v2 by the type of /sys/fs/cgroup. It does
//! not support hybrid hosts, other mount points, read-only mounts or mounts of
//! a part of a hierarchy, as in a container. So this module is our own.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::group::file;
use crate::host::hierarchy::{Hierarchy, Version};
use crate::host::membership::{CgroupMount, Membership};

/// All hierarchies with a mount that the caller sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The hierarchies, v1 before v2.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the caller's mounts and groups.
    pub(crate) fn detect() -> Result<Self> {
        Self::of_process("self")
    }

    /// Reads the caller's mounts, and the groups of process `pid` in them.
    ///
    /// # Errors
    /// `ENOENT` if there is no such process.
    pub(crate) fn of_process(pid: &str) -> Result<Self> {
        let mounts = file::read(Path::new("/proc/self/mountinfo"))?;
        let groups = file::read(&Path::new("/proc").join(pid).join("cgroup"))
            .with_context(|| format!("the groups of process {pid}"))?;
        let mut layout = Self::parse(&mounts, &groups);
        for hierarchy in &mut layout.hierarchies {
            if hierarchy.version == Version::V2 {
                hierarchy.controllers = controllers(&hierarchy.mount_point)?;
            }
        }
        Ok(layout)
    }

    /// The same, where the mounts, and the controllers of v2, are known.
    pub(crate) fn beside(&self, mountinfo: &str, cgroup: &str) -> Self {
        let mut layout = Self::parse(mountinfo, cgroup);
        for hierarchy in &mut layout.hierarchies {
            if hierarchy.version == Version::V2
                && let Some(own) = self.v2()
            {
                hierarchy.controllers.clone_from(&own.controllers);
            }
        }
        layout
    }

    /// Parses mountinfo and /proc/PID/cgroup. The controllers of v2 are in
    /// neither.
    pub(crate) fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mounts = CgroupMount::all(mountinfo.as_bytes());
        let mut hierarchies: Vec<Hierarchy> = cgroup
            .lines()
            .filter_map(|line| Membership::parse(line)?.find(&mounts))
            .collect();
        hierarchies.sort_by_key(|hierarchy| hierarchy.version);
        Layout { hierarchies }
    }

    /// The hierarchy that has this controller.
    pub(crate) fn find(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.has(&[controller]))
    }

    /// The v2 hierarchy.
    pub(crate) fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }
}

impl fmt::Display for Layout {
    /// `v2`, `v1`, `hybrid`, or `none` if nothing is mounted. A named v1
    /// hierarchy without controllers does not make a host hybrid.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v1 = self
            .hierarchies
            .iter()
            .any(|h| h.version == Version::V1 && !h.controllers.is_empty());
        f.write_str(match (v1, self.v2().is_some()) {
            (true, true) => "hybrid",
            (true, false) => "v1",
            (false, true) => "v2",
            (false, false) => "none",
        })
    }
}

/// The controllers of a v2 group: `cgroup.controllers`.
pub(crate) fn controllers(group: &Path) -> Result<Vec<String>> {
    let text = file::read(&group.join("cgroup.controllers"))?;
    Ok(text.split_whitespace().map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TMPFS: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n";
    const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn own<'a>(layout: &'a Layout, controller: &str) -> &'a str {
        layout.find(controller).unwrap().own.to_str().unwrap()
    }

    #[test]
    fn hybrid_has_each_controller_in_its_place() {
        let groups = "9:name=systemd:/\n4:memory:/a b/c\n2:cpu,cpuacct:/\n0::/user.slice\n";
        let layout = Layout::parse(&format!("{TMPFS}{HYBRID}"), groups);
        assert_eq!(layout.to_string(), "hybrid");
        assert_eq!(own(&layout, "memory"), "/sys/fs/cgroup/memory/a b/c");
        assert_eq!(own(&layout, "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct");
        assert!(layout.find("pids").is_none());
        let v2 = layout.v2().unwrap();
        assert_eq!(v2.own, Path::new("/sys/fs/cgroup/unified/user.slice"));
        let named = layout.hierarchies.iter().find(|h| h.name.is_some());
        assert_eq!(named.unwrap().name.as_deref(), Some("systemd"));
    }

    #[test]
    fn v1_alone_and_v2_alone() {
        let v1: String = HYBRID.lines().take(2).map(|l| format!("{l}\n")).collect();
        let layout = Layout::parse(&v1, "4:memory:/\n2:cpu,cpuacct:/\n0::/\n");
        assert_eq!(layout.to_string(), "v1");
        let v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::parse(v2, "1:name=x:/\n0::/user.slice/u.scope\n");
        assert_eq!(layout.to_string(), "v2");
        assert_eq!(
            layout.v2().unwrap().own,
            Path::new("/sys/fs/cgroup/user.slice/u.scope")
        );
        assert_eq!(Layout::parse(TMPFS, "0::/\n").to_string(), "none");
    }

    #[test]
    fn in_a_container_the_mount_shows_a_part_of_the_hierarchy() {
        let mounts = "\
700 690 0:32 /docker/0a1b /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,memory
701 690 0:38 / /sys/fs/cgroup/unified ro,nosuid - cgroup2 cgroup rw
702 690 0:38 / /mnt/cgroup rw,nosuid - cgroup2 cgroup rw
";
        let layout = Layout::parse(mounts, "4:memory:/docker/0a1b/x\n0::/init\n");
        assert_eq!(own(&layout, "memory"), "/sys/fs/cgroup/memory/x");
        assert!(layout.find("memory").unwrap().read_only);
        // The writable mount is the one to use.
        let v2 = layout.v2().unwrap();
        assert_eq!(v2.own, Path::new("/mnt/cgroup/init"));
        assert!(!v2.read_only);
    }

    #[test]
    fn a_group_that_no_mount_shows_is_left_out() {
        let mounts = "700 690 0:32 /docker/0a1b /m rw - cgroup cgroup rw,memory\n";
        let layout = Layout::parse(mounts, "4:memory:/elsewhere\n");
        assert!(layout.hierarchies.is_empty());
        let mounts = "700 690 0:38 / /m rw - cgroup2 cgroup2 rw\n";
        assert!(Layout::parse(mounts, "0::/../x\n").hierarchies.is_empty());
    }

    #[test]
    fn a_mount_that_another_hides_is_not_used() {
        let hidden = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let over = "52 30 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n";
        let again = "53 52 0:26 / /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw\n";
        let layout = Layout::parse(&format!("{hidden}{over}"), "0::/a\n");
        assert_eq!(layout.to_string(), "none");
        let layout = Layout::parse(&format!("{hidden}{over}{again}"), "0::/a\n");
        let own = &layout.v2().unwrap().own;
        assert_eq!(own, Path::new("/sys/fs/cgroup/unified/a"));
    }

    #[test]
    fn spaces_in_a_mount_point_are_unescaped() {
        let mounts = "41 31 0:38 / /sys/fs/my\\040groups rw - cgroup2 cgroup2 rw\n";
        let layout = Layout::parse(mounts, "0::/\n");
        assert_eq!(layout.v2().unwrap().own, Path::new("/sys/fs/my groups"));
    }
}
