//! The container's control group, which outlives its maker.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use cgroups::IdList;
use cgroups::named::{self, Below, Entrance, NamedGroup, Verdict};
use kit::say;
use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;
use process::Isolation;

use crate::config::Resources;
use crate::launch::resources;
use crate::systemd::unit::{Placeholder, Scope};

/// What the container sees of its groups.
#[derive(Debug)]
pub enum View {
    /// What its maker sees.
    Callers,
    /// A cgroup namespace in which its group is the root.
    New,
    /// That of a container.
    Joined(File),
}

impl View {
    /// Gives the caller this view. It has to be in its groups already: in a
    /// namespace that does not show the group which it comes from, it may enter
    /// none (`nsdelegate` in cgroup-v2.rst).
    fn enter(&self) -> Result<()> {
        match self {
            View::Callers => Ok(()),
            View::New => {
                say!("unshare(CLONE_NEWCGROUP)");
                named::new_namespace()
            }
            View::Joined(file) => {
                setns(file, CloneFlags::CLONE_NEWCGROUP).context("setns(CLONE_NEWCGROUP)")
            }
        }
    }

    /// The descriptor that is needed for this.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            View::Joined(file) => Some(file.as_fd()),
            View::Callers | View::New => None,
        }
    }
}

/// The isolation that makes the group, sets its limits, and has the child enter
/// it before anything is charged to it.
pub(crate) struct Grouped {
    pub group: NamedGroup,
    /// The scope whose group it is, if systemd makes it.
    pub scope: Option<Scope>,
    pub placeholder: Option<Placeholder>,
    pub resources: Resources,
    /// `None` if nothing can enforce them, and no node can be made either.
    pub devices: Option<Vec<Verdict>>,
    pub view: View,
    pub entrance: Entrance,
    pub entered: bool,
    /// Whether the processes of another container are in it.
    pub others: bool,
    /// Whether the group outlives the launch: `delete` ends it.
    pub kept: bool,
}

impl Isolation for Grouped {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn prepare(&mut self) -> Result<()> {
        match &self.scope {
            None => self.group.make().inspect_err(|_| {
                // Another container has come first: its processes stay.
                self.others = self.group.expect_empty().is_err();
            })?,
            Some(scope) => {
                let placeholder = Placeholder::start()?;
                let first = placeholder.pid;
                self.placeholder = Some(placeholder);
                scope.start(first, &self.group, &self.resources, self.devices.as_deref())?;
                // It is in the groups of those controllers only that systemd
                // uses for the scope.
                self.group.make_beside(Some(first))?;
            }
        }
        resources::apply(&self.group, &self.resources)?;
        if let Some(devices) = &self.devices {
            self.group
                .set_devices(devices)
                .context("linux.resources.devices")?;
        }
        self.entrance = self.group.entrance(None)?;
        Ok(())
    }

    fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.entrance.born_into()
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        if self.entered {
            return Vec::new();
        }
        let until = self.placeholder.as_ref().and_then(Placeholder::until);
        let view = self.view.fd();
        self.entrance.fds().chain(view).chain(until).collect()
    }

    fn on_host(&mut self, _: Pid) -> Result<()> {
        if let Some(placeholder) = &mut self.placeholder {
            placeholder.leave();
        }
        Ok(())
    }

    fn in_container(&mut self) -> Result<()> {
        self.entered = true;
        self.entrance.enter()?;
        self.view.enter()
    }

    fn cleanup(&mut self) -> Result<()> {
        let ended = self.placeholder.take().map_or(Ok(()), Placeholder::end);
        if self.others {
            return ended;
        }
        if self.kept {
            // Without a PID namespace of its own the container has others left.
            return ended.and(self.group.kill());
        }
        let stopped = self.scope.as_ref().map_or(Ok(()), Scope::stop);
        ended.and(stopped).and(self.group.end())
    }
}

/// The isolation that enters the group of a running container, beside its first
/// process.
pub struct Beside {
    group: NamedGroup,
    first: Pid,
    /// The container's, which is entered after the group.
    view: View,
    /// The groups below, for some controllers or for all.
    below: Vec<Below>,
    /// The processors until it is in the group, and from then on.
    affinity: Option<(IdList, IdList)>,
    entrance: Entrance,
    entered: bool,
}

impl Beside {
    /// The isolation for the groups `group`, of which the process `first` is in
    /// one, and the cgroup namespace `view`.
    pub fn new(group: NamedGroup, first: Pid, view: View) -> Self {
        Beside {
            group,
            first,
            view,
            below: Vec::new(),
            affinity: None,
            entrance: Entrance::default(),
            entered: false,
        }
    }

    /// Has the process enter these groups below.
    #[must_use]
    pub(crate) fn below(mut self, below: Vec<Below>) -> Self {
        self.below = below;
        self
    }

    /// Has the process run on the first of these processors until it is in the
    /// group, and then on the others.
    #[must_use]
    pub(crate) fn on(mut self, affinity: Option<(IdList, IdList)>) -> Self {
        self.affinity = affinity;
        self
    }
}

impl Isolation for Beside {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn prepare(&mut self) -> Result<()> {
        self.entrance = self.group.entrance_below(Some(self.first), &self.below)?;
        // The child inherits it.
        if let Some((initial, _)) = &self.affinity {
            run_on(initial).context("process.execCPUAffinity.initial")?;
        }
        Ok(())
    }

    fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.entrance.born_into()
    }

    fn why_refused(&self, errno: Errno) -> Option<String> {
        self.entrance.why_refused(errno)
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        match self.entered {
            true => Vec::new(),
            false => self.entrance.fds().chain(self.view.fd()).collect(),
        }
    }

    fn in_container(&mut self) -> Result<()> {
        self.entered = true;
        self.entrance.enter()?;
        if let Some((_, last)) = &self.affinity {
            run_on(last).context("process.execCPUAffinity.final")?;
        }
        self.view.enter()
    }
}

/// Has this process run on these processors only: sched_setaffinity(2). An
/// empty list changes nothing.
fn run_on(processors: &IdList) -> Result<()> {
    if processors.0.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for number in &processors.0 {
        set.set(*number as usize)
            .with_context(|| format!("processor {number}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("sched_setaffinity({processors})"))
}
