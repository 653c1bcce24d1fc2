//! `create`, `start` and `run`: a launch that spans two processes, and both of
//! them in one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use cgroups::NamedGroup;
use kit::atomic_file::write_file;
use kit::time::now;
use kit::{ProcessIdentity, sys, warn};
use nix::unistd::{Pid, geteuid};
use process::{Exit, Gate, gate};

use crate::cli::args::{CgroupManager, Create, Globals, Rootless, Run};
use crate::cli::ended::{end_first, poststop};
use crate::config::check::Checked;
use crate::config::{Config, NamespaceKind, VERSION, read};
use crate::launch::console::Terminal;
use crate::launch::hooks::run_all;
use crate::launch::identity::may_trace;
use crate::launch::progress;
use crate::launch::rdt;
use crate::list::{self, Here};
use crate::sealed;
use crate::state::{Container, OciState, Record, Status, Store, in_user_namespace};
use crate::systemd::unit::Scope;

/// Takes the descriptors that the command shall get, before anything else is
/// opened.
pub(crate) fn preserved(count: u32) -> Result<Vec<OwnedFd>> {
    ensure!(count <= 200, "--preserve-fds {count}: at most 200");
    (3..3 + count as i32)
        .map(|fd| sys::inherited(fd).context("--preserve-fds"))
        .collect()
}

/// A container that is about to be launched: recorded, and nothing made yet.
struct Prepared {
    container: Container,
    launch: process::Container,
    config: Config,
}

/// How long the container may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// As long as this process, which waits for it. If it is kept, its group
    /// outlives both of them.
    Launchers { kept: bool },
    /// Longer: it waits at its gate until somebody starts it.
    Own,
}

fn prepare(globals: &Globals, args: &Create, passed: Vec<OwnedFd>, life: Life) -> Result<Prepared> {
    let bundle = args
        .bundle
        .canonicalize()
        .with_context(|| format!("--bundle {:?}", args.bundle))?;
    let config: Config = read::document(&bundle.join(read::CONFIG))?;
    let checked = Checked::new(config, &bundle).context(read::CONFIG)?;
    let terminal = Terminal::choose(
        checked.process.raw.terminal,
        args.console_socket.as_deref(),
        life == Life::Own,
    )?;
    let own_pids = match namespace(&checked, NamespaceKind::Pid) {
        Some(path) => path.as_os_str().is_empty(),
        None => false,
    };
    // Others are in that namespace already, and may look at the child.
    if !own_pids && namespace(&checked, NamespaceKind::User).is_none() {
        sealed::ensure(&passed)?;
    }
    let store = Store::new(globals.root.clone())?;
    let (group, scope) = group(globals, &args.id, &checked)?;
    ensure!(
        !group.is_frozen()?,
        "container's cgroup unexpectedly frozen: it is there already, and nothing would \
         run in it"
    );
    let draft = store.create(&args.id)?;
    // Before it is recorded: the group is somebody else's, and would be ended
    // together with what is recorded.
    let empty = group.expect_empty().context("cgroup");
    let gate = empty.and_then(|()| match life {
        Life::Own => Gate::make(draft.dir()).map(Some),
        Life::Launchers { .. } => Ok(None),
    });
    let gate = match gate {
        Ok(gate) => gate,
        Err(error) => return Err(after(error, draft.discard())),
    };
    let rdt = match &checked.config.linux.intel_rdt {
        Some(rdt) => Some(rdt::Group::plan(&rdt::mounted()?, rdt, &args.id)?),
        None => None,
    };
    let rdt_made = rdt.as_ref().map(rdt::Group::made).unwrap_or_default();
    let record = Record {
        id: args.id.clone(),
        bundle: bundle.clone(),
        rootfs: checked.root.clone(),
        created: now(),
        owner: geteuid().as_raw(),
        cgroup: group.clone(),
        scope: scope.clone(),
        rdt: rdt_made.clone(),
        creator: Some(ProcessIdentity::current()?),
        process: None,
        own_pids,
        may_trace: may_trace(checked.process.capabilities),
    };
    let state = OciState {
        oci_version: VERSION.to_owned(),
        id: args.id.clone(),
        pid: 0,
        status: Status::Creating,
        bundle: bundle.clone(),
        rootfs: None,
        created: None,
        annotations: checked.config.annotations.clone(),
        owner: None,
    };
    let limits_devices = group != NamedGroup::default()
        && (geteuid().is_root() && !in_user_namespace()? || globals.rootless == Rootless::False);
    let container = draft.record(record, &checked.config)?;
    let launch = list::create(
        &checked,
        Here {
            bundle: &bundle,
            state,
            group,
            scope,
            rdt,
            rdt_made,
            limits_devices,
            keeps_group: life == Life::Launchers { kept: true },
            terminal,
            passed,
            no_pivot: args.no_pivot,
            new_keyring: !args.no_new_keyring,
            programs: store.programs(),
        },
    );
    let config = checked.config;
    match launch {
        Ok(launch) => Ok(Prepared {
            container,
            launch: match gate {
                Some(gate) => launch.started_through(gate),
                None => launch,
            },
            config,
        }),
        Err(error) => Err(after(error, container.remove())),
    }
}

