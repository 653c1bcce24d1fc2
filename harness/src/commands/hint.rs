//! `harness hint NN`: hints at the next thing to look at in a learner's step.

use std::process::ExitCode;

use anyhow::Result;

use super::check as check_step;
use check::outcome::Record;
use check::registry::Step;
use check::workspace;
use course::exercise::skeleton::{self, Place};
use course::exercise::work::Work;
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
    let records = check_step::run(&number, &args.place, None, Reader::Caller)?;
    let Some(record) = records.iter().find(|record| record.is_open()) else {
        println!("Nothing is left to do. Ours for comparison: ./just solution {number}");
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
    let begun = begun(&number, &work)?;
    say(&step, record, asked, begun.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

/// The first exercise, in our order, that the learner has not begun: its
/// `todo!` is still there.
fn begun(number: &str, work: &Work) -> Result<Option<Place>> {
    let dir = work.started(number)?;
    let order: Vec<String> = skeleton::exercises(number)?
        .all
        .into_iter()
        .map(|exercise| exercise.name)
        .collect();
    let mut open = Vec::new();
    for place in skeleton::places(&skeleton::step_dir(number)?)? {
        let file = dir.join(&place.file);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.contains(&format!("todo!(\"exercise {}:", place.exercise)) {
            open.push(place);
        }
    }
    open.sort_by_key(|place| order.iter().position(|name| *name == place.exercise));
    Ok(open.into_iter().next())
}

fn say(step: &Step, record: &Record, asked: u32, begun: Option<&Place>) -> Result<()> {
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
        if let Some(place) = begun {
            println!(
                "  Not begun yet: exercise {}, in {}",
                place.exercise,
                place.file.display()
            );
        }
    }
    if asked > 2 {
        println!();
        match begun {
            Some(place) => {
                println!("  Ours, of exercise {}:", place.exercise);
                println!();
                for line in place.solution.lines() {
                    println!("  {line}");
                }
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
