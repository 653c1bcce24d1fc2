//! The two lists of the runtime: of a container's creation, and of a further
//! process in it. One row per isolation, with the reason for its position.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cgroups::NamedGroup;
use cgroups::named::{Below, Entrance};
use engine::command::workdir::Workdir;
use harden::isolation::must_start;
use harden::seccomp::cache::Cache;
use harden::seccomp::listener::Which;
use harden::seccomp::resolve::Situation;
use harden::{Door, Sysctls, TimeNamespace};
use kit::say;
use kit::sys::MemoryPolicy;
use net::MovedDevices;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use process::{Command, Container};
use user::{User, UserSettings};
use uts::NamespaceMode;

use crate::config::NamespaceKind;
use crate::config::check::{Checked, CheckedProcess};
use crate::launch::console::{Console, Terminal};
use crate::launch::group::{Beside, Grouped, View};
use crate::launch::hooks::{CreateHooks, StartHooks};
use crate::launch::identity::{Asked, Identity, Lookup};
use crate::launch::namespaces::{self, Joined, Names, New};
use crate::launch::progress::{Launching, Milestones};
use crate::launch::rdt::{self, Rdt};
use crate::launch::rootfs::{Pivot, Rootfs, SharedRoot, is_filled};
use crate::launch::workdir::Enter;
use crate::state::OciState;
use crate::systemd::unit::Scope;

/// What a launch needs besides the configuration.
#[derive(Debug)]
pub(crate) struct Here<'a> {
    pub bundle: &'a Path,
    /// The state for the hooks.
    pub state: OciState,
    pub group: NamedGroup,
    pub scope: Option<Scope>,
    pub rdt: Option<rdt::Group>,
    /// What is removed of it at the end.
    pub rdt_made: Vec<PathBuf>,
    /// Whether the group can limit the use of devices.
    pub limits_devices: bool,
    /// Whether the group is there until the container is deleted: `run --keep`.
    pub keeps_group: bool,
    pub terminal: Terminal,
    pub passed: Vec<OwnedFd>,
    pub no_pivot: bool,
    pub new_keyring: bool,
    pub programs: PathBuf,
}

fn command(process: &CheckedProcess, passed: &[OwnedFd]) -> Command {
    let mut env: Vec<_> = process.raw.env.iter().map(Into::into).collect();
    if !passed.is_empty() && std::env::var_os("LISTEN_FDS").is_some() {
        // sd_listen_fds(3): the PID is the command's own.
        env.push(format!("LISTEN_FDS={}", passed.len()).into());
        env.push("LISTEN_PID=1".into());
    }
    Command {
        argv: process.raw.args.iter().map(Into::into).collect(),
        env,
    }
}

fn door(process: &CheckedProcess, seccomp: Option<&str>, programs: PathBuf) -> Result<Door> {
    let program = match seccomp {
        None => None,
        Some(text) => {
            let situation = Situation::here(process.capabilities.bounding)?;
            let program = Cache::new(programs).program(text, &situation);
            let program = program.context("linux.seccomp")?;
            for note in &program.notes {
                say!("linux.seccomp: {note}");
            }
            must_start(&program).context("linux.seccomp")?;
            Some(program)
        }
    };
    Ok(Door {
        program,
        no_new_privileges: process.raw.no_new_privileges,
    })
}

/// What a process is told that decides on calls, if the filter asks one.
fn asked(
    door: &Door,
    seccomp: Option<&str>,
    state: &OciState,
    which: Which,
) -> Result<Option<Asked>> {
    let (Some(program), Some(text)) = (&door.program, seccomp) else {
        return Ok(None);
    };
    if !program.asks() {
        return Ok(None);
    }
    Ok(Some(Asked {
        profile: text.parse().context("linux.seccomp")?,
        state: serde_json::to_value(state).context("serialise the state")?,
        which,
    }))
}

