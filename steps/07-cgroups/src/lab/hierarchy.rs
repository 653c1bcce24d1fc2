//! `step-07 hierarchy`: v1 hierarchies for experiments (cgroups(7), mount(8),
//! cgroup-v1/cgroups.rst).
//!
//! A hierarchy is a tree of groups. The kernel allows one without a controller,
//! which only needs a name (`-o none,name=NAME`): it limits nothing, and can be
//! made, filled and removed without disturbing anybody. Service managers used
//! one to track their processes. It works beside v2 as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use kit::errno::is;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Pid;

use crate::group::file;
use crate::group::parent::directories;
use crate::group::processes::processes;
use crate::host::layout::Layout;

/// The directory of the mount points, one per hierarchy, by name.
const PLACE: &str = "/run/drydock/hierarchies";

/// The prefix of the names of the hierarchies that `rules` makes.
pub(crate) const RULES: &str = "drydock-rules-";

/// The time limit for the kernel to end a hierarchy.
const PATIENCE: Duration = Duration::from_secs(3);

/// A mounted hierarchy.
#[derive(Debug)]
pub(crate) struct LabHierarchy {
    /// The mount point, which is its root group.
    pub root: PathBuf,
    name: String,
}

impl LabHierarchy {
    /// Makes a hierarchy with these controllers, or without any, and mounts it.
    ///
    /// # Errors
    /// A name that is taken; `EBUSY` if a controller is in another hierarchy;
    /// `EINVAL` if the kernel does not know it.
    pub(crate) fn make(name: &str, controllers: &[String]) -> Result<Self> {
        // ANCHOR: exercise_make_hierarchy
        check_name(name)?;
        if named(name)? {
            bail!("there is already a hierarchy {name}");
        }
        let root = Path::new(PLACE).join(name);
        fs::create_dir_all(&root).with_context(|| format!("mkdir {}", root.display()))?;
        Self::mount(&root, name, controllers)
            .map_err(|error| explain(error, controllers))
            .inspect_err(|_| remove_place(&root))
        // ANCHOR_END: exercise_make_hierarchy
    }

