//! `harness test-exercises [NN]`: proves that the exercises of each level are
//! enough for its points, and that a learner can get from the skeleton to the
//! end.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use check::build::Tests;
use check::outcome::Record;
use check::own_host::OwnHost;
use check::plan::{Batch, Plan, Until};
use check::registry::{self, Step};
use check::report::{progress, seconds};
use check::runner;
use check::share::Share;
use check::{build, workspace};
use course::exercise::proof::{self, Stage};
use course::exercise::skeleton::{self, Solutions};
use course::exercise::work::{WORK, Work};
use course::exercise::{Exercises, Level};
use vm::checking::Where;
use vm::guest;
use vm::pool;

/// Arguments of `harness test-exercises`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,

    #[command(flatten)]
    place: Where,

    /// Prove each exercise too: done on top of those before it, it turns the
    /// checks green that it names
    #[arg(long, conflicts_with = "learn")]
    each: bool,

    /// Only the skeletons, which must gain nothing: the levels take longer
    #[arg(long, conflicts_with_all = ["each", "learn"])]
    quick: bool,

    /// Go the whole way of a learner instead, in a directory of its own: start,
    /// check, solution, with our solution as what the learner has written
    #[arg(long)]
    learn: bool,

    /// Only the K-th of every N steps: 2/3
    #[arg(long, value_name = "K/N", conflicts_with = "learn")]
    share: Option<Share>,

    /// Print every record
    #[arg(short, long)]
    verbose: bool,
}

/// Builds each step with the exercises of no level, of the core, of the core and
/// more, and of all, and compares the points with what a level promises. While
/// virtual machines check the first, the next are built.
pub fn test_exercises(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    let mut numbers: Vec<String> = args.steps.iter().map(|n| format!("{n:0>2}")).collect();
    if numbers.is_empty() {
        numbers = registry::numbers(&workspace::checks())?;
    }
    if args.learn {
        return learn(&numbers, started);
    }
    args.place.require_root()?;
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
    let seed = u64::from(std::process::id());
    // Two checks at once on this host would disturb each other.
    let machines = match args.place.here {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let stages = Mutex::new(BTreeMap::new());
    // Earlier skeletons are checked while the next are built.
    pool::feed(
        machines,
        |job| check(job, seed, &args, &stages),
        |hand_on| {
            for number in numbers.iter().rev() {
                for job in jobs(number, &args)? {
                    let job = job.build(&dir, &tests)?;
                    if !hand_on(job) {
                        return Ok(()); // every machine has failed, and says why
                    }
                }
            }
            Ok(())
        },
    )?;
    let mut stages = stages
        .into_inner()
        .map_err(|_| anyhow!("a thread panicked"))?;
    let mut bad = 0;
    for number in &numbers {
        let exercises = skeleton::exercises(number)?;
        let mut of_this: Vec<Stage> = stages.remove(number).unwrap_or_default();
        of_this.sort_by_key(|stage| stage.done);
        let complaints = proof::complaints(&exercises, &of_this);
        let mark = if complaints.is_empty() { '✓' } else { '✗' };
        println!("  {mark} step {number}: {}", points(&exercises, &of_this));
        for complaint in &complaints {
            println!("      {complaint}");
        }
        bad += usize::from(!complaints.is_empty());
    }
    println!("  took: {}", seconds(started.elapsed()));
    println!("{} passed, {bad} failed", numbers.len() - bad);
    Ok(ExitCode::from(u8::from(bad != 0)))
}

/// The points where a level ends, in words.
fn points(exercises: &Exercises, stages: &[Stage]) -> String {
    let names = ["none", "core", "core and more", "all"];
    let ends = names.iter().zip(exercises.level_ends());
    let points: Vec<String> = ends
        .filter_map(|(name, done)| {
            let stage = stages.iter().find(|stage| stage.done == done)?;
            let of = match stage.of {
                100 => String::new(),
                of => format!(" of {of}"),
            };
            Some(format!("{name} {}{of}", stage.points))
        })
        .collect();
    points.join(", ")
}

/// A step with the first `done` exercises done.
struct Job<T> {
    done: usize,
    step: Step,
    built: T,
}

/// The jobs of a step, in ascending order. Between the ends of levels only the
/// checks matter that an exercise names.
fn jobs(number: &str, args: &Args) -> Result<Vec<Job<()>>> {
    let exercises = skeleton::exercises(number)?;
    let places = skeleton::places(&skeleton::step_dir(number)?)?;
    for exercise in &exercises.all {
        if !places.iter().any(|place| place.exercise == exercise.name) {
            bail!("exercise {} of step {number} has no region", exercise.name);
        }
    }
    let ends = exercises.level_ends();
    let mut jobs = Vec::new();
    let last = match args.quick {
        true => 0,
        false => exercises.up_to(Level::Bonus),
    };
    for done in 0..=last {
        let mut step = Step::read(&workspace::checks(), number)?;
        if !ends.contains(&done) {
            if !args.each {
                continue;
            }
            // It is the one after an exercise, and the one before the next.
            let beside = &exercises.all[done - 1..=done];
            step.keep(|check| beside.iter().any(|e| e.turns.contains(&check.name)));
        }
        jobs.push(Job {
            done,
            step,
            built: (),
        });
    }
    Ok(jobs)
}

impl Job<()> {
    /// Writes and builds the step.
    fn build(self, dir: &Path, tests: &Tests) -> Result<Job<Batch>> {
        let Job { done, step, .. } = self;
        let number = &step.step;
        progress(&format!(
            "building step {number} with {done} exercises done"
        ));
        let work = Work::at(dir);
        let place = work.step(number)?;
        skeleton::copy(number, &place, Solutions::First(done))?;
        work.lay_out(number, false)?;
        // The next build may replace the program.
        let name = workspace::program(number);
        let program = place.with_file_name(format!("{name}.{done}"));
        build::replace(&work.build(number)?, &program)?;
        let built = Batch {
            program: Some(program),
            ..Batch::new(step.clone(), tests)?
        };
        Ok(Job { done, step, built })
    }
}

/// Checks a step, in its own machine or here.
fn check(
    job: Job<Batch>,
    seed: u64,
    args: &Args,
    stages: &Mutex<BTreeMap<String, Vec<Stage>>>,
) -> Result<()> {
    let Job { done, step, built } = job;
    let plan = Plan {
        batches: vec![built],
        seed,
        untrusted: false,
        until: Until::End,
    };
    let mut records: Vec<Record> = Vec::new();
    let mut keep = |record: Record| {
        progress(&format!(
            "{} with {done} · {}: {}",
            record.step, record.check, record.outcome
        ));
        records.push(record);
        Ok(())
    };
    if args.place.here {
        let _own = OwnHost::enter()?;
        runner::run(&plan, &mut keep)?;
    } else {
        guest::run(&plan, &args.place.machine, &mut |record, _| keep(record))?;
    }
    if args.verbose {
        for record in &records {
            println!(
                "      {} with {done} · {}: {} {} {}",
                record.step,
                record.check,
                record.outcome,
                record.message,
                record.host.join(" | ")
            );
        }
    }
    let stage = Stage::new(&step, done, &records);
    let mut stages = stages.lock().map_err(|_| anyhow!("a thread panicked"))?;
    stages.entry(step.step).or_default().push(stage);
    Ok(())
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
