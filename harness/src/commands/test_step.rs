//! `harness test-step NN`: builds a step, checks it, prints the report.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use check::outcome::Outcome;
use check::registry::{self, Step};
use check::report::{print_totals, progress, seconds};
use check::{build, workspace};
use vm::checking::{self, Checking, Reader, Where};
use vm::repeat;

/// Arguments of `harness test-step`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,

    #[command(flatten)]
    place: Where,

    /// Run only the checks whose name or title holds this text, and those that
    /// they need
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Also write the results to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Seed of the names and numbers that the checks draw
    #[arg(long)]
    seed: Option<u64>,

    /// Run every check so many times, in another order each time, and print a
    /// table of what failed
    #[arg(long, value_name = "N")]
    times: Option<usize>,
}

/// Runs the checks. The exit status is 1 if one fails.
pub fn test_step(args: Args) -> Result<ExitCode> {
    let steps = select(&args)?;
    args.place.require_root()?;
    let started = Instant::now();
    progress("building");
    let numbers: Vec<String> = steps.iter().map(|step| step.step.clone()).collect();
    build::programs(&numbers)?;
    let tests = build::tests(&numbers)?;
    workspace::need_rootfs("busybox")?;
    let building = started.elapsed();
    let seed = args.seed.unwrap_or_else(checking::any_seed);
    let checking = Checking {
        steps: &steps,
        program: None,
        tests: &tests,
        place: &args.place,
        seed,
        reader: Reader::Developer,
    };
    let (records, timings) = match args.times {
        Some(times) => (repeat::run(&checking, times)?, format!("{times} rounds")),
        None => checking::run(&checking)?,
    };
    println!(
        "  took: build {}, {timings} · seed {seed}",
        seconds(building)
    );
    if let Some(file) = &args.json {
        let json = serde_json::to_vec_pretty(&records).context("write the results as JSON")?;
        fs::write(file, json).with_context(|| format!("write {}", file.display()))?;
    }
    print_totals(&records);
    let bad = records
        .iter()
        .any(|r| !matches!(r.outcome, Outcome::Pass | Outcome::Unsupported));
    Ok(ExitCode::from(u8::from(bad)))
}

/// The selected steps, with the checks that the filter keeps.
fn select(args: &Args) -> Result<Vec<Step>> {
    let dir = workspace::checks();
    let known = registry::numbers(&dir)?;
    let wanted = if args.steps.is_empty() {
        known.clone()
    } else {
        args.steps.iter().map(|n| format!("{n:0>2}")).collect()
    };
    let mut steps = Vec::new();
    for number in wanted {
        if !known.contains(&number) {
            bail!(
                "there is no step {number} with checks: there are {}",
                known.join(", ")
            );
        }
        let mut step = Step::read(&dir, &number)?;
        if let Some(text) = &args.filter {
            step.matching(text);
            if step.checks.is_empty() {
                continue;
            }
        }
        steps.push(step);
    }
    if steps.is_empty() {
        bail!(
            "no check holds {:?} in its name or title",
            args.filter.as_deref().unwrap_or_default()
        );
    }
    Ok(steps)
}