/// Builds the container that a configuration describes.
// ANCHOR: create
pub(crate) fn create(checked: &Checked, here: Here<'_>) -> Result<Container> {
    let config = &checked.config;
    let process = &checked.process;
    let mut new = CloneFlags::empty();
    let mut joined = Vec::new();
    let mut view = View::Callers;
    let mut users = NamespaceMode::Host;
    for kind in namespaces::ALL {
        let mut asked = config.linux.namespaces.iter();
        let Some(asked) = asked.find(|one| one.kind == kind) else {
            continue;
        };
        let is_new = asked.path.as_os_str().is_empty();
        match (kind, is_new) {
            // They are made by their own isolations.
            (NamespaceKind::User, true) => users = NamespaceMode::Private,
            (NamespaceKind::Cgroup, true) => view = View::New,
            (NamespaceKind::Time, true) if !checked.time_offsets.is_empty() => {}
            (_, true) => new |= kind.flag(),
            (_, false) => {
                let file = namespaces::open(&asked.path, kind)
                    .with_context(|| format!("linux.namespaces: {kind:?}"))?;
                match kind {
                    // Nobody can enter the user namespace that they are in
                    // (setns(2)).
                    NamespaceKind::User if namespaces::is_own(&file, kind)? => {}
                    NamespaceKind::Cgroup => view = View::Joined(file),
                    _ => joined.push(Joined::new(kind, file)),
                }
            }
        }
    }
    let seccomp = checked.seccomp.as_deref();
    let door = door(process, seccomp, here.programs)?;
    let ask = || asked(&door, seccomp, &here.state, Which::First);
    let (asked, asked_of_hooks) = (ask()?, ask()?);
    let root = SharedRoot::default();
    let user = &process.raw.user;
    let hooks = config.hooks.clone();
    let mut container = Container::new(command(process, &here.passed))
        .keep_terminal()
        .pass(here.passed)
        // The user namespace owns the others, so it is made or entered first.
        .with(User::new(UserSettings {
            userns: Some(users),
            uid_map: if users == NamespaceMode::Private {
                checked.uid_map.clone()
            } else {
                Vec::new()
            },
            gid_map: if users == NamespaceMode::Private {
                checked.gid_map.clone()
            } else {
                Vec::new()
            },
            ..UserSettings::default()
        }));
    // In the order of `namespaces::ALL`: the user namespace first.
    for one in joined {
        container = container.with(one);
    }
    let own_groups = !matches!(view, View::Callers);
    Ok(container
        .with(New(new))
        // Where the child is from its birth on.
        .with(Rdt {
            group: here.rdt,
            made: here.rdt_made,
        })
        .with(MovedDevices::new(checked.net_devices.clone()))
        // The child enters its groups before anything is charged to them, and
        // its cgroup namespace after that.
        .with(Grouped {
            group: here.group.clone(),
            scope: here.scope,
            placeholder: None,
            resources: config.linux.resources.clone().unwrap_or_default(),
            devices: here.limits_devices.then(|| checked.device_rules.clone()),
            view,
            entrance: Entrance::default(),
            entered: false,
            others: false,
            kept: here.keeps_group,
        })
        .with(Names {
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            outside: None,
        })
        // Through the host's /proc: the image could put anything in its place.
        .with(Sysctls::new(checked.sysctls.clone()))
        .with(TimeNamespace::new(checked.time_offsets.clone()))
        .with(Rootfs {
            path: checked.root.clone(),
            bundle: here.bundle.to_owned(),
            mounts: checked.mounts.clone(),
            devices: checked.devices.clone(),
            propagation: checked.propagation,
            label: config.linux.mount_label.clone(),
            group: here.group,
            view: None,
            own_groups,
            root: root.clone(),
            mapped: Vec::new(),
            own_users: users == NamespaceMode::Private && new.contains(CloneFlags::CLONE_NEWNS),
            sources: None,
        })
        // Its terminal is on the container's devpts, and is mounted on
        // /dev/console before the root may become read-only.
        .with(Console::new(
            here.terminal,
            Some(root.clone()),
            process.raw.console_size,
            user.uid,
        ))
        // The specification's point for them: the mounts are made, the root has
        // not changed. They may add mounts, which `Pivot` then hides.
        .with(CreateHooks {
            prestart: hooks.prestart,
            create_runtime: hooks.create_runtime,
            create_container: hooks.create_container,
            root: checked.root.clone(),
            state: here.state.clone(),
            sockets: None,
            thread: None,
        })
        .with(Pivot {
            root,
            read_only: config.root.as_ref().is_some_and(|root| root.readonly),
            cwd: process.raw.cwd.clone(),
            filled: checked
                .mounts
                .iter()
                .filter(|one| is_filled(one))
                .cloned()
                .collect(),
            masked: config.linux.masked_paths.clone(),
            readonly_paths: config.linux.readonly_paths.clone(),
            propagation: checked.propagation,
            by_move: here.no_pivot,
        })
        // From here on paths are the container's.
        .with(Workdir::new(process.raw.cwd.clone()))
        // In `create`, so that a missing command is its error.
        .with(Lookup { uid: user.uid })
        .with(Identity::limits(process))
        .with(Identity {
            process: process.clone(),
            door: door.clone(),
            asked,
            listener: None,
            new_keyring: here.new_keyring,
            personality: checked.personality,
            memory_policy: checked.memory_policy.clone(),
        })
        // The programs are the container's: they run with its rights, each behind the
        // filter. Around the command it is closed last, in `Identity::seal`.
        .with(StartHooks {
            hooks: hooks.start_container,
            state: here.state,
            door,
            asked: asked_of_hooks,
            listeners: Vec::new(),
        })
        .with(Milestones::of(Launching::First)))
}
// ANCHOR_END: create

