//! `linux.intelRdt` (config-linux.md “Intel Resource Director Technology”): a
//! group of the resctrl file system, which divides caches and the bandwidth of
//! memory (resctrl.rst of the kernel).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kit::say;
use nix::unistd::Pid;
use process::Isolation;

use crate::config::IntelRdt;

/// Where resctrl is mounted.
///
/// # Errors
/// If it is not.
pub(crate) fn mounted() -> Result<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let found = kit::mountinfo::parse(&table).find(|mount| mount.file_system() == "resctrl");
    found.map(|mount| mount.mount_point()).context(
        "linux.intelRdt: no resctrl file system is mounted: it takes a processor that can divide \
         its caches, and mount -t resctrl resctrl /sys/fs/resctrl",
    )
}

/// A group of resctrl.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    schemata: Vec<String>,
    /// Whether it has to exist already: it is named, and nothing is said about it.
    must_exist: bool,
    monitors: bool,
    id: String,
}

impl Group {
    /// The group that a configuration asks for, below `root`.
    pub(crate) fn plan(root: &Path, rdt: &IntelRdt, id: &str) -> Result<Group> {
        let name = match rdt.clos_id.as_str() {
            "" => id,
            name => name,
        };
        // The root's own files, and its groups of monitors, have such names.
        let reserved = [
            "info",
            "mon_groups",
            "mon_data",
            "schemata",
            "tasks",
            "cpus",
            "mode",
        ];
        ensure!(
            !matches!(name, "." | "..")
                && !name.contains(['/', '\n', '\0'])
                && !reserved.contains(&name),
            "linux.intelRdt.closID {name:?} is no name of a group"
        );
        let mut schemata = rdt.schemata.clone();
        schemata.extend(
            [&rdt.l3_cache_schema, &rdt.mem_bw_schema]
                .into_iter()
                .cloned(),
        );
        schemata.retain(|line| !line.is_empty());
        for line in &schemata {
            ensure!(
                line.contains(':') && !line.contains('\0'),
                "linux.intelRdt: {line:?} is no schema, such as L3:0=f"
            );
        }
        Ok(Group {
            dir: root.join(name),
            must_exist: !rdt.clos_id.is_empty() && schemata.is_empty(),
            schemata,
            monitors: rdt.enable_monitoring,
            id: id.to_owned(),
        })
    }

    /// The directories that end with the container.
    pub(crate) fn made(&self) -> Vec<PathBuf> {
        let mut made = Vec::new();
        if self.monitors {
            made.push(self.dir.join("mon_groups").join(&self.id));
        }
        if !self.dir.exists() {
            made.push(self.dir.clone());
        }
        made
    }

    fn make(&self) -> Result<()> {
        let exists = self.dir.exists();
        if self.must_exist {
            ensure!(
                exists,
                "linux.intelRdt.closID: there is no group {:?}",
                self.dir
            );
        } else if !exists {
            fs::create_dir(&self.dir).with_context(|| format!("mkdir {:?}", self.dir))?;
        }
        let file = self.dir.join("schemata");
        if exists && !self.schemata.is_empty() {
            return same(&file, &self.schemata);
        }
        self.write()?;
        if self.monitors {
            let group = self.dir.join("mon_groups").join(&self.id);
            fs::create_dir(&group).with_context(|| format!("mkdir {group:?}"))?;
        }
        Ok(())
    }

    /// Writes the schemata of a container that runs.
    pub(crate) fn change(&self) -> Result<()> {
        ensure!(self.dir.exists(), "the container has no group of resctrl");
        self.write()
    }

    fn write(&self) -> Result<()> {
        let file = self.dir.join("schemata");
        for line in &self.schemata {
            say!("write {line:?} to {file:?}");
            fs::write(&file, format!("{line}\n")).with_context(|| {
                format!("linux.intelRdt: write {line:?} to {file:?}: see info/last_cmd_status")
            })?;
        }
        Ok(())
    }

    fn enter(&self, pid: Pid) -> Result<()> {
        let group = match self.monitors {
            true => self.dir.join("mon_groups").join(&self.id),
            false => self.dir.clone(),
        };
        for dir in [&self.dir, &group] {
            let tasks = dir.join("tasks");
            fs::write(&tasks, pid.to_string()).with_context(|| format!("write to {tasks:?}"))?;
        }
        Ok(())
    }
}

/// Makes sure that a group of others has these values.
fn same(file: &Path, wanted: &[String]) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file:?}"))?;
    let bare = |line: &str| line.split_whitespace().collect::<String>();
    let there: Vec<String> = text.lines().map(bare).collect();
    for line in wanted.iter().flat_map(|text| text.lines()) {
        ensure!(
            there.contains(&bare(line)),
            "linux.intelRdt: the group exists, and its schemata have no line {line:?}"
        );
    }
    Ok(())
}

/// Removes the groups that a container had.
pub(crate) fn remove(made: &[PathBuf]) -> Result<()> {
    for dir in made {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("rmdir {dir:?}"))?,
        }
    }
    Ok(())
}

/// The isolation that has the child enter its group of resctrl.
pub(crate) struct Rdt {
    pub group: Option<Group>,
    /// What is removed at the end.
    pub made: Vec<PathBuf>,
}

impl Isolation for Rdt {
    fn name(&self) -> &'static str {
        "rdt"
    }

    fn prepare(&mut self) -> Result<()> {
        match &self.group {
            Some(group) => group.make(),
            None => Ok(()),
        }
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        match &self.group {
            Some(group) => group.enter(child),
            None => Ok(()),
        }
    }

    fn cleanup(&mut self) -> Result<()> {
        remove(&self.made)
    }
}

/// Refuses what this machine cannot do, before anything is made.
pub(crate) fn check(rdt: Option<&IntelRdt>) -> Result<()> {
    let Some(rdt) = rdt else {
        return Ok(());
    };
    let root = mounted()?;
    if rdt.enable_monitoring && !root.join("mon_groups").is_dir() {
        bail!("linux.intelRdt.enableMonitoring: this processor cannot monitor its caches");
    }
    Group::plan(&root, rdt, "id").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_made_compared_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let rdt = |name: &str, schemata: &[&str]| IntelRdt {
            clos_id: name.into(),
            schemata: schemata.iter().map(|line| (*line).into()).collect(),
            ..IntelRdt::default()
        };
        let plan = |rdt: &IntelRdt| Group::plan(root.path(), rdt, "box");
        let group = plan(&rdt("", &["L3:0=f"])).unwrap();
        let made = group.made();
        assert_eq!(made, [root.path().join("box")]);
        group.make().unwrap();
        group.enter(Pid::from_raw(7)).unwrap();
        assert_eq!(fs::read_to_string(made[0].join("tasks")).unwrap(), "7");
        // Another container in the same group.
        let second = plan(&rdt("box", &["L3: 0=f"])).unwrap();
        assert!(second.made().is_empty());
        second.make().unwrap();
        assert!(plan(&rdt("box", &["L3:0=1"])).unwrap().make().is_err());
        assert!(plan(&rdt("other", &[])).unwrap().make().is_err());
        fs::remove_file(made[0].join("tasks")).unwrap();
        fs::remove_file(made[0].join("schemata")).unwrap();
        remove(&made).unwrap();
        remove(&made).unwrap();
        for bad in ["..", "a/b", "info", "schemata"] {
            assert!(plan(&rdt(bad, &[])).is_err(), "{bad}");
        }
        assert!(plan(&rdt("a", &["all"])).is_err());
    }
}