fn namespace(checked: &Checked, kind: NamespaceKind) -> Option<&Path> {
    let mut all = checked.config.linux.namespaces.iter();
    all.find(|one| one.kind == kind)
        .map(|one| one.path.as_path())
}

/// The group of the container.
fn group(globals: &Globals, id: &str, checked: &Checked) -> Result<(NamedGroup, Option<Scope>)> {
    let path = checked.config.linux.cgroups_path.as_str();
    let systemd = globals.systemd_cgroup || globals.cgroup_manager == Some(CgroupManager::Systemd);
    if systemd {
        // sd_booted(3)
        ensure!(
            Path::new("/run/systemd/system").is_dir(),
            "--systemd-cgroup: systemd does not run on this host: use --cgroup-manager cgroupfs, \
             and the same in the engine's settings"
        );
        let scope = Scope::plan(path, id)?;
        let group = NamedGroup::plan_of_systemd(&scope.group().context("--systemd-cgroup")?)?;
        return Ok((group.with_foreign_parents(), Some(scope)));
    }
    if globals.cgroup_manager == Some(CgroupManager::Disabled) {
        return Ok((NamedGroup::default(), None));
    }
    let path = match path {
        "" => PathBuf::from("/drydock-runtime").join(id),
        path => path.into(),
    };
    let group = NamedGroup::plan(&path).context("linux.cgroupsPath")?;
    let tolerant = match globals.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => !geteuid().is_root() || in_user_namespace()?,
    };
    if tolerant && !group.is_writable() {
        let mut limits = checked.config.linux.resources.clone().unwrap_or_default();
        limits.devices.clear();
        ensure!(
            limits == Default::default(),
            "linux.resources: the caller may make no group that could enforce them"
        );
        return Ok((NamedGroup::default(), None));
    }
    Ok((group, None))
}

/// Adds what went wrong in the attempt to clean up.
fn after(error: Error, cleaned: Result<()>) -> Error {
    match cleaned {
        Ok(()) => error,
        Err(more) => error.context(format!("and then {more:#}")),
    }
}

fn write_pid(file: Option<&PathBuf>, pid: Pid) -> Result<()> {
    match file {
        Some(file) => write_file(file, pid.to_string()).context("--pid-file"),
        None => Ok(()),
    }
}

/// Removes a container whose launch has failed: the isolations have cleaned up.
fn give_up(mut container: Container, config: &Config, error: Error) -> Error {
    // Its own processes have been killed. Others have come in the moment between the
    // look at the group and its making: they are another container's.
    if container.record.cgroup.expect_empty().is_err() {
        container.record.cgroup = NamedGroup::default();
        container.record.scope = None;
    }
    let hooks = poststop(&container, config);
    let error = after(error, container.remove());
    after(error, hooks)
}

