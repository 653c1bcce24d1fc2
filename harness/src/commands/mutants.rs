//! `harness mutants [NN…]`: changes our steps at random places, and lists the
//! changes that no check notices.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::geteuid;

use check::build::{self, Tests};
use check::outcome::{Outcome, Record};
use check::plan::{Batch, Plan, Until};
use check::registry::{self, Step};
use check::report::{progress, seconds};
use check::runner::{CHECK_LIMIT, HANG};
use check::share::Share;
use check::workspace;
use course::mutant::{self, Mutant, Results, Verdict};
use course::wrong::{Builder, Built};
use vm::guest::{self, Machine, Orders};
use vm::{BrokenOff, checking, pool};

/// Arguments of `harness mutants`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,

    /// How many changes to draw
    #[arg(long, value_name = "N", default_value_t = 200)]
    count: usize,

    /// Seed that draws them: the same one draws the same changes
    #[arg(long)]
    seed: Option<u64>,

    /// Only the K-th of every N that were drawn, as in 2/4: the results of all
    /// N parts add up
    #[arg(long, value_name = "K/N")]
    share: Option<Share>,

    /// Only those that no check noticed in the last run
    #[arg(long, conflicts_with_all = ["seed", "count", "share"])]
    survivors: bool,

    /// Build and check this later step instead of the one that was changed: it
    /// uses what a step has for those above it
    #[arg(long, value_name = "NN")]
    checks: Option<String>,

    /// List the changes and run nothing
    #[arg(long)]
    list: bool,

    /// Check on this host, as root: some of them do harm, so only where that
    /// does not matter
    #[arg(long)]
    here: bool,

    #[command(flatten)]
    machine: Machine,
}

/// Number of mutants per virtual machine.
const LOAD: usize = 4;

/// The longest time of one check. A mutant that hangs does so in its first
/// check, mostly.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of a program that ends the machine, in the place of a check.
const MACHINE: &str = "the machine ended";

/// Mutants of one step that share a machine, each with its batch.
struct Load(Vec<(Mutant, Batch)>);

/// Builds the mutants, runs the checks of their steps, and compares the share
/// that was noticed with that of the last run.
pub fn mutants(args: Args) -> Result<ExitCode> {
    if args.here && !geteuid().is_root() {
        bail!("--here runs the checks on this host, which needs root: use sudo, or omit --here");
    }
    let started = Instant::now();
    let steps: Vec<String> = args.steps.iter().map(|n| format!("{n:0>2}")).collect();
    let file = Results::file(&steps);
    let (mut chosen, results) = choose(&args, &steps)?;
    if let Some(number) = &args.checks {
        let later = format!("{number:0>2}");
        known(std::slice::from_ref(&later))?;
        chosen.retain(|mutant| mutant.step <= later);
        for mutant in &mut chosen {
            mutant.step.clone_from(&later);
        }
    }
    if args.list {
        for mutant in &chosen {
            println!("{}: {}", mutant.place(), mutant.change);
        }
        println!("{} changes", chosen.len());
        return Ok(ExitCode::SUCCESS);
    }
    let mut touched: Vec<String> = chosen.iter().map(|m| m.step.clone()).collect();
    touched.dedup();
    progress("building the harness");
    build::programs(&touched)?;
    workspace::need_rootfs("busybox")?;
    let tests = build::tests(&touched)?;
    let builder = Builder::new()?;
    let baseline = baseline(&touched, &builder, &tests, &args)?;
    results.write(&file)?;
    let seed = results.seed;
    let results = Mutex::new(results);
    let note = |mutant: &Mutant, verdict: Verdict| -> Result<()> {
        let mut results = results.lock().map_err(|_| anyhow!("a thread panicked"))?;
        let place = format!("{}: {}", mutant.place(), mutant.change);
        match &verdict {
            Verdict::Survived => println!("  survived  {place}"),
            Verdict::Noticed(check) => progress(&format!("noticed {place} by {check}")),
            Verdict::TimedOut(check) => progress(&format!("timed out {place} in {check}")),
            Verdict::Uncompilable => progress(&format!("does not compile {place}")),
        }
        results.add(mutant, verdict);
        results.write(&file)
    };
    // Two checks at once on this host would disturb each other.
    let machines = match args.here {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    };
    pool::feed(
        machines,
        |load: Load| {
            for (mutant, verdict) in run(&load, &args, seed)? {
                note(&mutant, verdict)?;
            }
            for program in load
                .0
                .iter()
                .filter_map(|(_, batch)| batch.program.as_ref())
            {
                fs::remove_file(program)
                    .with_context(|| format!("remove {}", program.display()))?;
            }
            Ok(())
        },
        |hand_on| {
            let size = if args.here { 1 } else { LOAD };
            // Built ahead of the checks, so each needs a name of its own.
            let named: Vec<(String, Mutant)> = chosen
                .into_iter()
                .enumerate()
                .map(|(number, mutant)| (format!("mutant-{}-{number}", mutant.step), mutant))
                .collect();
            for alike in named.chunk_by(|a, b| a.1.step == b.1.step) {
                for some in alike.chunks(size) {
                    let load = build_load(some, &builder, &tests, &baseline, &note)?;
                    if !load.0.is_empty() && !hand_on(load) {
                        return Ok(()); // every machine has failed, and says why
                    }
                }
            }
            Ok(())
        },
    )?;
    let results = results
        .into_inner()
        .map_err(|_| anyhow!("a thread panicked"))?;
    print(&results, started.elapsed());
    Ok(ExitCode::SUCCESS)
}

