//! `exec`: a further process in a running container.

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use cgroups::named::Below;
use kit::ProcessIdentity;
use kit::atomic_file::write_file;
use nix::unistd::Pid;
use process::Exit;

use crate::cli::args::{Exec, Globals};
use crate::cli::create::preserved;
use crate::config::check::{CheckedProcess, memory_policy, personality};
use crate::config::{Capabilities, Config, NamespaceKind, Process, read};
use crate::launch::console::Terminal;
use crate::launch::identity::may_trace;
use crate::launch::progress;
use crate::list::{self, There};
use crate::sealed;
use crate::state::{Status, Store};

/// The process that the options describe.
fn process(args: &Exec, config: &Config) -> Result<Process> {
    if let Some(file) = &args.process {
        ensure!(
            args.command.is_empty(),
            "--process and a command: one of the two"
        );
        return read::document_or_pipe(file);
    }
    let mut process = config.process.clone().context("process is missing")?;
    process.args = args.command.clone();
    process.terminal = args.tty;
    process.console_size = None;
    process.env.extend(args.env.iter().cloned());
    process.no_new_privileges |= args.no_new_privs;
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &args.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(user) = &args.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let number = |text: &str| text.parse().context("--user: give UID or UID:GID");
        process.user.uid = number(uid)?;
        process.user.gid = number(gid)?;
    }
    process.user.additional_gids.extend(&args.additional_gids);
    if !args.cap.is_empty() {
        let sets = process
            .capabilities
            .get_or_insert_with(Capabilities::default);
        for cap in &args.cap {
            for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                set.push(cap.clone());
            }
        }
    }
    Ok(process)
}

const STOPPED: &str = "cannot exec in a stopped container";

/// The error of a launch. If the container has ended meanwhile, that is its
/// cause: the kernel makes no process in such a PID namespace (`ENOMEM`), and
/// has no files of such namespaces.
fn explained(error: Error, first: ProcessIdentity) -> Error {
    match first.is_alive() || error.to_string() == STOPPED {
        true => error,
        false => error.context(STOPPED),
    }
}

/// `exec`.
pub(crate) fn exec(globals: &Globals, args: &Exec) -> Result<Exit> {
    let passed = preserved(args.preserve_fds)?;
    let store = Store::new(globals.root.clone())?;
    let mut container = store.change(&args.id)?;
    let status = container.status()?;
    match status {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        Status::Stopped => bail!(STOPPED),
        Status::Creating => bail!("cannot exec in a container that is being created"),
    }
    let config = container.config()?;
    let process = CheckedProcess::new(process(args, &config)?).context("process")?;
    let terminal = Terminal::choose(
        process.raw.terminal,
        args.console_socket.as_deref(),
        args.detach,
    )?;
    if may_trace(process.capabilities) && !container.record.may_trace {
        // Before it exists: whoever enters after it knows.
        container.record.may_trace = true;
        container.save()?;
    }
    let mut namespaces = config.linux.namespaces.iter();
    let own_users = namespaces.any(|one| one.kind == NamespaceKind::User);
    // Root of a user namespace has no power over a process that was executed
    // outside of it.
    if container.record.may_trace && !own_users {
        container.unlock();
        sealed::ensure(&passed)?;
    }
    let below = args
        .cgroup
        .iter()
        .map(|text| text.parse().context("--cgroup"));
    let below: Vec<Below> = below.collect::<Result<_>>()?;
    let first = container.process().context(STOPPED)?;
    let launch = list::exec(
        &process,
        There {
            first: Pid::from_raw(first.pid),
            group: container.record.cgroup.clone(),
            below,
            terminal,
            passed,
            state: container.state(status)?,
            seccomp: match &config.linux.seccomp {
                Some(value) => Some(serde_json::to_string(value).context("linux.seccomp")?),
                None => None,
            },
            programs: store.programs(),
            personality: personality(&config)?,
            memory_policy: memory_policy(&config)?,
        },
    )
    .map_err(|error| explained(error, first))?;
    // The namespaces are open now: they are those of this process, and not of
    // another one with its PID.
    ensure!(first.is_alive(), STOPPED);
    // `delete` need not wait for the command's end.
    container.unlock();
    let launch = match args.detach {
        true => launch.outlive_launcher(),
        false => launch,
    };
    let running = launch.create().and_then(|created| {
        progress::flush();
        // It is in the group now, where `delete` finds it. If the container ends, so
        // has this process, and the container waits until it is reaped: whoever
        // waited for its end here would wait in vain, and take the process for one
        // that has been executed and killed.
        match first.is_running() {
            true => created.start(),
            false => Err(created.abandon(anyhow!(STOPPED))),
        }
    });
    let running = running.map_err(|error| explained(error, first))?;
    if !args.detach {
        if let Some(file) = &args.pid_file {
            write_file(file, running.pid().to_string()).context("--pid-file")?;
        }
        return running.wait();
    }
    if let Some(file) = &args.pid_file {
        write_file(file, running.pid().to_string()).context("--pid-file")?;
    }
    running.leave();
    Ok(Exit::Code(0))
}
