//! The group on v2 (cgroup-v2.rst).
//!
//! Three rules decide where it can be made:
//!
//! * a controller acts on a group only if it is switched on in
//!   `cgroup.subtree_control` of the group above;
//! * that can be done only in a group without processes of its own, except the
//!   root group ("no internal processes");
//! * a group belongs to one manager. We switch controllers on in the root group
//!   if no service manager runs, in a group that was delegated to us, and in
//!   groups that we made, but never in another manager's group.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kit::say;
use nix::unistd::Pid;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::group::file;
use crate::group::leaf::Leaf;
use crate::group::parent::{self, NAME, Parent};
use crate::group::v1::{below, may_make_groups};
use crate::group::{Member, make};
use crate::host::hierarchy::{Hierarchy, Version};
use crate::host::layout::{Layout, controllers};
use crate::host::systemd;

/// Controllers that are switched on if available, to account for the use of
/// every container.
const WELCOME: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// The group below which we may make others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Base {
    dir: PathBuf,
    /// The launcher is in this group: it must leave before controllers are
    /// switched on.
    home: bool,
}

/// The place of the container's group.
pub(crate) struct Place {
    base: Base,
    parent: PathBuf,
}

impl Place {
    /// Finds the place. If systemd manages the tree, asks it for a group of our
    /// own, provided that `ask_systemd` is set.
    ///
    /// # Errors
    /// Says why there is none, and names the remedy.
    pub(crate) fn find(
        hierarchy: &Hierarchy,
        cgroup_parent: Option<&Path>,
        ask_systemd: bool,
    ) -> Result<Self> {
        if hierarchy.read_only {
            bail!("{} is mounted read-only", hierarchy.mount_point.display());
        }
        if let Some(asked) = cgroup_parent {
            let dir = hierarchy.mount_point.clone();
            return Ok(Place {
                parent: below(&dir, asked)?,
                base: Base { dir, home: false },
            });
        }
        let base = match systemd::manages(&hierarchy.mount_point) {
            true => delegated_by_systemd(hierarchy, ask_systemd)?,
            false => delegated(hierarchy)?,
        };
        Ok(Place {
            parent: base.dir.join(NAME),
            base,
        })
    }

    /// The controllers that are available to groups here.
    pub(crate) fn controllers(&self) -> Result<Vec<String>> {
        controllers(&self.base.dir)
    }

    /// The directory in which the group is made.
    pub(crate) fn parent(&self) -> PathBuf {
        self.parent.clone()
    }

    /// The group whose `cgroup.controllers` decides that, for errors.
    pub(crate) fn base(&self) -> &Path {
        &self.base.dir
    }

    /// Makes the group, with the `needed` controllers switched on. If the
    /// launcher has to move for that, `leaf` is set.
    ///
    /// # Errors
    /// Names the group in which a controller could not be switched on.
    pub(crate) fn create(
        &self,
        name: &str,
        needed: &[&str],
        leaf: &mut Option<Leaf>,
    ) -> Result<Member> {
        if self.base.home && !needed.is_empty() {
            *leaf = Some(Leaf::enter(&self.base.dir)?);
        }
        let parent = Parent::enter(&self.parent)?;
        let mut welcome = WELCOME.to_vec();
        let there = self.controllers()?;
        welcome.retain(|controller| there.iter().any(|c| c == controller));
        // While the launcher is in the base, the attempt would fail.
        if self.base.home && leaf.is_none() {
            welcome.clear();
        }
        self.switch_on(&parent.dir, needed, &welcome)?;
        let (dir, lock) = make(&parent, name)?;
        Ok(Member {
            version: Version::V2,
            controllers: controllers(&dir)?,
            dir,
            lock: Some(lock),
        })
    }

    /// Switches controllers on in every group from the base down to the parent.
    fn switch_on(&self, parent: &Path, needed: &[&str], welcome: &[&str]) -> Result<()> {
        let mut chain: Vec<&Path> = parent
            .ancestors()
            .take_while(|dir| dir.starts_with(&self.base.dir))
            .collect();
        chain.reverse();
        let on = |controller: &str| {
            chain.iter().enumerate().try_for_each(|(at, dir)| {
                switch_on_in(
                    dir,
                    chain.get(at + 1).copied(),
                    controller,
                    dir == &self.base.dir,
                )
            })
        };
        for controller in needed {
            on(controller)?;
        }
        for controller in welcome {
            if let Err(error) = on(controller) {
                say!("without the {controller} controller: {error:#}");
            }
        }
        Ok(())
    }
}

