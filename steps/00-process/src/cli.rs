//! The command line that the programs of all steps share: arguments, `-v` and
//! exit status.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser};
use nix::sys::signal::Signal;

use crate::exec::Command;
use crate::exit::Exit;
use crate::failure::{Failure, LAUNCHER_FAILED};
use kit::sys::leave_real_time;
use kit::sys::signals::default_action;

/// The arguments of every step: the command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process (step 00)")]
pub struct CommandArgs {
    /// Print each step of the launch on standard error
    #[arg(short, long, global = true)]
    pub verbose: bool,

    /// Command to run, and its arguments
    #[arg(value_name = "COMMAND", default_value = "sh", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

impl CommandArgs {
    /// Returns the command with the caller's environment. Turns on
    /// [`say!`](kit::say!) if `-v` was given.
    pub fn command(self) -> Command {
        kit::set_verbose(self.verbose);
        Command::new(self.command)
    }
}

/// The `main` function of every step: parses the arguments, calls `run`, and
/// returns an exit status like Docker's: that of the command, 128 + N if signal
/// N ended it, or 125, 126 or 127 with one line on standard error.
pub fn main<A: Parser>(run: impl FnOnce(A) -> Result<Exit>) -> ExitCode {
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let asked_for = !error.use_stderr();
            // If printing fails, only the exit status can report it.
            return match error.print() {
                Ok(()) if asked_for => ExitCode::SUCCESS,
                _ => ExitCode::from(LAUNCHER_FAILED),
            };
        }
    };
    // The caller may ignore SIGCHLD: children would then leave no status to
    // wait for (wait(2)).
    let children = default_action(Signal::SIGCHLD);
    // Before the first fork: a process under SCHED_DEADLINE may not fork, and a
    // control group of version 1 takes no real-time process.
    let ready = children.and_then(|()| leave_real_time());
    match ready.and_then(|()| run(args)) {
        Ok(exit) => ExitCode::from(exit.status()),
        Err(error) if kit::say::is_unread(&error) => {
            ExitCode::from(Exit::Signal(Signal::SIGPIPE as i32).status())
        }
        Err(error) => {
            kit::errln!("{}: {}", A::command().get_name(), one_line(&error));
            ExitCode::from(Failure::status_of(&error))
        }
    }
}

/// Formats the chain of an error as one line. Escapes the control characters
/// that a file name or an archive may contain: the terminal would obey them.
fn one_line(error: &anyhow::Error) -> String {
    kit::say::printable(&format!("{error:#}"))
}

/// Returns the last part of every step's `--help`: the examples, one per line,
/// the exit statuses, and the man pages to read.
pub fn after_help(examples: &str, see_also: &str) -> String {
    let examples = examples.trim_matches('\n');
    format!("Examples:\n{examples}\n\n{EXIT_STATUS}\n\nSee also:\n  {see_also}")
}

/// The exit statuses in every step's `--help`.
pub const EXIT_STATUS: &str = "\
Exit status:
  0 to 124   that of the command
  125        the launcher itself failed; a line on standard error says why
  126        the command exists, but cannot be executed
  127        there is no such command
  128 + N    the command was ended by signal N";
