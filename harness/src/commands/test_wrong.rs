//! `harness test-wrong [NN]`: proves that every check can fail.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::guest::Machine;
use crate::outcome::Record;
use crate::registry::Step;
use crate::report::{progress, seconds};
use crate::runner::{self, Batch, Plan};
use crate::wrong::{self, Builder, Wrong};
use crate::{build, guest, workspace};

/// Arguments of `harness test-wrong`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,

    /// Only the wrong solutions whose name holds this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Check on this host, as root: some of them do harm, so only where that
    /// does not matter
    #[arg(long)]
    here: bool,

    /// Run only the checks that each must fail, and those that these need; all
    /// of the step's show that no other one fails as well, and take longer
    #[arg(long)]
    quick: bool,

    /// Print every record
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    machine: Machine,
}

/// Builds the wrong solutions, checks them all in one virtual machine and
/// compares what failed with what should have.
///
/// # Errors
/// The harness's own, and a wrong solution that does not fit our code.
pub fn test_wrong(args: Args) -> Result<ExitCode> {
    let numbers: Vec<String> = args.steps.iter().map(|n| format!("{n:0>2}")).collect();
    let wrongs: Vec<Wrong> = wrong::all()?
        .into_iter()
        .filter(|w| numbers.is_empty() || numbers.contains(&w.step))
        .filter(|w| {
            args.filter
                .as_ref()
                .is_none_or(|text| w.name.contains(text))
        })
        .collect();
    let started = Instant::now();
    let mut steps: Vec<String> = wrongs.iter().map(|w| w.step.clone()).collect();
    steps.sort();
    steps.dedup();
    progress("building the harness");
    build::programs(
        &steps
            .iter()
            .map(|n| format!("step-{n}"))
            .collect::<Vec<_>>(),
    )?;
    workspace::need_rootfs("busybox")?;
    let tests = build::tests(&steps)?;
    let builder = Builder::new()?;
    let mut batches = Vec::new();
    for (place, wrong) in wrongs.iter().enumerate() {
        progress(&format!(
            "building {} of {}: {}",
            place + 1,
            wrongs.len(),
            wrong.name
        ));
        let mut step = Step::read(&workspace::checks(), &wrong.step)?;
        if args.quick {
            step.keep(|check| wrong.fails.contains(&check.name));
        }
        let program = builder.build(wrong)?;
        batches.push(Batch {
            variant: Some(wrong.name.clone()),
            program: Some(program),
            tests: tests
                .get(&wrong.step)
                .with_context(|| format!("tests/step_{}.rs was not built", wrong.step))?
                .clone(),
            step,
        });
    }
    let building = started.elapsed();
    let seed = u64::from(std::process::id());
    let (records, timings) = if args.here {
        let started = Instant::now();
        let mut records = Vec::new();
        runner::run(
            &Plan {
                batches: batches.clone(),
                seed,
            },
            &mut |record| {
                records.push(record);
                Ok(())
            },
        )?;
        (records, format!("checks {}", seconds(started.elapsed())))
    } else {
        in_layouts(&wrongs, &batches, seed, &args.machine)?
    };
    if args.verbose {
        for record in &records {
            println!(
                "    {} · {} · {}: {} {}",
                record.variant.as_deref().unwrap_or_default(),
                record.check,
                record.outcome,
                record.message,
                record.host.join(" | ")
            );
        }
    }
    let (mut passed, mut named) = (0, 0);
    for (wrong, batch) in wrongs.iter().zip(&batches) {
        let of_this: Vec<Record> = records
            .iter()
            .filter(|r| r.variant.as_ref() == Some(&wrong.name))
            .cloned()
            .collect();
        named += usize::from(wrong.named(&batch.step, &of_this));
        match wrong.judge(&batch.step, &of_this) {
            Ok(()) => {
                passed += 1;
                println!("  ✓ {}: {}", wrong.name, wrong.title);
            }
            Err(complaint) => println!("  ✗ {}: {}\n      {complaint}", wrong.name, wrong.title),
        }
    }
    println!(
        "  took: build {}, {timings} · seed {}",
        seconds(building),
        seed
    );
    println!(
        "  wrong solutions found out and named: {named} of {}",
        wrongs.len()
    );
    println!("{passed} passed, {} failed", wrongs.len() - passed);
    Ok(ExitCode::from(u8::from(passed != wrongs.len())))
}

/// Runs the batches, each in a machine with the layout of cgroups that it asks
/// for, and says how long the slowest of each took.
fn in_layouts(
    wrongs: &[Wrong],
    batches: &[Batch],
    seed: u64,
    machine: &Machine,
) -> Result<(Vec<Record>, String)> {
    let mut layouts: Vec<_> = wrongs
        .iter()
        .map(|wrong| wrong.cgroup.unwrap_or(machine.cgroup))
        .collect();
    let of_each = layouts.clone();
    layouts.sort();
    layouts.dedup();
    let mut records = Vec::new();
    let mut timings = Vec::new();
    for layout in layouts {
        let some: Vec<Batch> = batches
            .iter()
            .zip(&of_each)
            .filter(|(_, of_this)| **of_this == layout)
            .map(|(batch, _)| batch.clone())
            .collect();
        let machine = Machine {
            cgroup: layout,
            ..machine.clone()
        };
        let (of_these, took) = in_machines(&some, seed, &machine)?;
        records.extend(of_these);
        timings.push(took);
    }
    Ok((records, timings.join(" | ")))
}

/// Runs the batches in as many virtual machines as there are processors, and
/// says how long the slowest took.
fn in_machines(batches: &[Batch], seed: u64, machine: &Machine) -> Result<(Vec<Record>, String)> {
    let machines = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(batches.len().max(1));
    let run = |first: usize| -> Result<(Vec<Record>, String)> {
        let plan = Plan {
            batches: batches
                .iter()
                .skip(first)
                .step_by(machines)
                .cloned()
                .collect(),
            seed,
        };
        let mut records = Vec::new();
        let timings = guest::run(&plan, machine, &mut |record, _| {
            progress(&format!(
                "{} · {}: {}",
                record.variant.as_deref().unwrap_or_default(),
                record.check,
                record.outcome
            ));
            records.push(record);
            Ok(())
        })?;
        Ok((records, timings))
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..machines)
            .map(|first| scope.spawn(move || run(first)))
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut records = Vec::new();
    let mut timings = Vec::new();
    for result in results {
        let (some, took) = result.map_err(|_| anyhow!("a thread panicked"))??;
        records.extend(some);
        timings.push(took);
    }
    Ok((records, timings.join(" | ")))
}