// ANCHOR: switch_on_in
/// Switches a controller on in `dir`, for `below`: the next group on the path
/// to the container's, or `None` for the container's own.
fn switch_on_in(dir: &Path, below: Option<&Path>, controller: &str, is_base: bool) -> Result<()> {
    let control = dir.join("cgroup.subtree_control");
    if file::read(&control)?
        .split_whitespace()
        .any(|c| c == controller)
    {
        return Ok(());
    }
    let ours = parent::ours(dir) || is_base && !systemd_owns(dir);
    if !ours || below.is_some_and(|below| !parent::ours(below)) {
        bail!(
            "the {controller} controller is not enabled in {}, which belongs to others: echo \
             +{controller} > {}",
            dir.display(),
            control.display()
        );
    }
    // Recorded first: a recorded controller that is off does no harm.
    if let Some(below) = below {
        parent::remember(below, controller)?;
    }
    say!("enable the {controller} controller in {}", dir.display());
    file::write(&control, &format!("+{controller}")).context(
        "a controller cannot be enabled in a group that holds processes (EBUSY), nor in one that \
         does not have it (ENOENT)",
    )
}
// ANCHOR_END: switch_on_in

/// Whether systemd owns `dir`: the root group of a host that it manages. A
/// scope that it delegated is ours.
fn systemd_owns(dir: &Path) -> bool {
    systemd::manages(dir) && !systemd::delegated(dir)
}

/// Finds the base without systemd: the root of the mount if we may write there
/// and it has no processes or is the root group; else the topmost ancestor of
/// our own group that is writable for us and has no processes; else our own.
fn delegated(hierarchy: &Hierarchy) -> Result<Base> {
    let top = &hierarchy.mount_point;
    let is_root_group = !top.join("cgroup.type").exists();
    if ours_to_use(top) && (is_root_group || processes(top)?.is_empty()) {
        return Ok(Base {
            dir: top.clone(),
            home: false,
        });
    }
    let mut found = None;
    for dir in hierarchy
        .own
        .ancestors()
        .take_while(|dir| dir.starts_with(top))
    {
        if !ours_to_use(dir) {
            break;
        }
        if processes(dir)?.is_empty() {
            found = Some(dir);
        }
    }
    let home = found.is_none();
    let dir = found.unwrap_or(&hierarchy.own).to_owned();
    if !ours_to_use(&dir) {
        bail!(
            "{} is not delegated to this user: run as root, or have an administrator create a \
             group, chown it and its cgroup.procs, cgroup.subtree_control and cgroup.threads to \
             this user, and start this shell in it",
            dir.display()
        );
    }
    Ok(Base { dir, home })
}

/// Finds the base with systemd: our own group or an ancestor if it was
/// delegated, else a new scope, if `ask`.
fn delegated_by_systemd(hierarchy: &Hierarchy, ask: bool) -> Result<Base> {
    let top = &hierarchy.mount_point;
    let own = || {
        hierarchy
            .own
            .ancestors()
            .take_while(|dir| dir.starts_with(top))
    };
    if let Some(dir) = own().find(|dir| systemd::delegated(dir)) {
        let home = dir == hierarchy.own;
        if home || processes(dir)?.is_empty() {
            let dir = dir.to_owned();
            return Ok(Base { dir, home });
        }
    }
    if !ask {
        bail!(
            "systemd has not delegated {} to us",
            hierarchy.own.display()
        );
    }
    systemd::move_to_scope()?;
    let layout = Layout::detect()?;
    let own = layout.v2().map(|hierarchy| hierarchy.own.clone());
    Ok(Base {
        dir: own.context("no cgroup2 file system is mounted")?,
        home: true,
    })
}

/// Whether we may make groups in `dir` and move processes between them. A move
/// requires write permission on the `cgroup.procs` of the common ancestor.
fn ours_to_use(dir: &Path) -> bool {
    may_make_groups(dir)
        && ["cgroup.procs", "cgroup.subtree_control"]
            .iter()
            .all(|file| accessat(CWD, dir.join(file), Access::WRITE_OK, AtFlags::EACCESS).is_ok())
}

/// The processes in the group itself, without those below.
fn processes(dir: &Path) -> Result<Vec<Pid>> {
    let text = file::read(&dir.join("cgroup.procs"))?;
    text.lines()
        .map(|line| {
            Ok(Pid::from_raw(
                line.parse()
                    .map_err(|_| anyhow!("{line:?} in cgroup.procs"))?,
            ))
        })
        .collect()
}
