//! Step 07: control groups (cgroups(7), cgroup-v2.rst, cgroup-v1/).
//!
//! A control group is a set of processes that the kernel limits, prioritises,
//! accounts for and controls together. It is a directory in a file system, and
//! its limits, statistics and members are files there. Namespaces decide what a
//! process sees; control groups decide how much it gets.
//!
//! Reading order:
//!
//! 1. this file: [`Cgroups`], the isolation, and [`namespace`], in which the
//!    container's group is the root
//! 2. [`host`]: the mounted hierarchies, v1, v2 or both, and the caller's group
//!    in each
//! 3. [`plan`]: the hierarchies that a container needs, and what is unavailable
//! 4. [`group`]: the directories, and how a process enters
//! 5. [`limits`], [`devices`]: each limit, v1 and v2 side by side; the device
//!    rules, as files and as a program
//! 6. [`observe`]: accounting, pressure, the freezer
//!
//! Safety after a kill, and unusual hosts:
//!
//! - `group/end`, `group/find`: groups of dead launchers, and their processes
//! - `group/kill_legacy`: v1, and v2 before Linux 5.14
//! - `group/leaf`, `host/systemd`: a group that was delegated to the caller
//! - `limits/protection`: `memory.low` depends on the groups above
//! - [`named`]: groups that outlive their launcher, for an OCI runtime
//!
//! [`lab`] serves chapter 07's experiments only. [`cli`] has the options and
//! the tools.
//!
//! # cgroups-rs
//!
//! The library reads the accounting files ([`stats`](observe::stats)) and writes the freezer's
//! ([`freeze`](observe::freeze)): the same code for v1 and v2, given a directory. The rest is our
//! own, because the library
//!
//! * recognises v2 or v1 by the type of `/sys/fs/cgroup`, and so no hybrid host;
//! * switches every controller on from the root down and ignores refusals,
//!   whoever owns the groups;
//! * moves processes by writing PIDs, which takes 10 ms where the child's own
//!   move takes 0.1, and cannot hand a directory to clone3(2);
//! * has no device rules on v2 and no cgroup namespace, and leaves groups
//!   behind.
//!
//! The version in use is 0.3.4. From 0.4 on the library depends on a D-Bus
//! client and an asynchronous runtime, seventy crates that no feature switches
//! off.

mod cli;
mod devices;
mod group;
mod host;
mod lab;
mod limits;
pub mod named;
mod namespace;
mod observe;
mod plan;

use std::cell::OnceCell;
use std::fs::File;
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use kit::{say, warn};
use mount::{Privileges, RootTree};
use nix::sched::CloneFlags;
use nix::unistd::geteuid;
use process::Isolation;
use uts::{Namespace, NamespaceMode};

pub use cli::args::CgroupSettings;
pub use cli::tool;
pub use group::find::sweep;
pub use limits::id_list::IdList;
pub use limits::limits_swap;
pub use limits::units::{Bytes, Cpus, Swap};
pub use named::{GroupFinder, NamedGroup};
pub use namespace::{CgroupView, Rights};
pub use observe::kills::{OomKills, OomWatch};

use crate::devices::RuleArg;
use crate::group::leaf::Leaf;
use crate::group::parent::Parent;
use crate::group::{Group, Member, end, find, v1, v2};
use crate::host::hierarchy::Version;
use crate::host::layout::Layout;
use crate::limits::limit::Limit;
use crate::limits::{apply, cpus, protection};
use crate::observe::oom;
use crate::plan::Plan;

/// A control group for the container, with its limits set before anything runs
/// in it, and a cgroup namespace in which it is the root.
pub struct Cgroups {
    args: CgroupSettings,
    namespace: Namespace,
    /// The hierarchies that the container shall see, set by `prepare`.
    view: Rc<OnceCell<Layout>>,
    group: Group,
    /// The directories in which its groups are made, to be left at the end.
    parents: Vec<(PathBuf, Version)>,
    /// The open `tasks` file of each v1 member, for the child to enter it.
    tasks: Vec<(File, PathBuf)>,
    /// In the child: it has begun to enter its groups.
    entered: bool,
    leaf: Option<Leaf>,
    privileges: Privileges,
    oom_kills: OomKills,
}

impl Cgroups {
    /// The isolation that `args` describe. `prepare` checks them.
    pub fn new(args: CgroupSettings) -> Self {
        Cgroups {
            namespace: Namespace::new(CloneFlags::CLONE_NEWCGROUP, args.cgroupns),
            args,
            view: Rc::default(),
            group: Group::default(),
            parents: Vec::new(),
            tasks: Vec::new(),
            entered: false,
            leaf: None,
            privileges: Privileges::Reduced,
            oom_kills: OomKills::default(),
        }
    }

