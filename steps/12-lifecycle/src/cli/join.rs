//! `exec` and `attach`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgAction, Args, Subcommand};
use engine::cli::container::Processes;
use engine::cli::places::Places;
use engine::command::environment::further;
use engine::container::{Record, Records};
use process::{Exit, Failure};
use runtime::further::ensure_sealed;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use user::UserSpec;

use crate::cli::run::AttachArgs;
use crate::cli::{is_paused, require_running, swept};
use crate::client::{Attach, attach, keys};
use crate::exec::{Further, exec};
use crate::protocol::connect;
use crate::settings::Stay;

/// The commands that join a container.
#[derive(Subcommand)]
pub enum Tool {
    /// Execute a command in a running container
    Exec(Box<Exec>),
    /// Attach standard input, output and error to a running container
    Attach {
        /// Do not attach standard input
        #[arg(long)]
        no_stdin: bool,
        /// Keys and signals.
        #[command(flatten)]
        how: AttachArgs,
        /// Name or ID of the container
        container: String,
    },
}

/// The options of `exec`.
#[derive(Args)]
#[command(override_usage = "drydock exec [OPTIONS] CONTAINER COMMAND [ARG]...")]
pub struct Exec {
    /// Run the command in the background
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable; without =VALUE, to the caller's value.
    /// Repeatable
    #[arg(short, long, value_name = "NAME[=VALUE]", action = ArgAction::Append)]
    env: Vec<OsString>,
    /// Read environment variables from a file, one per line. Repeatable
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep STDIN open; without this option it is empty
    #[arg(short, long)]
    interactive: bool,
    /// Give the command all capabilities, and no filter
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// User and group of the command [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Working directory inside the container, which must exist [default: the
    /// container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Name or ID of the container; then the command and its arguments
    #[arg(
        value_name = "CONTAINER COMMAND [ARG]",
        required = true,
        trailing_var_arg = true,
        num_args = 2..
    )]
    container_and_command: Vec<OsString>,
}

/// Runs one of the commands.
pub fn run(places: &Places, tool: Tool) -> Result<Exit> {
    match tool {
        Tool::Exec(args) => execute(places, *args),
        Tool::Attach {
            no_stdin,
            how,
            container,
        } => {
            let records = swept(places)?;
            let record = found(&records, &container)?;
            join(&records, &record, no_stdin, &how)
        }
    }
}

/// The running container of that name. Errors have the exit status 1.
fn found(records: &Records, name: &str) -> Result<Record> {
    let one = |error: anyhow::Error| Failure::new(1, format!("{error:#}"));
    let record = records.find(name).map_err(one)?;
    require_running(&record).map_err(one)?;
    if is_paused(&record) {
        let name = &record.spec.name;
        return Err(one(anyhow::anyhow!(
            "container {name} is paused, unpause the container first: drydock unpause {name}"
        ))
        .into());
    }
    Ok(record)
}

fn execute(places: &Places, args: Exec) -> Result<Exit> {
    let (container, command) = args
        .container_and_command
        .split_first()
        .context("no container")?;
    let container = container.to_str().context("no such container")?;
    // No sweep: it would cost more than the rest.
    let record = found(&Records::new(places), container)?;
    let mut stay = Stay::of(&record)?;
    if args.privileged && !stay.may_trace {
        // Before it exists: whoever enters after it knows.
        Records::new(places).change(&record.spec.id, &mut |record| {
            stay.may_trace = true;
            if let Err(error) = stay.put(record) {
                kit::warn!("{error:#}");
            }
        })?;
    }
    if stay.may_trace || record.spec.harden.may_trace() {
        ensure_sealed(&[])?;
    }
    if args.detach {
        let null = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context("open /dev/null")?;
        ensure!(
            !args.interactive || !args.tty,
            "-d with -it: a command in the background has no terminal of yours"
        );
        dup2_stdin(&null).context("dup2(/dev/null, 0)")?;
        dup2_stdout(&null).context("dup2(/dev/null, 1)")?;
    }
    let launch = exec(
        &record,
        places.root.join("seccomp"),
        Further {
            command: command.to_vec(),
            env: further(&record.spec.env, &args.env, &args.env_file)?,
            user: args.user,
            workdir: args.workdir,
            interactive: args.interactive && !args.detach,
            tty: args.tty && !args.detach,
            privileged: args.privileged,
        },
    )?;
    if !args.detach {
        return launch.run();
    }
    let stderr = rustix::stdio::stderr()
        .try_clone_to_owned()
        .context("dup")?;
    let null = fs::File::options()
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    dup2_stderr(&null).context("dup2(/dev/null, 2)")?;
    let started = launch
        .outlive_launcher()
        .create()
        .and_then(process::Created::start);
    dup2_stderr(&stderr).context("dup2(2)")?;
    started?.leave();
    Ok(Exit::Code(0))
}

fn join(records: &Records, record: &Record, no_stdin: bool, how: &AttachArgs) -> Result<Exit> {
    let input = !no_stdin && record.spec.interactive;
    let directory = records.directory(&record.spec.id);
    let Some(stream) = connect(&directory)? else {
        bail!(
            "{} runs in somebody's foreground: its streams are theirs",
            record.spec.name
        );
    };
    let how = Attach {
        input,
        terminal: record.spec.tty,
        detach_keys: keys(&how.detach_keys)?,
        proxy: !how.no_proxy && !record.spec.tty,
    };
    let end = attach(
        stream,
        &how,
        &mut |signal| match Processes::of(records, record)? {
            Some(processes) => processes.send(signal),
            None => Ok(()),
        },
    )?;
    end.exit()
}
