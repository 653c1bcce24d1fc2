//! `exec` and `attach`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgAction, Args, Subcommand};
use engine::cli::container::Processes;
use engine::cli::places::Places;
use engine::command::environment::{further, with_hostname};
use engine::container::{Record, Records};
use process::{Exit, Failure};
use runtime::further::ensure_sealed;
use rustix::fs::{MemfdFlags, memfd_create};
use user::UserSpec;

use crate::cli::run::AttachArgs;
use crate::cli::{is_paused, require_running, swept};
use crate::client::{Attach, ask, attach, keys};
use crate::events::tell;
use crate::exec::{Further, exec, hostname};
use crate::monitor::detach::again;
use crate::monitor::detach::{Caller, Passed, detach, null};
use crate::protocol::connect;
use crate::settings::Stay;
use kit::sys::{close_others_on_exec, inherited};
use nix::sys::prctl;
use rustix::stdio::dup2_stderr;

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
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
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
            join(places, &records, &record, no_stdin, &how)
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

pub(super) fn execute(places: &Places, args: Exec) -> Result<Exit> {
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
    let of_container = with_hostname(record.spec.env.clone(), &hostname(&record)?);
    let further = Further {
        command: command.to_vec(),
        env: further(&of_container, &args.env, &args.env_file)?,
        user: args.user,
        workdir: args.workdir,
        interactive: args.interactive && !args.detach,
        tty: args.tty && !args.detach,
        privileged: args.privileged,
    };
    if !args.detach {
        let told = Told::new(places, &record, &further.command)?;
        return told.end(exec(&record, programs(places), further)?.run());
    }
    ensure!(
        !args.interactive || !args.tty,
        "-d with -it: a command in the background has no terminal of yours"
    );
    // In a file without a name: a command line can be read by everybody.
    let spec = memory(&serde_json::to_vec(&further).context("write JSON")?)?;
    let mut words = again(places);
    words.extend(["further".into(), record.spec.id.clone().into()]);
    let passed = Passed {
        option: "--spec",
        fd: spec.as_fd(),
    };
    detach(&words, &[passed])?;
    Ok(Exit::Code(0))
}

fn programs(places: &Places) -> PathBuf {
    places.root.join("seccomp")
}

/// A file in memory with this content, to be read from its beginning.
fn memory(content: &[u8]) -> Result<File> {
    let file = memfd_create("further", MemfdFlags::CLOEXEC).context("memfd_create")?;
    let mut file = File::from(file);
    file.write_all(content).context("write to a memfd")?;
    file.rewind().context("lseek(a memfd)")?;
    Ok(file)
}

/// Starts a further process and waits for its end. The process has a parent that
/// reaps it: as long as it is a zombie, the container's first process cannot end
/// (pid_namespaces(7)), and not every subreaper reaps.
pub(super) fn stay_with(places: &Places, id: &str, spec: i32, caller: i32) -> Result<Exit> {
    let mut caller = Caller::of(inherited(caller)?);
    let spec = File::from(inherited(spec)?);
    close_others_on_exec()?;
    // The process would inherit it. Errors go to the caller.
    dup2_stderr(null()?).context("dup2(/dev/null, 2)")?;
    prctl::set_name(c"drydock").context("prctl(PR_SET_NAME)")?;
    let mut run = || {
        let further: Further =
            serde_json::from_reader(&spec).context("what the process is to be")?;
        let record = Records::new(places).find(id)?;
        let told = Told::new(places, &record, &further.command)?;
        let run = || {
            let running = exec(&record, programs(places), further)?
                .create()?
                .start()?;
            caller.started(id, &record.spec.name)?;
            running.wait()
        };
        told.end(run())
    };
    match run() {
        Ok(exit) => Ok(exit),
        Err(error) => {
            // The caller prints it.
            caller.failed(&error);
            Ok(Exit::Code(Failure::status_of(&error)))
        }
    }
}

/// A further process of which everybody may know.
struct Told<'a> {
    places: &'a Places,
    record: &'a Record,
    id: String,
}

impl<'a> Told<'a> {
    fn new(places: &'a Places, record: &'a Record, command: &[OsString]) -> Result<Self> {
        let told = Told {
            places,
            record,
            id: kit::random::hex::<32>()?,
        };
        // Docker's words: the program, a blank, its arguments.
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        let (program, arguments) = words.split_first().context("no command")?;
        let command = format!("{program} {}", arguments.join(" "));
        for action in ["exec_create", "exec_start"] {
            let action = format!("{action}: {command}");
            tell(places, record, &action, &[("execID", &told.id)]);
        }
        Ok(told)
    }

    /// Tells of its end, and returns that.
    fn end(self, end: Result<Exit>) -> Result<Exit> {
        let status = match &end {
            Ok(exit) => exit.status(),
            Err(error) => Failure::status_of(error),
        };
        let status = status.to_string();
        let more = [("execID", &*self.id), ("exitCode", &*status)];
        tell(self.places, self.record, "exec_die", &more);
        end
    }
}

fn join(
    places: &Places,
    records: &Records,
    record: &Record,
    no_stdin: bool,
    how: &AttachArgs,
) -> Result<Exit> {
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
    ask(&stream, &how)?;
    tell(places, record, "attach", &[]);
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
