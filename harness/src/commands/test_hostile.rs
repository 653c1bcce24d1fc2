//! `harness test-hostile`: proves that hostile submissions gain nothing.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::prctl::set_child_subreaper;

use check::build;
use check::guard::reap_left_behind;
use check::report::{progress, seconds};
use check::share::Share;
use course::exercise::skeleton::{self, Solutions};
use course::grade::grader::{Grader, Limits};
use course::grade::marks::Marks;
use course::grade::place::Place;
use course::hostile::{self, Bait, Hostile};

/// Arguments of `harness test-hostile`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the hostile submissions whose name holds this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Only the K-th of every N, as in 2/3: less to wait for, and after N runs
    /// with another K nothing is left out
    #[arg(long, value_name = "K/N")]
    share: Option<Share>,

    /// Longest time for one of them, in seconds, where it does not say itself
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,

    /// Print all marks
    #[arg(short, long)]
    verbose: bool,
}

/// Grades each hostile submission like any other, several at once, and then an
/// honest one in each of the same places.
pub fn test_hostile(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    let filter = args.filter.as_deref().unwrap_or_default();
    let mut wanted = hostile::all()?;
    wanted.retain(|hostile| hostile.name.contains(filter));
    if let Some(share) = args.share {
        share.keep(&mut wanted);
    }
    let Some(number) = wanted.first().map(|hostile| hostile.step.clone()) else {
        bail!("no hostile submission has {filter:?} in its name");
    };
    if wanted.iter().any(|hostile| hostile.step != number) {
        bail!("all hostile submissions are of one step, whose checks are built once");
    }
    // Adopt orphans, to find processes that were left behind.
    set_child_subreaper(true).context("prctl(PR_SET_CHILD_SUBREAPER)")?;
    // One of them looks for our own solution, so build it.
    build::programs(&[number.to_owned()])?;
    let grader = Grader::new(&number, Limits::of(args.limit, None))?;
    let dir = tempfile::Builder::new()
        .prefix("drydock-hostile-")
        .tempdir()
        .context("make a temporary directory")?;
    // The slowest first.
    wanted.sort_by_key(|hostile| std::cmp::Reverse(hostile.limit.is_some()));
    let queue = Mutex::new(VecDeque::from(wanted));
    let tally = Mutex::new((0, 0));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| work(&args, &grader, dir.path(), &queue, &tally)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let (passed, mut bad) = *tally.lock().map_err(|_| anyhow!("a thread panicked"))?;
    for left in reap_left_behind()? {
        bad += 1;
        println!("  ✗ {left}");
    }
    println!("  took: {}", seconds(started.elapsed()));
    println!("{passed} passed, {bad} failed");
    Ok(ExitCode::from(u8::from(bad != 0)))
}

fn work(
    args: &Args,
    grader: &Grader,
    dir: &Path,
    queue: &Mutex<VecDeque<Hostile>>,
    tally: &Mutex<(usize, usize)>,
) -> Result<()> {
    let place = Place::free()?;
    let mut any = false;
    let note = |name: &str, title: &str, verdict: Result<()>| -> Result<()> {
        let mut tally = tally.lock().map_err(|_| anyhow!("a thread panicked"))?;
        match verdict {
            Ok(()) => {
                tally.0 += 1;
                println!("  ✓ {name}: {title}");
            }
            Err(error) => {
                tally.1 += 1;
                println!("  ✗ {name}: {title}\n      {error:#}");
            }
        }
        Ok(())
    };
    loop {
        let next = queue
            .lock()
            .map_err(|_| anyhow!("a thread panicked"))?
            .pop_front();
        let Some(hostile) = next else { break };
        any = true;
        progress(&format!("grading {}", hostile.name));
        let bait = dir.join("bait").join(&hostile.name);
        let bait = Bait::put(&bait, &hostile.step, place.build_dir())?;
        let submission = hostile.lay_out(dir, &bait)?;
        let limits = Limits::of(hostile.limit.unwrap_or(args.limit), hostile.check_limit);
        let marks = grader
            .within(limits)
            .grade(&submission, &place, &mut |_| Ok(()))?;
        let verdict = hostile.judge(&marks).and_then(|()| bait.judge(&marks));
        let print = args.verbose || verdict.is_err();
        note(&hostile.name, &hostile.title, verdict)?;
        if print {
            print_marks(&marks);
        }
    }
    if !any {
        return Ok(());
    }
    let honest = dir.join(format!("honest-{:?}", std::thread::current().id()));
    let number = &grader.step.step;
    let ours = skeleton::step_dir(number)?;
    let own = honest.join(ours.file_name().unwrap_or_default());
    skeleton::copy(number, &own, Solutions::Stay)?;
    let marks = grader.grade(&honest, &place, &mut |_| Ok(()))?;
    let verdict = match (marks.points(), marks.of_all()) {
        (100, 100) => Ok(()),
        (points, of) => Err(anyhow!("{points} of {of} points")),
    };
    if verdict.is_err() {
        print_marks(&marks);
    }
    note("honest", "graded after them, has all points", verdict)
}

fn print_marks(marks: &Marks) {
    for mark in &marks.marks {
        println!(
            "      {:>3} {}: {} {}",
            mark.points, mark.check, mark.outcome, mark.message
        );
    }
    if let Some(trouble) = &marks.trouble {
        println!("      {trouble}");
    }
}
