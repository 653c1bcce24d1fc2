//! `harness test-exercises [NN]`: proves that no skeleton gains a point.

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::exercise::skeleton;
use crate::exercise::work::Work;
use crate::guest::{self, Machine};
use crate::outcome::{Outcome, Record};
use crate::registry::{self, Step};
use crate::report::{progress, seconds};
use crate::runner::{Batch, Plan};
use crate::{build, workspace};

/// Arguments of `harness test-exercises`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,
}

/// Builds the skeletons, checks them all in one virtual machine, and says which
/// checks passed all the same.
///
/// # Errors
/// The harness's own, and a skeleton that does not compile.
pub fn test_exercises(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    let mut numbers: Vec<String> = args.steps.iter().map(|n| format!("{n:0>2}")).collect();
    if numbers.is_empty() {
        numbers = registry::numbers(&workspace::checks())?;
    }
    build::programs(&[])?;
    workspace::need_rootfs("busybox")?;
    let tests = build::tests(&numbers)?;
    let dir = workspace::root().join("target/skeletons");
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", dir.display()));
        }
        _ => {}
    }
    let work = Work::at(&dir);
    let mut batches = Vec::new();
    for number in &numbers {
        progress(&format!("building the skeleton of step {number}"));
        work.start(number)?;
        work.lay_out(number, false)?;
        let places = skeleton::places(&skeleton::step_dir(number)?)?;
        for exercise in skeleton::exercises(number)?.all {
            if !places.iter().any(|place| place.exercise == exercise.name) {
                bail!("exercise {} of step {number} has no region", exercise.name);
            }
        }
        batches.push(Batch {
            variant: None,
            program: Some(work.build(number)?),
            tests: tests
                .get(number)
                .with_context(|| format!("tests/step_{number}.rs was not built"))?
                .clone(),
            step: Step::read(&workspace::checks(), number)?,
        });
    }
    let plan = Plan {
        batches,
        seed: u64::from(std::process::id()),
        untrusted: false,
    };
    let mut records: Vec<Record> = Vec::new();
    guest::run_side_by_side(&plan, &Machine::default(), &mut |record, _| {
        progress(&format!(
            "{} · {}: {}",
            record.step, record.check, record.outcome
        ));
        records.push(record);
        Ok(())
    })?;
    let (mut good, mut bad) = (0, 0);
    for batch in &plan.batches {
        let of_this = records.iter().filter(|r| r.step == batch.step.step);
        let given: Vec<&Record> = of_this
            .filter(|r| matches!(r.outcome, Outcome::Pass | Outcome::Error))
            .collect();
        match given.is_empty() {
            true => {
                good += 1;
                println!(
                    "  ✓ the skeleton of step {} gains no point",
                    batch.step.step
                );
            }
            false => {
                bad += 1;
                println!("  ✗ the skeleton of step {}:", batch.step.step);
                for record in given {
                    println!(
                        "      {}: {} {}",
                        record.check, record.outcome, record.message
                    );
                }
            }
        }
    }
    println!("  took: {}", seconds(started.elapsed()));
    println!("{good} passed, {bad} failed");
    Ok(ExitCode::from(u8::from(bad != 0)))
}
