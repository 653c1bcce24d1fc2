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

use std::process::ExitCode;

use anyhow::{Error, Result};
use clap::Parser;
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = !error.use_stderr();
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

fn complain(error: &Error) {
    kit::errln!("drydock-runtime: {}", printable(&format!("{error:#}")));
}

fn dispatch(cli: Cli) -> Result<u8> {
    let Cli { globals, command } = cli;
    if globals.version {
        line(&format!(
            "drydock-runtime version {}\nspec: {VERSION}",
            env!("CARGO_PKG_VERSION")
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
            use clap::CommandFactory;
            line(&Cli::command().render_help().to_string())?;
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
    }
    Ok(0)
}
