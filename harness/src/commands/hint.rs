//! `harness hint NN`: hints at the next thing to look at in a learner's step.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::check as check_step;
use check::outcome::Record;
use check::registry::{self, Step};
use check::workspace;
use course::exercise::skeleton;
use course::exercise::work::Work;
use course::exercise::{Exercise, Level};
use vm::checking::{Reader, Where};

/// Arguments of `harness hint`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    #[command(flatten)]
    place: Where,
}

/// Runs the checks and says more about the first failure each time: first what
/// the program does and why that is wrong, then where to look, and the third
/// time our solution.
pub fn hint(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    let work = Work::here();
    if let Some((below, exercise, file)) = first_below(&number, &work)? {
        println!("Next: step {below}, on which step {number} builds");
        println!();
        println!(
            "  Not begun yet: exercise {exercise}, in {}",
            file.display()
        );
        println!();
        println!("  More: ./just hint {below}");
        return Ok(ExitCode::SUCCESS);
    }
    let records = check_step::run(&number, &args.place, None, Reader::Caller)?;
    let Some(record) = records.iter().find(|record| record.is_open()) else {
        println!("Nothing is left to do.");
        if !workspace::is_handed_out() {
            println!("Ours for comparison: ./just solution {number}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut progress = work.progress()?;
    let asked = progress
        .steps
        .entry(number.clone())
        .or_default()
        .hints
        .entry(record.check.clone())
        .or_insert(0);
    *asked += 1;
    let asked = *asked;
    work.note(&progress)?;
    let step = Step::read(&workspace::checks(), &number)?;
    let open = open(&number, &work, &record.check)?;
    say(&step, record, asked, open.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

/// In a handout, the first core exercise that is not begun in a step below:
/// step, exercise and file. Otherwise the steps below are ours.
fn first_below(number: &str, work: &Work) -> Result<Option<(String, String, PathBuf)>> {
    if !workspace::is_handed_out() {
        return Ok(None);
    }
    let root = workspace::root();
    for below in registry::numbers(&workspace::checks())? {
        if below.as_str() >= number || !skeleton::has_exercises(&below) {
            continue;
        }
        let dir = work.started(&below)?;
        let mut open = skeleton::open(&dir, &below)?.into_iter();
        if let Some((exercise, file)) = open.find(|(open, _)| open.level == Level::Core) {
            let shown = dir.strip_prefix(&root).unwrap_or(&dir).join(file);
            return Ok(Some((below, exercise.name, shown)));
        }
    }
    Ok(None)
}

/// An exercise whose gap the learner has not begun to fill.
struct Open {
    exercise: Exercise,
    file: PathBuf,
    /// Whether it is the one that turns the failing check green.
    turns: bool,
    /// Our solution; `None` in a handout.
    solution: Option<String>,
}

/// The open exercise that turns `check` green, or else the first in our order.
fn open(number: &str, work: &Work, check: &str) -> Result<Option<Open>> {
    let dir = work.started(number)?;
    let open = skeleton::open(&dir, number)?;
    let turns = |exercise: &Exercise| exercise.turns.iter().any(|turned| turned == check);
    let wanted = open.iter().position(|(exercise, _)| turns(exercise));
    let Some((exercise, file)) = open.into_iter().nth(wanted.unwrap_or(0)) else {
        return Ok(None);
    };
    // A handout has none.
    let ours = skeleton::places(&skeleton::step_dir(number)?)?;
    let ours = ours
        .into_iter()
        .find(|place| place.exercise == exercise.name && place.file == file);
    let root = workspace::root();
    let shown = dir.strip_prefix(&root).unwrap_or(&dir).join(&file);
    Ok(Some(Open {
        turns: wanted.is_some(),
        solution: ours.map(|place| place.solution),
        exercise,
        file: shown,
    }))
}

fn say(step: &Step, record: &Record, asked: u32, open: Option<&Open>) -> Result<()> {
    let Some(entry) = step.entry(&record.check) else {
        return Ok(());
    };
    println!("Next: {}", entry.title);
    println!();
    println!("  Your program: {}", told(record));
    println!("  {}", entry.why);
    if asked > 1 {
        println!();
        println!("  Look: {}", entry.hint);
        if let Some(Open { exercise, file, .. }) = open {
            println!(
                "  Not begun yet: exercise {}, in {}",
                exercise.name,
                file.display()
            );
            let title = |name: &String| step.entry(name).map_or(name.clone(), |e| e.title.clone());
            let titles: Vec<String> = exercise.turns.iter().map(title).collect();
            println!("  It turns green: {}", titles.join("; "));
        }
    }
    if asked > 2 {
        println!();
        match open {
            Some(open) if !open.turns => println!(
                "  Do exercise {} first: others build on it.",
                open.exercise.name
            ),
            Some(Open {
                exercise,
                solution: Some(solution),
                ..
            }) => {
                println!("  Ours, of exercise {}:", exercise.name);
                println!();
                for line in solution.lines() {
                    println!("  {line}");
                }
            }
            Some(_) => println!("  The task stands above the gap, as a comment."),
            None if workspace::is_handed_out() => {
                println!("  All exercises were begun: the chapter shows what each call does.");
            }
            None => println!(
                "  All exercises were begun. Yours against ours: ./just solution {} --force",
                step.step
            ),
        }
    } else {
        println!();
        println!("  More: ./just hint {}", step.step);
    }
    Ok(())
}

/// The program's behaviour, in its own words or the check's.
fn told(record: &Record) -> String {
    match (record.message.is_empty(), record.host.first()) {
        (false, _) => record.message.clone(),
        (true, Some(host)) => format!("leaves the host changed: {host}"),
        (true, None) => record.outcome.to_string(),
    }
}