/// What a further process needs besides its own properties.
#[derive(Debug)]
pub(crate) struct There {
    /// The container's first process.
    pub first: Pid,
    pub group: NamedGroup,
    /// Groups below it.
    pub below: Vec<Below>,
    pub terminal: Terminal,
    pub passed: Vec<OwnedFd>,
    /// The container's state.
    pub state: OciState,
    pub seccomp: Option<String>,
    pub programs: PathBuf,
    pub personality: Option<u32>,
    pub memory_policy: Option<MemoryPolicy>,
}

/// Adds the isolations that enter the namespaces of the process `first`, except
/// those that are the caller's already. The cgroup namespace is returned: it is
/// entered after the group, by [`Beside`].
// ANCHOR: join
pub fn join(mut container: Container, first: Pid) -> Result<(Container, View)> {
    let mut view = View::Callers;
    // ANCHOR: exercise_join
    for kind in namespaces::ALL {
        // A kernel without such namespaces has no such file for this process
        // either. If only the container's is missing, that has ended, and the
        // process would run outside of it.
        if !Path::new("/proc/self/ns").join(kind.file()).exists() {
            continue;
        }
        let path = format!("/proc/{first}/ns/{}", kind.file());
        let file = namespaces::open(Path::new(&path), kind)?;
        if !namespaces::is_own(&file, kind)? {
            match kind {
                // Entered by `Beside`, after the group.
                NamespaceKind::Cgroup => view = View::Joined(file),
                _ => container = container.with(Joined::new(kind, file)),
            }
        }
    }
    // ANCHOR_END: exercise_join
    Ok((container, view))
}
// ANCHOR_END: join

/// Builds a further process of a container: its list only joins.
// ANCHOR: exec
pub(crate) fn exec(process: &CheckedProcess, there: There) -> Result<Container> {
    let user = &process.raw.user;
    let seccomp = there.seccomp.as_deref();
    let door = door(process, seccomp, there.programs)?;
    let asked = asked(&door, seccomp, &there.state, Which::Further)?;
    let container = Container::new(command(process, &there.passed))
        .keep_terminal()
        .pass(there.passed);
    let (container, view) = join(container, there.first)?;
    Ok(container
        .with(
            Beside::new(there.group, there.first, view)
                .on(process.affinity.clone())
                .below(there.below),
        )
        .with(Console::new(
            there.terminal,
            None,
            process.raw.console_size,
            user.uid,
        ))
        .with(Enter(process.raw.cwd.clone()))
        .with(Lookup { uid: user.uid })
        .with(Identity::limits(process))
        .with(Identity {
            process: process.clone(),
            door,
            asked,
            listener: None,
            new_keyring: false,
            personality: there.personality,
            memory_policy: there.memory_policy,
        })
        .with(Milestones::of(Launching::Further)))
}
// ANCHOR_END: exec
