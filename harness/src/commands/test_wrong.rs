//! `harness test-wrong [NN]`: proves that every check can fail.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use check::build::{self, Tests};
use check::outcome::Record;
use check::plan::{Batch, Plan, Until};
use check::registry::Step;
use check::report::{progress, seconds};
use check::runner;
use check::share::Share;
use check::workspace;
use course::wrong::{self, Builder, Messages, UPDATE, Wrong};
use vm::CgroupLayout;
use vm::guest::Machine;
use vm::{guest, pool};

/// Arguments of `harness test-wrong`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,

    /// Only the wrong solutions whose name holds this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,

    /// Only the K-th of every N, as in 2/3: less to wait for, and after N runs
    /// with another K nothing is left out
    #[arg(long, value_name = "K/N")]
    share: Option<Share>,

    /// Check on this host, as root: some of them do harm, so only where that
    /// does not matter
    #[arg(long)]
    here: bool,

    /// Run only the checks that each must fail; all of the step's show that no
    /// other one fails as well, and take longer
    #[arg(long)]
    quick: bool,

    /// Record what the checks say of each, in harness/wrong/snapshots, instead
    /// of comparing it with the record
    #[arg(long)]
    accept: bool,

    /// Print every record
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    machine: Machine,
}

/// Number of wrong solutions per virtual machine. Small: the first machine
/// starts when it has that number, and the run ends with the last one.
const LOAD: usize = 4;

/// The complaint about checks that fail as they should, with other messages.
const OTHER_WORDS: &str = "the checks say something else than is recorded in \
    harness/wrong/snapshots: see above; if it is better, ./just test-wrong --accept";

/// Wrong solutions of one step that share a machine.
struct Load {
    layout: CgroupLayout,
    wrongs: Vec<Wrong>,
    batches: Vec<Batch>,
}

/// The totals of the run.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    named: usize,
}

/// Builds the wrong solutions and compares the failed checks with the expected
/// ones. While virtual machines check the first, the next are built.
pub fn test_wrong(args: Args) -> Result<ExitCode> {
    if args.accept && std::env::var(UPDATE).as_deref() != Ok("always") {
        // insta reads the environment, which a process cannot change safely.
        let mut again = Command::new(std::env::current_exe().context("find this program")?);
        again
            .args(std::env::args_os().skip(1))
            .env(UPDATE, "always");
        return Err(again.exec()).context("start this program again");
    }
    let started = Instant::now();
    let wrongs = wanted(&args)?;
    let mut steps: Vec<String> = wrongs.iter().map(|w| w.step.clone()).collect();
    steps.dedup();
    progress("building the harness");
    build::programs(&steps)?;
    workspace::need_rootfs("busybox")?;
    let tests = build::tests(&steps)?;
    let builder = Builder::new()?;
    let seed = u64::from(std::process::id());
    // Two checks at once on this host would disturb each other.
    let machines = match args.here {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let tally = Mutex::new(Tally::default());
    pool::feed(
        machines,
        |load| work(&load, seed, &args, &tally),
        |hand_on| {
            for (layout, some) in loads_of(wrongs, args.machine.cgroup) {
                let load = build(layout, some, &builder, &tests, args.quick, &tally)?;
                if !load.batches.is_empty() && !hand_on(load) {
                    break; // every machine has failed, and says why
                }
            }
            Ok(())
        },
    )?;
    let tally = tally
        .into_inner()
        .map_err(|_| anyhow!("a thread panicked"))?;
    let all = tally.passed + tally.failed;
    println!("  took: {} · seed {seed}", seconds(started.elapsed()));
    println!(
        "  wrong solutions found out and named: {} of {all}",
        tally.named
    );
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(ExitCode::from(u8::from(tally.failed != 0)))
}

/// Checks a load, and the wrong solutions that were missed once more.
fn work(load: &Load, seed: u64, args: &Args, tally: &Mutex<Tally>) -> Result<()> {
    // Some are wrong only at one moment: killed here, overtaken there. Their
    // checks may miss the moment, so they get a second try.
    let missed = check(load, seed, args, tally, Try::First)?;
    if !missed.wrongs.is_empty() {
        check(&missed, seed + 1, args, tally, Try::Second)?;
    }
    Ok(())
}

/// An attempt at proving a wrong solution wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Try {
    First,
    Second,
}

impl Try {
    /// Number of processors; `None` for the usual one. As many machines run as
    /// there are processors, so one each is enough. If a fault shows only when
    /// two processes run at once, or with a second processor, the second try
    /// reveals it.
    fn cpus(self) -> Option<u32> {
        match self {
            Try::First => Some(1),
            Try::Second => None,
        }
    }
}

fn wanted(args: &Args) -> Result<Vec<Wrong>> {
    let numbers: Vec<String> = args.steps.iter().map(|n| format!("{n:0>2}")).collect();
    let mut wrongs = wrong::all()?;
    wrongs.retain(|wrong| {
        let named = |text: &String| wrong.name.contains(text.as_str());
        (numbers.is_empty() || numbers.contains(&wrong.step))
            && (args.filter.is_empty() || args.filter.iter().any(named))
    });
    if let Some(share) = args.share {
        share.keep(&mut wrongs);
    }
    Ok(wrongs)
}