    /// Makes a hierarchy and mounts it at `root`, which exists.
    pub(crate) fn mount(root: &Path, name: &str, controllers: &[String]) -> Result<Self> {
        mount_at(root, &options(Some(name), controllers))?;
        Ok(LabHierarchy {
            root: root.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Opens a hierarchy that [`make`](Self::make) made.
    pub(crate) fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let root = Path::new(PLACE).join(name);
        if !root.join("cgroup.procs").exists() {
            bail!("there is no hierarchy {name}: step-07 hierarchy make {name}");
        }
        Ok(LabHierarchy {
            root,
            name: name.to_owned(),
        })
    }

    /// The directory of a group. Refuses a path that contains `..`.
    pub(crate) fn group(&self, path: &str) -> Result<PathBuf> {
        let path = path.trim_matches('/');
        if path.split('/').any(|part| part == "..") {
            bail!("{path}: give a path from the root of the hierarchy");
        }
        Ok(match path {
            "" => self.root.clone(),
            path => self.root.join(path),
        })
    }

    /// Moves a process, or one thread, into a group: `cgroup.procs`, `tasks`.
    ///
    /// # Errors
    /// `ESRCH` if there is no such process.
    pub(crate) fn attach(&self, path: &str, pid: i32, thread: bool) -> Result<()> {
        let dir = self.group(path)?;
        let file = dir.join(if thread { "tasks" } else { "cgroup.procs" });
        file::write(&file, &pid.to_string())
    }

    /// All its groups, as paths from its root, with their processes.
    pub(crate) fn groups(&self) -> Result<Vec<(String, Vec<Pid>)>> {
        let mut all = Vec::new();
        let mut todo = vec![self.root.clone()];
        while let Some(dir) = todo.pop() {
            let text = file::read(&dir.join("cgroup.procs"))?;
            let pids = text.lines().filter_map(|line| line.parse().ok());
            let path = dir.strip_prefix(&self.root).unwrap_or(&dir);
            let path = format!("/{}", path.display());
            all.push((path, pids.map(Pid::from_raw).collect()));
            todo.extend(directories(&dir)?);
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Moves all processes to the root group, and removes the groups below.
    pub(crate) fn clear(&self) -> Result<()> {
        for (path, _) in self.groups()?.iter().rev().filter(|(path, _)| path != "/") {
            let dir = self.group(path)?;
            // Until none is left: a process may fork while it is moved.
            loop {
                let pids = processes(&dir)?;
                if pids.is_empty() {
                    break;
                }
                for pid in pids {
                    match self.attach("/", pid.as_raw(), false) {
                        Err(error) if !is(&error, &[Errno::ESRCH]) => return Err(error),
                        _ => {}
                    }
                }
            }
            fs::remove_dir(&dir).with_context(|| format!("rmdir {}", dir.display()))?;
        }
        Ok(())
    }

    /// Clears and unmounts the hierarchy, and removes its mount point. Returns
    /// whether the kernel has ended it.
    pub(crate) fn remove(self) -> Result<bool> {
        self.clear()?;
        let gone = self.unmount()?;
        remove_place(&self.root);
        Ok(gone)
    }

    /// Unmounts the hierarchy until the kernel has ended it, and returns
    /// whether it has.
    ///
    /// A hierarchy ends with its last mount, but only if it has no groups then;
    /// otherwise it remains, unmounted, for good. And a group that was just
    /// removed counts until an RCU grace period is over. Then another mount and
    /// unmount end it. It does not end while another mount namespace has a
    /// mount of it, such as that of a container which was started meanwhile.
    pub(crate) fn unmount(&self) -> Result<bool> {
        unmount(&self.root, || named(&self.name))?;
        let deadline = Instant::now() + PATIENCE;
        while named(&self.name)? {
            if Instant::now() > deadline {
                return Ok(false);
            }
            // The name alone identifies an existing hierarchy.
            match mount_at(&self.root, &format!("name={}", self.name)) {
                Ok(()) => unmount(&self.root, || named(&self.name))?,
                Err(error) if is(&error, &[Errno::EINVAL]) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Calls umount(2) and waits: the kernel removes a hierarchy in the background.
/// Returns when it is no longer `still_there`, or after 100 ms.
pub(crate) fn unmount(dir: &Path, still_there: impl Fn() -> Result<bool>) -> Result<()> {
    umount2(dir, MntFlags::empty()).with_context(|| format!("umount {}", dir.display()))?;
    let deadline = Instant::now() + Duration::from_millis(100);
    while still_there()? && Instant::now() < deadline {
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The names of the hierarchies that [`LabHierarchy::make`] made.
pub(crate) fn made() -> Result<Vec<String>> {
    let all = directories(Path::new(PLACE))?;
    let mut names: Vec<String> = all
        .iter()
        .filter_map(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Removes every hierarchy that was made and not removed, and returns their
/// names. Stops at the first that cannot be removed.
pub(crate) fn remove_all() -> Result<Vec<String>> {
    let mut names = made()?;
    for name in &names {
        match LabHierarchy::open(name) {
            Ok(hierarchy) => drop(hierarchy.remove()?),
            // Its directory was made, but it was never mounted.
            Err(_) => remove_place(&Path::new(PLACE).join(name)),
        }
    }
    names.retain(|name| !Path::new(PLACE).join(name).exists());
    // `rules` mounts its own in a mount namespace that nobody else sees.
    for name in all_named()? {
        if name.starts_with(RULES) {
            let root = Path::new(PLACE).join(&name);
            fs::create_dir_all(&root).with_context(|| format!("mkdir {}", root.display()))?;
            LabHierarchy::mount(&root, &name, &[])?.remove()?;
            names.push(name);
        }
    }
    Ok(names)
}

/// Mounts the hierarchy that `options` describe: a new one, or an existing one
/// once more.
pub(crate) fn mount_at(dir: &Path, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("cgroup"), dir, Some("cgroup"), flags, Some(options))
        .with_context(|| format!("mount(cgroup, {}, {options})", dir.display()))
}

/// The options of mount(8) for a name and controllers.
pub(crate) fn options(name: Option<&str>, controllers: &[String]) -> String {
    let list = match controllers {
        [] => "none".to_owned(),
        some => some.join(","),
    };
    match name {
        Some(name) => format!("{list},name={name}"),
        None => list,
    }
}

/// Whether the kernel has a hierarchy of this name, mounted or not.
fn named(name: &str) -> Result<bool> {
    Ok(all_named()?.iter().any(|other| other == name))
}

/// The names of all named hierarchies: `name=` in /proc/self/cgroup.
fn all_named() -> Result<Vec<String>> {
    let text = file::read(Path::new("/proc/self/cgroup"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|list| list.split(','))
        .filter_map(|word| word.strip_prefix("name="))
        .map(String::from)
        .collect())
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    // The kernel's own limit, MAX_CGROUP_ROOT_NAMELEN.
    if name.is_empty() || name.len() > 63 || name.starts_with('.') || !name.chars().all(allowed) {
        bail!("{name:?} is not a name for a hierarchy: use at most 63 letters, digits, _, . and -");
    }
    Ok(())
}

/// Removes the mount point and the directories above it that are empty.
fn remove_place(root: &Path) {
    for dir in root.ancestors().take(3) {
        if fs::remove_dir(dir).is_err() {
            break;
        }
    }
}

fn explain(error: Error, controllers: &[String]) -> Error {
    let list = controllers.join(", ");
    if is(&error, &[Errno::EBUSY]) {
        let v2 = Layout::detect().is_ok_and(|layout| layout.v2().is_some());
        let place = if v2 {
            "another hierarchy, or used on v2"
        } else {
            "another hierarchy"
        };
        anyhow!("{error:#}: a controller is in one hierarchy only: {list} is in {place}")
    } else if is(&error, &[Errno::EINVAL]) {
        anyhow!("{error:#}: see step-07 hierarchy controllers")
    } else if is(&error, &[Errno::EPERM]) {
        anyhow!("{error:#}: only root may create hierarchies")
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_mount() {
        assert_eq!(options(Some("x"), &[]), "none,name=x");
        assert_eq!(
            options(None, &["cpu".into(), "cpuacct".into()]),
            "cpu,cpuacct"
        );
    }

    #[test]
    fn a_name_is_a_single_word() {
        assert!(check_name("learn-1.b_c").is_ok());
        for name in ["", ".", "a/b", "a b", "a,b", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_group_stays_in_its_hierarchy() {
        let hierarchy = LabHierarchy {
            root: "/h".into(),
            name: "h".into(),
        };
        assert_eq!(hierarchy.group("/a/b").unwrap(), Path::new("/h/a/b"));
        assert_eq!(hierarchy.group("/").unwrap(), Path::new("/h"));
        assert!(hierarchy.group("a/../../x").is_err());
    }
}
