//! The commands by which this program executes itself: `monitor`, `further` and
//! `probe`.
//!
//! Whatever builds the command line of all other commands takes a megabyte, and
//! a monitor would keep it as long as its container lives. So these are
//! recognised by the words of [`again`](crate::cli::run::again), and have a
//! command line of their own. They do not read the configuration file: a
//! container has what that said when it was made.

use std::env::args_os;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use engine::cli::places::PlacesArgs;

use crate::cli::{begin, join, run};

/// The program, as it executes itself.
#[derive(Parser)]
#[command(name = "drydock", disable_help_flag = true)]
struct Internal {
    #[command(flatten)]
    places: PlacesArgs,
    #[command(subcommand)]
    command: Own,
}

#[derive(Subcommand)]
#[command(disable_help_subcommand = true)]
enum Own {
    Monitor(run::Monitor),
    Further {
        id: String,
        #[arg(long)]
        spec: i32,
        #[arg(long)]
        caller: i32,
    },
    Probe(Box<join::Exec>),
}

/// Runs the command if it is one of these; `None` for those of people.
pub fn run() -> Option<ExitCode> {
    let words: Vec<OsString> = args_os().take(7).collect();
    is_own(&words).then(|| {
        pid::main(|internal: Internal| {
            let places = begin(internal.places)?;
            match internal.command {
                Own::Monitor(args) => run::monitor(&places, &args),
                Own::Further { id, spec, caller } => join::stay_with(&places, &id, spec, caller),
                Own::Probe(args) => join::execute(&places, *args),
            }
        })
    })
}

fn is_own(words: &[OsString]) -> bool {
    let word = |index: usize| words.get(index).and_then(|word| word.to_str());
    let command = match word(5) {
        Some("--verbose") => word(6),
        other => other,
    };
    word(1) == Some("--root")
        && word(3) == Some("--state")
        && matches!(command, Some("monitor" | "further" | "probe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_people_are_not_its_own() {
        let own = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            is_own(&words)
        };
        assert!(own("drydock --root R --state S monitor ID"));
        assert!(own("drydock --root R --state S --verbose further ID"));
        assert!(own("drydock --root R --state S probe ID true"));
        assert!(!own("drydock run box monitor"));
        assert!(!own("drydock --root R --state S run monitor"));
        assert!(!own("drydock --root R ps"));
        assert!(!own("drydock"));
    }
}
