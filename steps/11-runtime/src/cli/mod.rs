//! The commands.

mod args;
mod create;
mod ended;
mod exec;
mod explain;
mod log;
mod look;
mod signal;
mod spec;
mod update;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Error, Result, bail};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};
use kit::say::printable;
use kit::sys::close_others_on_exec;
use kit::sys::signals::default_action;
use nix::sys::signal::Signal;

use crate::config::VERSION;
use crate::config::read::line;
use args::{Cli, Verb};
use log::Log;

/// The exit status of every failure but that of `exec`.
const FAILED: u8 = 1;
/// The exit status of an `exec` that has not executed anything: runc's.
const EXEC_FAILED: u8 = 255;

/// The program.
pub(crate) fn main() -> ExitCode {
    let cli = match parsed() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = !error.use_stderr();
            if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) {
                // runc's words.
                kit::errln!("No help topic for '{}'", printable(word));
            }
            // If printing fails, only the exit status can report it.
            return match error.print() {
                Ok(()) if asked_for => ExitCode::SUCCESS,
                _ => ExitCode::from(FAILED),
            };
        }
    };
    let log = match Log::open(cli.globals.log.clone(), cli.globals.log_format) {
        Ok(log) => log,
        Err(error) => {
            complain(&error);
            return ExitCode::from(FAILED);
        }
    };
    kit::set_verbose(cli.globals.debug);
    let failed = match &cli.command {
        Some(Verb::Exec(_)) => EXEC_FAILED,
        _ => FAILED,
    };
    match dispatch(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            if let Err(more) = log.write("error", &format!("{error:#}")) {
                complain(&more);
            }
            complain(&error);
            ExitCode::from(failed)
        }
    }
}

/// The command line with which the program was called. Its help has runc's form.
fn parsed() -> Result<Cli, clap::Error> {
    let command = described().mut_subcommands(|verb| {
        let name = format!("{} {}", name(), verb.get_name());
        verb.display_name(name).help_template(HELP)
    });
    Cli::from_arg_matches(&command.try_get_matches()?)
}

fn described() -> clap::Command {
    Cli::command().display_name(name()).help_template(HELP)
}

const HELP: &str = "NAME:\n   {name} - {about-with-newline}\n{usage-heading} {usage}\n\n{all-args}";

/// The name by which the program was called: an engine that calls it in runc's
/// place reads the name of the runtime it knows.
fn name() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().and_then(OsStr::to_str);
    name.unwrap_or("drydock-runtime").to_owned()
}

fn complain(error: &Error) {
    kit::errln!("drydock-runtime: {}", printable(&format!("{error:#}")));
}

fn dispatch(cli: Cli) -> Result<u8> {
    let Cli { globals, command } = cli;
    if globals.version {
        // dockerd reads the first two lines, and podman shows them all.
        let own = env!("CARGO_PKG_VERSION");
        line(&format!(
            "{} version {own}\ncommit: {own}\nspec: {VERSION}",
            printable(&name())
        ))?;
        return Ok(0);
    }
    // The caller may ignore SIGCHLD: children would then leave no status to
    // wait for (wait(2)).
    default_action(Signal::SIGCHLD)?;
    close_others_on_exec()?;
    let globals = &globals;
    match command {
        None => {
            line(&described().bin_name(name()).render_help().to_string())?;
            return Ok(FAILED);
        }
        Some(Verb::Create(args)) => create::create(globals, &args)?,
        Some(Verb::Start { id }) => create::start(globals, &id)?,
        Some(Verb::Run(args)) => return Ok(create::run(globals, &args)?.status()),
        Some(Verb::State { id }) => look::state(globals, &id)?,
        Some(Verb::Kill(args)) => signal::kill_container(globals, &args)?,
        Some(Verb::Delete(args)) => signal::delete(globals, &args)?,
        Some(Verb::Exec(args)) => return Ok(exec::exec(globals, &args)?.status()),
        Some(Verb::Ps(args)) => look::ps(globals, &args)?,
        Some(Verb::List(args)) => look::list(globals, &args)?,
        Some(Verb::Pause { id }) => signal::pause(globals, &id, true)?,
        Some(Verb::Resume { id }) => signal::pause(globals, &id, false)?,
        Some(Verb::Update(args)) => update::update(globals, &args)?,
        Some(Verb::Events(args)) => look::events(globals, &args)?,
        Some(Verb::Spec(args)) => spec::spec(&args)?,
        Some(Verb::Features) => spec::features()?,
        Some(Verb::Explain(args)) => explain::explain(&args)?,
        Some(Verb::Checkpoint(_) | Verb::Restore(_)) => {
            bail!("checkpoint and restore are not supported: this runtime does not call CRIU")
        }
    }
    Ok(0)
}
