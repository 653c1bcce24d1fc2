//! The namespaces of a process beside those of the caller, as a table.

use std::io::{Write, stdout};
use std::iter;

use anyhow::{Context, Result};
use clap::Args;
use kit::sys;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use process::Exit;

use crate::namespaces::{self, Membership, Process};

/// The arguments of `step-01 namespaces`.
#[derive(Args, Clone, Debug)]
pub struct NamespacesArgs {
    /// Process to compare with the caller [default: list the caller only]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
}

/// Prints the table on standard output.
pub fn print(args: NamespacesArgs) -> Result<Exit> {
    // SIGPIPE ends this program quietly when a reader such as `head` closes the
    // pipe.
    sys::signals::default_action(Signal::SIGPIPE)?;
    let caller = namespaces::of(Process::Caller)?;
    let table = match args.pid.map(|pid| Process::Other(Pid::from_raw(pid))) {
        None => alone(&caller),
        Some(process) => side_by_side(process, &namespaces::of(process)?, &caller),
    };
    stdout()
        .write_all(table.as_bytes())
        .context("write to standard output")?;
    Ok(Exit::Code(0))
}

fn alone(caller: &[Membership]) -> String {
    let line = |kind: &str, own: &str, owner: &str| format!("{kind:<7} {own:<11} {owner}\n");
    let header = line("kind", "caller", "owner");
    let rows = caller
        .iter()
        .map(|own| line(own.kind, &id(own.id), &id(own.owner)));
    iter::once(header).chain(rows).collect()
}

fn side_by_side(process: Process, theirs: &[Membership], caller: &[Membership]) -> String {
    let line = |kind: &str, their: &str, own: &str, relation: &str, owner: &str| {
        format!("{kind:<7} {their:<11} {own:<11} {relation:<8} {owner}\n")
    };
    let header = line("kind", &process.to_string(), "caller", "", "owner");
    let rows = theirs.iter().zip(caller).map(|(their, own)| {
        let relation = if their.id == own.id {
            "same"
        } else {
            "differs"
        };
        line(
            their.kind,
            &id(their.id),
            &id(own.id),
            relation,
            &id(their.owner),
        )
    });
    iter::once(header).chain(rows).collect()
}

fn id(inode: Option<u64>) -> String {
    inode.map_or("-".to_owned(), |inode| inode.to_string())
}
