//! `harness claims`: measures containers against virtual machines on this host.

use std::process::ExitCode;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use bench::claims as measured;
use bench::report::Results;
use bench::session::{Session, built};
use bench::{keep, place};

/// Arguments of `harness claims`.
#[derive(clap::Args)]
pub struct Args {}

/// Measures, prints the table, and writes it to `target/bench/claims`. Needs
/// root.
pub fn claims(_: Args) -> Result<ExitCode> {
    if !geteuid().is_root() {
        bail!("this starts containers with cgroups on this host: it needs root (sudo)");
    }
    built()?;
    let session = Session::begin(20)?;
    println!("{}", session.machine.line());
    if let Some(warning) = session.machine.warning() {
        println!("Warning: {warning}");
    }
    let report = measured::run(&session)?;
    let results = Results {
        machine: session.machine.clone(),
        reports: vec![report],
    };
    drop(session);
    for report in &results.reports {
        println!("\n{}", report.text());
    }
    for file in keep(&results, &place().join("claims"))? {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