    /// How many processes the kernel has killed for want of memory: known once
    /// `cleanup` has been called, and before to those who watch.
    pub fn oom_kills(&self) -> OomKills {
        self.oom_kills.clone()
    }

    /// Sets the privileges. With all privileges the container may make and use
    /// every device.
    #[must_use]
    pub fn privileges(mut self, privileges: Privileges) -> Self {
        self.privileges = privileges;
        self
    }

    /// The isolation that mounts the container's /sys/fs/cgroup. Add it after
    /// the mount namespace. It does nothing on the host's root file system,
    /// which is not ours to mount in.
    pub fn view(&self, tree: RootTree) -> CgroupView {
        CgroupView::new(Rc::clone(&self.view), tree)
    }

    /// Makes the group in all hierarchies of the plan. Returns the reasons for
    /// which it is missing in some.
    fn make(&mut self, plan: &Plan<'_>, limits: &[Limit]) -> Result<Vec<String>> {
        let name = group::new_name()?;
        let mut without = Vec::new();
        let cgroup_parent = self.args.cgroup_parent.clone();
        let cgroup_parent = cgroup_parent.as_deref();
        for (hierarchy, needed) in &plan.v1 {
            let asked = needed
                .then(|| on_v1(limits, &hierarchy.controllers))
                .or_else(|| self.args.parent_option());
            let parent = match v1::parent_of(hierarchy, cgroup_parent) {
                Ok(parent) => parent,
                Err(why) => {
                    without.push(plan::do_without(why, asked.as_deref())?);
                    continue;
                }
            };
            self.note_parent(&parent, Version::V1)?;
            let member = v1::create(hierarchy, &parent, &name)?;
            let tasks = v1::open_tasks(&member);
            let dir = member.dir.clone();
            self.group.members.push(member);
            self.tasks.push((tasks?, dir));
        }
        if let Some(hierarchy) = plan.v2 {
            let asked = plan.controllers.first().map(|(_, asked)| asked.clone());
            let asked = asked.or_else(|| self.args.parent_option());
            let ask_systemd = asked.is_some() || geteuid().is_root();
            match v2::Place::find(hierarchy, cgroup_parent, ask_systemd) {
                Ok(place) => {
                    plan::require(&plan.controllers, &place.controllers()?, place.base())?;
                    let needed: Vec<&str> = plan.controllers.iter().map(|(c, _)| *c).collect();
                    self.note_parent(&place.parent(), Version::V2)?;
                    let member = place.create(&name, &needed, &mut self.leaf)?;
                    self.group.members.push(member);
                }
                Err(why) => without.push(plan::do_without(why, asked.as_deref())?),
            }
        }
        self.group.name = name;
        Ok(without)
    }

    /// Records the parent of a group that is about to be made, to be left at
    /// the end.
    ///
    /// In the first parent, removes the groups of launchers that were killed.
    /// Every container has a group there: it is made before those in the other
    /// hierarchies and removed after them, so the other parents need no search.
    fn note_parent(&mut self, parent: &Path, version: Version) -> Result<()> {
        // ANCHOR: exercise_sweep_the_dead
        if self.parents.is_empty()
            && let Some(first) = Parent::existing(parent)?
        {
            let dead = group::dead_at_a_start(&first)?;
            drop(first);
            // A leftover group that cannot be removed must not prevent a start.
            if !dead.is_empty()
                && let Err(error) = find::sweep_named(&dead)
            {
                warn!("cgroups: {error:#}");
            }
        }
        // ANCHOR_END: exercise_sweep_the_dead
        self.parents.push((parent.to_owned(), version));
        Ok(())
    }

    /// The hierarchies in which the container has a group. Its namespace would
    /// show the groups of all processes in the others. With another
    /// `--cgroupns`, or without any group of its own, all hierarchies.
    fn seen(&self, layout: &Layout) -> Layout {
        let mut seen = layout.clone();
        if self.args.cgroupns == NamespaceMode::Private && !self.group.members.is_empty() {
            seen.hierarchies.retain(|hierarchy| {
                let mut dirs = self.group.members.iter().map(|member| &member.dir);
                dirs.any(|dir| dir.starts_with(&hierarchy.mount_point))
            });
        }
        seen
    }