/// Groups wrong solutions of the same step and the same layout of cgroups.
fn loads_of(mut wrongs: Vec<Wrong>, usual: CgroupLayout) -> Vec<(CgroupLayout, Vec<Wrong>)> {
    let layout = |wrong: &Wrong| wrong.cgroup.unwrap_or(usual);
    // A crate that is changed and changed back is built twice, and so are its
    // dependents: keep the wrong solutions that change the same crate together.
    let place = |wrong: &Wrong| wrong.edits.first().map(|edit| edit.file.clone());
    wrongs.sort_by_key(|wrong| (wrong.step.clone(), layout(wrong), place(wrong)));
    wrongs
        .chunk_by(|a, b| (&a.step, layout(a)) == (&b.step, layout(b)))
        .flat_map(|alike| alike.chunks(LOAD))
        .map(|load| (layout(&load[0]), load.to_vec()))
        .collect()
}

/// Builds wrong solutions. One that does not compile has failed, and the others go on.
fn build(
    layout: CgroupLayout,
    wrongs: Vec<Wrong>,
    builder: &Builder,
    tests: &Tests,
    quick: bool,
    tally: &Mutex<Tally>,
) -> Result<Load> {
    let mut batches = Vec::new();
    let mut built = Vec::new();
    for wrong in wrongs {
        progress(&format!("building {}", wrong.name));
        let mut step = Step::read(&workspace::checks(), &wrong.step)?;
        if quick {
            step.only(|check| wrong.fails.contains(&check.name));
        }
        let program = match builder.build(&wrong) {
            Ok(program) => program,
            Err(error) => {
                let mut tally = tally.lock().map_err(|_| anyhow!("a thread panicked"))?;
                tally.failed += 1;
                println!("  ✗ {}: {}\n      {error:#}", wrong.name, wrong.title);
                continue;
            }
        };
        batches.push(Batch {
            variant: Some(wrong.name.clone()),
            program: Some(program),
            ..Batch::new(step, tests)?
        });
        built.push(wrong);
    }
    Ok(Load {
        layout,
        wrongs: built,
        batches,
    })
}

/// Runs the checks on a load and prints the result of each wrong solution.
/// Returns those to be tried again.
fn check(load: &Load, seed: u64, args: &Args, tally: &Mutex<Tally>, which: Try) -> Result<Load> {
    let mut missed = Load {
        layout: load.layout,
        wrongs: Vec::new(),
        batches: Vec::new(),
    };
    let plan = Plan {
        batches: load.batches.clone(),
        seed,
        untrusted: false,
        until: Until::End,
    };
    let mut records = Vec::new();
    let mut keep = |record: Record| {
        progress(&format!(
            "{} · {}: {}",
            record.variant.as_deref().unwrap_or_default(),
            record.check,
            record.outcome
        ));
        records.push(record);
        Ok(())
    };
    if args.here {
        runner::run(&plan, &mut keep)?;
    } else {
        let machine = Machine {
            cgroup: load.layout,
            cpus: which.cpus(),
            ..args.machine.clone()
        };
        guest::run(&plan, &machine, &mut |record, _| keep(record))?;
    }
    // Locked until all is printed: another machine may end at the same time.
    let mut tally = tally.lock().map_err(|_| anyhow!("a thread panicked"))?;
    for (wrong, batch) in load.wrongs.iter().zip(&load.batches) {
        let of_this: Vec<Record> = records
            .iter()
            .filter(|record| record.variant.as_ref() == Some(&wrong.name))
            .cloned()
            .collect();
        let messages = Messages::of(wrong, &of_this)?;
        let mut verdict = wrong.judge(&batch.step, &of_this);
        let recorded = args.accept || messages.are_recorded()?;
        if which == Try::First && (verdict.is_err() || !recorded) {
            missed.wrongs.push(wrong.clone());
            missed.batches.push(batch.clone());
            continue;
        }
        // Last, because it prints the difference.
        if verdict.is_ok() && !messages.compare() {
            verdict = Err(OTHER_WORDS.to_owned());
        }
        tally.named += usize::from(wrong.named(&batch.step, &of_this));
        let again = match which {
            Try::First => "",
            Try::Second => " (at the second try)",
        };
        match &verdict {
            Ok(()) => {
                tally.passed += 1;
                println!("  ✓ {}: {}{again}", wrong.name, wrong.title);
            }
            Err(complaint) => {
                tally.failed += 1;
                println!("  ✗ {}: {}\n      {complaint}", wrong.name, wrong.title);
            }
        }
        if args.verbose || verdict.is_err() {
            for record in &of_this {
                println!(
                    "      {}: {} {} {}",
                    record.check,
                    record.outcome,
                    record.message,
                    record.host.join(" | ")
                );
            }
        }
    }
    Ok(missed)
}
