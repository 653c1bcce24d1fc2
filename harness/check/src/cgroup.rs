//! The cgroups of a process, as the host sees them: cgroups(7), on v1, v2 and
//! hybrid hosts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::expect::failed;
use crate::host;

/// The cgroups of one process: the lines of its /proc/PID/cgroup, resolved to
/// directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    pid: i32,
    /// Controllers of a v1 hierarchy, empty for v2; path of the group in the
    /// hierarchy; directory that shows the group.
    all: Vec<(Vec<String>, String, PathBuf)>,
}

/// Reads the cgroups of process `pid`.
///
/// # Errors
/// `ENOENT` if the process does not exist.
pub fn of(pid: i32) -> Result<Groups> {
    let mounts = host::mounts("self")?;
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let mut all = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let list: Vec<String> = fields
            .next()
            .unwrap_or_default()
            .split(',')
            .filter(|word| !word.is_empty())
            .map(String::from)
            .collect();
        let path = fields.next().unwrap_or_default();
        let mount = mounts.iter().find(|mount| match list.first() {
            Some(first) => mount.fstype == "cgroup" && mount.super_options.contains(first),
            None => mount.fstype == "cgroup2",
        });
        if let Some(mount) = mount {
            let dir = Path::new(&mount.mount_point).join(path.trim_start_matches('/'));
            let dir: PathBuf = dir.components().collect();
            all.push((list, path.to_owned(), dir));
        }
    }
    Ok(Groups { pid, all })
}

/// Whether the v2 group at `dir` has a controller. `name` is the controller's
/// name in v1.
pub fn v2_has(dir: &Path, name: &str) -> bool {
    let v2_name = if name == "blkio" { "io" } else { name };
    let names = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    names.split_whitespace().any(|word| word == v2_name)
}

impl Groups {
    /// The directory in which a controller acts on the process. `name` is the
    /// controller's name in v1. `None` if the process is in the root group, or
    /// in a v2 group for which the controller is not enabled.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        let (_, path, dir) = self
            .all
            .iter()
            .find(|(list, ..)| list.iter().any(|word| word == name))
            .or_else(|| {
                let v2 = self.all.iter().find(|(list, ..)| list.is_empty())?;
                v2_has(&v2.2, name).then_some(v2)
            })?;
        (path != "/").then_some(dir.as_path())
    }

    /// The directory of the v2 group, the root group included.
    pub fn v2(&self) -> Option<&Path> {
        self.all
            .iter()
            .find(|(list, ..)| list.is_empty())
            .map(|(_, _, dir)| dir.as_path())
    }

    /// Reads a file of the process's group: `v1` if its controller is in a v1
    /// hierarchy, else `v2`.
    ///
    /// # Errors
    /// [`Failed`](crate::outcome::Failed) if the process is in no group of that
    /// controller, or the group has no such file.
    pub fn read(&self, v1: &str, v2: &str) -> Result<String> {
        let controller = v1.split('.').next().unwrap_or_default();
        let dir = self.controller(controller).ok_or_else(|| {
            failed(
                format!(
                    "process {} to be in a group of the {controller} controller",
                    self.pid
                ),
                "none: the process is in the root group, or the controller is not switched on \
                 above it (cgroup.subtree_control)",
            )
        })?;
        let on_v1 = self
            .all
            .iter()
            .any(|(list, ..)| list.iter().any(|word| word == controller));
        let file = dir.join(if on_v1 { v1 } else { v2 });
        match fs::read_to_string(&file) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(e) => Err(failed(format!("the file {}", file.display()), e)),
        }
    }

    /// Whether a controller is in a v1 hierarchy.
    pub fn on_v1(&self, controller: &str) -> bool {
        self.all
            .iter()
            .any(|(list, ..)| list.iter().any(|word| word == controller))
    }

    /// The directories of all groups except root groups.
    pub fn dirs(&self) -> Vec<&Path> {
        self.all
            .iter()
            .filter(|(_, path, _)| path != "/")
            .map(|(_, _, dir)| dir.as_path())
            .collect()
    }
}

/// The PIDs in a file such as `cgroup.procs`.
pub fn pids(file: &Path) -> Result<Vec<i32>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}