/// The numbers of all steps.
///
/// # Errors
/// Names one of `steps` that is not among them.
fn known(steps: &[String]) -> Result<Vec<String>> {
    let known = registry::numbers(&workspace::checks())?;
    match steps.iter().find(|step| !known.contains(step)) {
        Some(unknown) => bail!("there is no step {unknown}: there are {}", known.join(", ")),
        None => Ok(known),
    }
}

/// The mutants to run, and the results to add to.
fn choose(args: &Args, steps: &[String]) -> Result<(Vec<Mutant>, Results)> {
    let known = known(steps)?;
    let wanted = if steps.is_empty() { &known } else { steps };
    let equivalents = mutant::equivalents()?;
    let mut mutants = mutant::all(wanted)?;
    mutants.retain(|mutant| !equivalents.iter().any(|e| e.fits(mutant)));
    let file = Results::file(steps);
    if args.survivors {
        let results = Results::read(&file)?;
        mutants.retain(|mutant| results.survived(mutant));
        return Ok((mutants, results));
    }
    let seed = args.seed.unwrap_or_else(checking::any_seed);
    let mut chosen = mutant::choose(mutants, seed, args.count);
    if let Some(share) = args.share {
        share.keep(&mut chosen);
    }
    Ok((chosen, Results::begin(&file, seed, args.count)?))
}

/// The steps with the checks that our own programs pass where the mutants are
/// run: only these can tell that something is wrong.
fn baseline(
    steps: &[String],
    builder: &Builder,
    tests: &Tests,
    args: &Args,
) -> Result<BTreeMap<String, Step>> {
    let mut passing = BTreeMap::new();
    for number in steps {
        progress(&format!("step {number}, unchanged"));
        let mut step = Step::read(&workspace::checks(), number)?;
        let Built::Program(program) = builder.changed("unchanged", number, &[])? else {
            bail!("step {number} does not compile");
        };
        let batch = Batch {
            program: Some(program),
            ..Batch::new(step.clone(), tests)?
        };
        let records = check(vec![batch], Until::End, args, 1)?;
        let passed = |name: &str| {
            let mut of_it = records.iter().filter(|record| record.check == name);
            of_it.any(|record| record.outcome == Outcome::Pass)
        };
        for record in &records {
            if record.outcome != Outcome::Pass {
                println!("  without {}: {}", record.check, record.message);
            }
        }
        step.checks.retain(|entry| passed(&entry.name));
        if step.checks.is_empty() {
            bail!("step {number}: our own program passes no check here");
        }
        passing.insert(number.clone(), step);
    }
    Ok(passing)
}

fn build_load(
    mutants: &[(String, Mutant)],
    builder: &Builder,
    tests: &Tests,
    baseline: &BTreeMap<String, Step>,
    note: &impl Fn(&Mutant, Verdict) -> Result<()>,
) -> Result<Load> {
    let mut load = Load(Vec::new());
    for (name, mutant) in mutants {
        let step = baseline
            .get(&mutant.step)
            .context("a step without checks")?;
        let files = [(mutant.file.clone(), mutant.text()?)];
        match builder.changed(name, &mutant.step, &files)? {
            Built::No(_) => note(mutant, Verdict::Uncompilable)?,
            Built::Program(program) => load.0.push((
                mutant.clone(),
                Batch {
                    variant: Some(name.clone()),
                    program: Some(program),
                    ..Batch::new(step.clone(), tests)?
                },
            )),
        }
    }
    Ok(load)
}

