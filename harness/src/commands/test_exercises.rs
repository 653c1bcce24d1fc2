//! `harness test-exercises [NN]`: proves that no skeleton gains a point, and
//! that a learner can get from it to the end.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use check::build::Tests;
use check::outcome::{Outcome, Record};
use check::plan::{Batch, Plan};
use check::registry::{self, Step};
use check::report::{progress, seconds};
use check::share::Share;
use check::{build, workspace};
use course::exercise::skeleton::{self, Solutions};
use course::exercise::work::{WORK, Work};
use vm::guest::{self, Machine};
use vm::pool;

/// Arguments of `harness test-exercises`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,

    /// Go the whole way of a learner instead, in a directory of its own: start,
    /// check, solution, with our solution as what the learner has written
    #[arg(long)]
    learn: bool,

    /// Only the K-th of every N skeletons: 2/3
    #[arg(long, value_name = "K/N", conflicts_with = "learn")]
    share: Option<Share>,
}

/// Builds the skeletons and reports the checks that pass nevertheless. While
/// virtual machines check the first skeletons, the next are built.
pub fn test_exercises(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    let mut numbers: Vec<String> = args.steps.iter().map(|n| format!("{n:0>2}")).collect();
    if numbers.is_empty() {
        numbers = registry::numbers(&workspace::checks())?;
    }
    if args.learn {
        return learn(&numbers, started);
    }
    if let Some(share) = args.share {
        share.keep(&mut numbers);
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
    let seed = u64::from(std::process::id());
    let machines = std::thread::available_parallelism().map_or(1, usize::from);
    let mut steps = Vec::new();
    let records = Mutex::new(Vec::new());
    // Earlier skeletons are checked while the next are built.
    pool::feed(
        machines,
        |batch| check(batch, seed, &records),
        |hand_on| {
            for number in numbers.iter().rev() {
                let batch = build_skeleton(&work, number, &tests)?;
                steps.push(batch.step.clone());
                if !hand_on(batch) {
                    break; // every machine has failed, and says why
                }
            }
            Ok(())
        },
    )?;
    let records = records
        .into_inner()
        .map_err(|_| anyhow!("a thread panicked"))?;
    steps.reverse();
    let (mut good, mut bad) = (0, 0);
    for step in &steps {
        let of_this = records.iter().filter(|r| r.step == step.step);
        let given: Vec<&Record> = of_this
            .filter(|r| matches!(r.outcome, Outcome::Pass | Outcome::Error))
            .collect();
        match given.is_empty() {
            true => {
                good += 1;
                println!("  ✓ the skeleton of step {} gains no point", step.step);
            }
            false => {
                bad += 1;
                println!("  ✗ the skeleton of step {}:", step.step);
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

/// Writes and builds a skeleton.
fn build_skeleton(work: &Work, number: &str, tests: &Tests) -> Result<Batch> {
    progress(&format!("building the skeleton of step {number}"));
    work.start(number)?;
    work.lay_out(number, false)?;
    let places = skeleton::places(&skeleton::step_dir(number)?)?;
    for exercise in skeleton::exercises(number)?.all {
        if !places.iter().any(|place| place.exercise == exercise.name) {
            bail!("exercise {} of step {number} has no region", exercise.name);
        }
    }
    let name = workspace::program(number);
    // The next build may replace the program.
    let program = work
        .step(number)?
        .with_file_name(format!("{name}.skeleton"));
    build::replace(&work.build(number)?, &program)?;
    let step = Step::read(&workspace::checks(), number)?;
    Ok(Batch {
        program: Some(program),
        ..Batch::new(step, tests)?
    })
}

/// Checks a skeleton in its own machine.
fn check(batch: Batch, seed: u64, records: &Mutex<Vec<Record>>) -> Result<()> {
    let plan = Plan {
        batches: vec![batch],
        seed,
        untrusted: false,
        until_hang: false,
    };
    guest::run(&plan, &Machine::default(), &mut |record, _| {
        progress(&format!(
            "{} · {}: {}",
            record.step, record.check, record.outcome
        ));
        let mut records = records.lock().map_err(|_| anyhow!("a thread panicked"))?;
        records.push(record);
        Ok(())
    })
    .map(drop)
}

/// Goes through each step as a learner does and prints the results.
fn learn(numbers: &[String], started: Instant) -> Result<ExitCode> {
    let program = std::env::current_exe().context("readlink /proc/self/exe")?;
    let mut bad = 0;
    for number in numbers {
        let dir = tempfile::Builder::new()
            .prefix("drydock-learner-")
            .tempdir()
            .context("make a temporary directory")?;
        match (Learner {
            number,
            dir: dir.path(),
            program: &program,
        })
        .learn()
        {
            Ok(()) => println!("  ✓ step {number}: from the skeleton to the end"),
            Err(error) => {
                bad += 1;
                println!("  ✗ step {number}: {error:#}");
            }
        }
    }
    println!("  took: {}", seconds(started.elapsed()));
    println!("{} passed, {bad} failed", numbers.len() - bad);
    Ok(ExitCode::from(u8::from(bad != 0)))
}

/// A learner who types the commands of the book.
struct Learner<'a> {
    number: &'a str,
    dir: &'a Path,
    /// Path of this program. cargo may replace its link, and /proc/self/exe
    /// then names no file.
    program: &'a Path,
}

impl Learner<'_> {
    fn learn(&self) -> Result<()> {
        let (ended, said) = self.type_in(&["start", self.number, "--no-check"])?;
        ensure!(ended == 0, "start ended with {ended}: {said}");
        let (ended, said) = self.type_in(&["start", self.number, "--no-check"])?;
        ensure!(
            ended != 0 && said.contains("is there already"),
            "start wrote over a begun step"
        );

        let (ended, said) = self.type_in(&["check", self.number])?;
        ensure!(
            ended == 1,
            "check of the skeleton ended with {ended}: {said}"
        );
        let step = Step::read(&workspace::checks(), self.number)?;
        let work = Work::at(self.dir);
        let begun = work
            .progress()?
            .steps
            .get(self.number)
            .cloned()
            .unwrap_or_default();
        let counted: Vec<_> = step
            .checks
            .iter()
            .filter(|check| begun.open.contains(&check.name))
            .collect();
        ensure!(
            begun.points == 0 && !counted.is_empty(),
            "{} points",
            begun.points
        );
        let lines: Vec<&str> = said.lines().collect();
        for check in counted {
            let place = lines.iter().position(|line| line.contains(&check.title));
            let reason = place.and_then(|place| lines.get(place + 1));
            ensure!(
                reason.is_some_and(|line| line.starts_with("      ") && !line.trim().is_empty()),
                "no reason for {}: {reason:?}",
                check.name
            );
        }
        let (ended, said) = self.type_in(&["solution", self.number])?;
        ensure!(
            ended != 0 && said.contains("--force"),
            "solution told it before a pass: {said}"
        );

        skeleton::copy(self.number, &work.step(self.number)?, Solutions::Stay)?;
        let (ended, said) = self.type_in(&["check", self.number])?;
        ensure!(
            ended == 0,
            "check of our solution ended with {ended}: {said}"
        );
        let (ended, said) = self.type_in(&["solution", self.number])?;
        ensure!(
            ended == 0 && said.contains("to the letter"),
            "solution ended with {ended}: {said}"
        );
        Ok(())
    }

    /// Runs a command of ours in this learner's directory. Returns its exit
    /// status and all of its output.
    fn type_in(&self, args: &[&str]) -> Result<(i32, String)> {
        progress(&args.join(" "));
        let output = Command::new(self.program)
            .args(args)
            .env(WORK, self.dir)
            .output()
            .with_context(|| format!("run harness {}", args.join(" ")))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok((output.status.code().unwrap_or(-1), said))
    }
}