    /// Reports processes that the OOM killer ended: the exit status does not
    /// show it.
    fn report_oom(&self) -> Result<()> {
        let Some(oom) = oom::of(&self.group)?.filter(|oom| oom.killed > 0) else {
            return Ok(());
        };
        self.oom_kills.set_total(oom.killed);
        let processes = match oom.killed {
            1 => "1 process".to_owned(),
            n => format!("{n} processes"),
        };
        let limit = match (self.args.memory.filter(|asked| asked.0 != 0), oom.limit) {
            (Some(asked), _) => format!("the container's limit is --memory {asked}"),
            (None, Some(limit)) => format!("the group's limit is {limit}"),
            (None, None) => "the host, or a group above, ran out of it".to_owned(),
        };
        let program = std::env::args_os().next().unwrap_or_default();
        let program = Path::new(&program).file_name().unwrap_or_default();
        kit::errln!(
            "{}: cgroups: out of memory: the kernel killed {processes}; {limit}",
            program.display()
        );
        Ok(())
    }
}

/// The limit that needs one of these v1 controllers, as it was given.
fn on_v1(limits: &[Limit], controllers: &[String]) -> String {
    limits
        .iter()
        .find(|limit| {
            limit
                .v1
                .iter()
                .any(|v| controllers.iter().any(|c| c == v.controller))
        })
        .map_or(String::new(), |limit| limit.asked.clone())
}

impl Isolation for Cgroups {
    fn name(&self) -> &'static str {
        "cgroups"
    }

    // ANCHOR: cgroup
    fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.group.v2()?.lock.as_ref()?.as_fd())
    }
    // ANCHOR_END: cgroup

    // ANCHOR: prepare
    fn prepare(&mut self) -> Result<()> {
        let limits = limits::limits(&self.args)?;
        if let Some(parent) = &self.args.cgroup_parent {
            v1::below(Path::new("/"), parent)?;
        }
        self.namespace.prepare()?;
        let layout = v1::layout()?;
        say!("control groups: {layout}");
        let plan = Plan::new(&layout, &limits)?;
        let without = self.make(&plan, &limits)?;
        for limit in &limits {
            apply::limit(&self.group, limit, plan::version(&layout, limit)?)?;
        }
        let all = self
            .args
            .device_cgroup_rule
            .iter()
            .any(RuleArg::is_everything);
        if self.privileges == Privileges::Reduced && !all {
            apply::devices(&self.group, &self.args)?;
        }
        plan::say_without(&without);
        self.oom_kills.found(&self.group);
        let seen = self.seen(&layout);
        self.view.get_or_init(|| seen);
        Ok(())
    }
    // ANCHOR_END: prepare

    /// The descriptors by which the child enters its groups and its namespace,
    /// until it has.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        if self.entered {
            return Vec::new();
        }
        let tasks = self.tasks.iter().map(|(file, _)| file.as_fd());
        let joined = self.namespace.joins().map(|(process, _)| process);
        tasks.chain(joined).collect()
    }

    // ANCHOR: in_container
    fn in_container(&mut self) -> Result<()> {
        // After this part the descriptors are no longer needed.
        self.entered = true;
        let born_into = |member: &Member| member.version == Version::V2;
        if let Some(cpus) = &self.args.cpuset_cpus
            && self.group.controller("cpuset").is_some_and(born_into)
        {
            cpus::stay_on(cpus)?;
        }
        // ANCHOR: exercise_enter_the_group
        for (tasks, dir) in &mut self.tasks {
            v1::enter(tasks, dir)?;
        }
        namespace::enter(&self.namespace)
        // ANCHOR_END: exercise_enter_the_group
    }
    // ANCHOR_END: in_container

    fn cleanup(&mut self) -> Result<()> {
        let mut failed = self.report_oom();
        self.tasks.clear();
        let mut left = false;
        let mut members = take(&mut self.group.members);
        for member in members.split_off(members.len().min(1)).into_iter().rev() {
            let ended = end::end(&member.dir, member.version);
            left |= ended.is_err();
            failed = failed.and(ended);
        }
        for first in members {
            match left {
                // The next launcher searches here, and finds the others by its
                // name.
                true => failed = failed.and(end::kill_all(&first.dir, first.version)),
                false => failed = failed.and(end::end(&first.dir, first.version)),
            }
        }
        for (dir, version) in take(&mut self.parents).into_iter().rev() {
            let left = Parent::existing(&dir).and_then(|parent| match parent {
                Some(parent) => protection::leave(parent, version),
                None => Ok(()),
            });
            failed = failed.and(left);
        }
        if let Some(leaf) = self.leaf.take() {
            failed = failed.and(leaf.leave());
        }
        failed
    }
}
