//! `probe`: looks at a container from inside, for the checks.
//!
//! A static program that runs as the container's command, prints what it sees
//! as JSON, and tries what it is told to try. It changes nothing by itself.

mod attempt;
mod fs;
mod network;
mod odd_caller;
mod other_user;
mod report;
mod resources;

use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Look at a container from inside
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print all that can be seen
    Report {
        /// Printed back
        args: Vec<String>,
    },
    /// Print the report, then answer questions (a JSON list of arguments a
    /// line) until standard input ends, or `exit` is one of them
    Hold {
        /// Printed back in the report
        args: Vec<String>,
    },
    /// Print all that keeps the command from the host
    Protections,
    /// Print the devices of the network, their addresses, and the way out
    Network,
    /// Answer everybody who asks at a port, by TCP and UDP, until standard input
    /// ends; prints its own IPv4 addresses when it begins
    Serve {
        /// The port
        port: u16,
        /// The answer, before the asker's address
        word: String,
    },
    /// Exit with this status
    Exit {
        /// 0 to 255
        status: u8,
    },
    /// Try something and print what came of it
    #[command(flatten)]
    Try(attempt::Attempts),
    /// Work on files
    #[command(flatten)]
    Files(fs::Files),
}

fn main() -> ExitCode {
    match run(Args::parse().what) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::from(99)
        }
    }
}

fn run(what: What) -> Result<ExitCode> {
    match what {
        What::Report { args } => print(&report::report(args)?)?,
        What::Hold { args } => return hold(args),
        What::Protections => print(&check::protections::look())?,
        What::Network => print(&network::look()?)?,
        What::Serve { port, word } => {
            let ready = || print(&attempt::allowed(network::look()?.addresses()));
            match network::serve(port, &word, ready) {
                Ok(()) => {}
                Err(error) => print(&attempt::refused(&error)?)?,
            }
        }
        What::Exit { status } => return Ok(ExitCode::from(status)),
        What::Try(attempts) => print(&attempts.run()?)?,
        What::Files(files) => files.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(value: &impl serde::Serialize) -> Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer(&mut out, value).context("write JSON")?;
    out.write_all(b"\n")
        .and_then(|()| out.flush())
        .context("write to standard output")
}

fn hold(args: Vec<String>) -> Result<ExitCode> {
    print(&report::report(args)?)?;
    for line in stdin().lock().lines() {
        let words: Vec<String> = serde_json::from_str(&line.context("read standard input")?)
            .context("parse the question")?;
        let args = Args::try_parse_from(std::iter::once("probe".to_owned()).chain(words))?;
        let ends = matches!(args.what, What::Exit { .. });
        let status = run(args.what)?;
        if ends {
            return Ok(status);
        }
    }
    Ok(ExitCode::SUCCESS)
}