/// Runs the checks on the mutants of a load. If the machine ends, each is run
/// once more in one of its own, to know which has ended it.
fn run(load: &Load, args: &Args, seed: u64) -> Result<Vec<(Mutant, Verdict)>> {
    let batches: Vec<Batch> = load.0.iter().map(|(_, batch)| batch.clone()).collect();
    let records = match check(batches, Until::Failure, args, seed) {
        Err(error) if error.is::<BrokenOff>() => {
            let [(mutant, _)] = load.0.as_slice() else {
                let alone = load.0.iter().cloned().map(|one| Load(vec![one]));
                let verdicts: Result<Vec<_>> = alone.map(|one| run(&one, args, seed)).collect();
                return Ok(verdicts?.into_iter().flatten().collect());
            };
            return Ok(vec![(mutant.clone(), Verdict::Noticed(MACHINE.to_owned()))]);
        }
        records => records?,
    };
    let verdict = |(mutant, batch): &(Mutant, Batch)| {
        let of_this = records.iter().filter(|r| r.variant == batch.variant);
        let of_this: Vec<Record> = of_this.cloned().collect();
        let hang = HANG.as_millis() as u64;
        (mutant.clone(), Verdict::of(&of_this, hang))
    };
    Ok(load.0.iter().map(verdict).collect())
}

/// Runs batches in the virtual machine or on this host, and returns the records.
fn check(batches: Vec<Batch>, until: Until, args: &Args, seed: u64) -> Result<Vec<Record>> {
    let plan = Plan {
        batches,
        seed,
        untrusted: false,
        until,
    };
    if args.here {
        return check_here(plan);
    }
    let machine = Machine {
        check_limit: Some(LIMIT),
        ..args.machine.clone()
    };
    let mut records = Vec::new();
    guest::run(&plan, &machine, &mut |record, _| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// Runs a plan in a process with namespaces of its own: what a mutant does to
/// its mounts, its network or its host name ends with it.
///
/// # Errors
/// [`BrokenOff`] if the process does not run the plan to its end.
fn check_here(plan: Plan) -> Result<Vec<Record>> {
    let expected: usize = plan.batches.iter().map(|b| b.step.checks.len()).sum();
    let file = tempfile::NamedTempFile::new().context("make a temporary file")?;
    let json = serde_json::to_vec(&Orders { plan, token: None }).context("write the plan")?;
    fs::write(file.path(), json).context("write the plan")?;
    let harness: PathBuf = std::env::current_exe().context("find this program")?;
    let mut child = Command::new(harness)
        .args(["run", "--own-host"])
        .arg(file.path())
        .env(CHECK_LIMIT, LIMIT.as_secs().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("run harness run")?;
    let output = child.stdout.take().context("the output of harness run")?;
    let mut records = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("read a record")?;
        let record = serde_json::from_str::<Record>(&line);
        records.push(record.with_context(|| format!("parse a record: {line:?}"))?);
    }
    let status = child.wait().context("wait for harness run")?;
    if !status.success() || records.len() != expected {
        let arrived = records.len();
        let why = format!("harness run ended with {status} after {arrived} of {expected} checks");
        return Err(BrokenOff(why).into());
    }
    Ok(records)
}

fn print(results: &Results, took: Duration) {
    let totals = results.totals();
    let by_check = mutant::by_check(results.mutants.iter().map(|entry| &entry.verdict));
    let mut most: Vec<_> = by_check.into_iter().collect();
    most.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    println!("  noticed first by:");
    for (check, times) in most.iter().take(10) {
        println!("    {times:>3}  {check}");
    }
    let mut survivors: Vec<_> = results
        .mutants
        .iter()
        .filter(|entry| entry.verdict == Verdict::Survived)
        .collect();
    survivors.sort_by_key(|entry| (&entry.file, entry.line));
    println!("  survivors: for each a check, or an entry with a reason in harness/mutants.toml");
    for entry in survivors {
        println!("    {}:{}: {}", entry.file, entry.line, entry.change);
        println!("        {}", entry.source);
    }
    println!(
        "  took: {} · seed {} · {} timed out, {} do not compile",
        seconds(took),
        results.seed,
        totals.timed_out,
        totals.uncompilable
    );
    println!("{}", results.share());
}
