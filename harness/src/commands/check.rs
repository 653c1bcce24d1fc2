//! `harness check NN`: checks a learner's step.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use check::outcome::Record;
use check::registry::Step;
use check::report::{print_totals, progress, seconds};
use check::{build, workspace};
use course::exercise::progress::Change;
use course::exercise::work::Work;
use vm::checking::{self, Checking, Reader, Where};

/// Arguments of `harness check`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    #[command(flatten)]
    place: Where,

    /// Run only the checks whose name or title holds this text, and those that
    /// they need
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the checks of a step against the learner's crate in `work/`.
pub fn check(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    let records = run(
        &number,
        &args.place,
        args.filter.as_deref(),
        Reader::Learner,
    )?;
    let bad = records.iter().any(Record::is_open);
    if args.filter.is_none() {
        match bad {
            false if workspace::is_handed_out() => println!("All of step {number}."),
            false => {
                println!("All of step {number}. Ours for comparison: ./just solution {number}")
            }
            true => println!("What to look at next: ./just hint {number}"),
        }
    }
    Ok(ExitCode::from(u8::from(bad)))
}

/// Builds the learner's step, checks it, prints the report for this reader and
/// records the progress.
pub fn run(
    number: &str,
    place: &Where,
    filter: Option<&str>,
    reader: Reader,
) -> Result<Vec<Record>> {
    place.require_root()?;
    let started = Instant::now();
    let work = Work::here();
    work.started(number)?;
    let mut step = Step::read(&workspace::checks(), number)?;
    if let Some(text) = filter {
        step.matching(text);
        if step.checks.is_empty() {
            bail!("no check of step {number} holds {text:?} in its name or title");
        }
    }
    let mut achieved = work.progress()?;
    let step_progress = achieved.steps.entry(number.to_owned()).or_default();
    work.lay_out(number, step_progress.on_mine)?;
    progress(match workspace::bin().join("probe").exists() {
        true => "building",
        false => "building your step and its checks, which takes some minutes the first time",
    });
    let program = work.build(number)?;
    // The probe, and the steps that some checks run for comparison.
    build::programs(&[])?;
    let tests = build::tests(&[number.to_owned()])?;
    workspace::need_rootfs("busybox")?;
    let building = started.elapsed();
    let seed = checking::any_seed();
    // The learner waits for the check that failed last time.
    let mut in_turn = step.clone();
    if let Some(failed) = step_progress.open.first() {
        in_turn.first(failed);
    }
    let (records, timings) = checking::run(&Checking {
        steps: std::slice::from_ref(&in_turn),
        program: Some(program),
        tests: &tests,
        place,
        seed,
        reader,
    })?;
    if reader != Reader::Caller {
        println!(
            "  took: build {}, {timings} · seed {seed}",
            seconds(building)
        );
        print_totals(&records);
    }
    if filter.is_none() {
        let change = step_progress.take(&step, &records);
        work.note(&achieved)?;
        if let (Some(change), true) = (change, reader != Reader::Caller) {
            print_change(&step, &change);
        }
    }
    Ok(records)
}

/// Prints what has changed since the last run; nothing if nothing has.
fn print_change(step: &Step, change: &Change) {
    for (what, checks) in [
        ("now passes", &change.mended),
        ("broken since", &change.broken),
    ] {
        for check in checks {
            let title = step.entry(check).map_or(check, |entry| &entry.title);
            println!("  {what}: {title}");
        }
    }
}