/// `create`.
pub(crate) fn create(globals: &Globals, args: &Create) -> Result<()> {
    let passed = preserved(args.preserve_fds)?;
    let prepared = prepare(globals, args, passed, Life::Own)?;
    created(prepared, args).map(drop)
}

/// Creates the container, and leaves it waiting at its gate.
// ANCHOR: created
fn created(prepared: Prepared, args: &Create) -> Result<Container> {
    let Prepared {
        mut container,
        launch,
        config,
    } = prepared;
    // ANCHOR: exercise_leave
    let left = launch.create().and_then(|created| {
        progress::flush();
        let pid = created.pid();
        // Recorded while the child still dies with this process.
        container.record.process = Some(ProcessIdentity::of(pid.as_raw())?);
        container.save()?;
        write_pid(args.pid_file.as_ref(), pid)?;
        created.leave()
    });
    match left {
        Ok(_) => Ok(container),
        Err(error) => Err(give_up(container, &config, error)),
    }
    // ANCHOR_END: exercise_leave
}
// ANCHOR_END: created

/// `start`.
// ANCHOR: start
pub(crate) fn start(globals: &Globals, id: &str) -> Result<()> {
    let mut container = Store::new(globals.root.clone())?.change(id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Creating => bail!("the container is being created"),
        Status::Running | Status::Paused => bail!("cannot start an already running container"),
    }
    started(&mut container)
}

fn started(container: &mut Container) -> Result<()> {
    gate::open_gate(&container.dir)?;
    // Others may look at it, and change it, however long the hooks take.
    container.unlock();
    poststart(container)
}
// ANCHOR_END: start

/// The hooks after a start. If one fails, so does the container.
fn poststart(container: &Container) -> Result<()> {
    // ANCHOR: exercise_poststart
    let config = container.config()?;
    let state = container.state(Status::Running)?;
    run_all("poststart", &config.hooks.poststart, &state)
        .map_err(|error| after(error, end_first(container)))
    // ANCHOR_END: exercise_poststart
}

/// `run`.
pub(crate) fn run(globals: &Globals, args: &Run) -> Result<Exit> {
    let passed = preserved(args.create.preserve_fds)?;
    let life = match args.detach {
        true => Life::Own,
        false => Life::Launchers { kept: args.keep },
    };
    let prepared = prepare(globals, &args.create, passed, life)?;
    let config = prepared.config.clone();
    if args.detach {
        let mut container = created(prepared, &args.create)?;
        return match started(&mut container) {
            Ok(()) => Ok(Exit::Code(0)),
            Err(error) => {
                let error = after(error, end_first(&container));
                match container.lock_again()? {
                    Some(container) => Err(give_up(container, &config, error)),
                    None => Err(error),
                }
            }
        };
    }
    let Prepared {
        mut container,
        launch,
        ..
    } = prepared;
    let ended = launch.create().and_then(|created| {
        progress::flush();
        let pid = created.pid();
        container.record.process = Some(ProcessIdentity::of(pid.as_raw())?);
        container.save()?;
        write_pid(args.create.pid_file.as_ref(), pid)?;
        let running = created.start()?;
        // Others may look at it, and change it.
        container.unlock();
        if let Err(error) = poststart(&container) {
            warn!("{error:#}");
        }
        running.wait()
    });
    let exit = match ended {
        Ok(exit) => exit,
        Err(error) => {
            let container = container.lock_again()?;
            return match container {
                Some(container) => Err(give_up(container, &config, error)),
                None => Err(error),
            };
        }
    };
    // Somebody else may have deleted it.
    if !args.keep
        && let Some(container) = container.lock_again()?
    {
        let hooks = poststop(&container, &config);
        container.remove()?;
        hooks?;
    }
    Ok(exit)
}
