//! `harness bench`: measures containers, compared with others.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::ValueEnum;
use nix::unistd::geteuid;

use bench::report::Results;
use bench::session::{Session, built};
use bench::{
    Bench, build as builds, claims, density, images, keep, native, place, pull, recorded, runtime,
    start, stay, tools, whereto,
};
use check::report::progress;

/// Arguments of `harness bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Benchmarks to run [default: all]
    #[arg(value_enum)]
    names: Vec<Bench>,

    /// First install missing packages by apt-get
    #[arg(long)]
    install: bool,

    /// Number of measurements of each start; longer work is measured less often in
    /// proportion
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..))]
    runs: u32,

    /// Numbers of containers for `density`
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "100,300,1000"
    )]
    containers: Vec<usize>,

    /// Write the results to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Measure all, and the claims, for the chapter of the book
    #[arg(long, conflicts_with = "names")]
    record: bool,
}

/// Measures, prints, and writes results and charts to `target/bench`. Needs
/// root.
pub fn bench(args: Args) -> Result<ExitCode> {
    if !geteuid().is_root() {
        bail!("this measures on this host, with cgroups and overlays: it needs root (sudo)");
    }
    if args.install {
        tools::install()?;
    }
    for tool in tools::missing(&std::env::var_os("PATH").unwrap_or_default()) {
        println!("{} is {}", tool.program, tool.missing());
    }
    built()?;
    let session = Session::begin(args.runs)?;
    println!("{}", session.machine.line());
    if let Some(warning) = session.machine.warning() {
        println!("Warning: {warning}");
    }
    let names = match args.names.as_slice() {
        [] => Bench::value_variants(),
        names => names,
    };
    let mut results = Results {
        machine: session.machine.clone(),
        reports: Vec::new(),
    };
    for name in names {
        progress(&format!("{name:?}").to_lowercase());
        let report = match name {
            Bench::Start => start::run(&session),
            Bench::Where => whereto::run(&session),
            Bench::Runtime => runtime::run(&session),
            Bench::Stay => stay::run(&session),
            Bench::Density => density::run(&session, &args.containers),
            Bench::Native => native::run(&session),
            Bench::Images => images::run(&session),
            Bench::Pull => pull::run(&session),
            Bench::Build => builds::run(&session),
        }?;
        println!("\n{}", report.text());
        results.reports.push(report);
    }
    if args.record {
        progress("claims");
        let report = claims::run(&session)?;
        println!("\n{}", report.text());
        results.reports.push(report);
    }
    drop(session);
    for file in keep(&results, &place())? {
        println!("{}", file.display());
    }
    if let Some(file) = &args.json {
        results.write(file)?;
    }
    if args.record {
        results.write(&recorded())?;
        println!("{}", recorded().display());
    }
    Ok(ExitCode::SUCCESS)
}
