//! `harness start NN`: gives a learner the skeleton of a step.

use std::process::ExitCode;

use anyhow::Result;

use super::check as check_step;
use check::registry::Step;
use check::workspace;
use course::exercise::skeleton;
use course::exercise::work::Work;
use vm::checking::{Reader, Where};

/// Arguments of `harness start`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    /// Build on your own steps below, as far as you have begun them, instead of
    /// ours
    #[arg(long)]
    on_mine: bool,

    /// Do not run the checks
    #[arg(long)]
    no_check: bool,

    #[command(flatten)]
    place: Where,
}

/// Writes the skeleton into `work/`, lists the exercises, and shows the failing
/// checks as the starting point. Fails if the step was begun already.
pub fn start(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    let work = Work::here();
    let dir = work.start(&number)?;
    work.lay_out(&number, args.on_mine)?;
    let mut progress = work.progress()?;
    progress.steps.entry(number.clone()).or_default().on_mine = args.on_mine;
    work.note(&progress)?;
    let root = workspace::root();
    let shown = dir.strip_prefix(&root).unwrap_or(&dir);
    println!("{} is yours. Its exercises:", shown.display());
    println!();
    let open = skeleton::open(&dir, &number)?;
    let checks = Step::read(&workspace::checks(), &number)?;
    for exercise in skeleton::exercises(&number)?.all {
        println!(
            "  {:5}  {}: {}",
            exercise.level, exercise.name, exercise.title
        );
        for (_, file) in open.iter().filter(|(open, _)| open.name == exercise.name) {
            println!("         {}", shown.join(file).display());
        }
        let titles = exercise.turns.iter().filter_map(|name| checks.entry(name));
        for (at, check) in titles.enumerate() {
            let what = if at == 0 { "turns green:" } else { "" };
            println!("         {what:12} {}", check.title);
        }
    }
    println!();
    println!("The chapter: {}", chapter(&number)?);
    println!("Then: ./just check {number}, ./just hint {number}, ./just watch {number}");
    if args.no_check {
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    println!("To begin with, every check fails:");
    println!();
    check_step::run(&number, &args.place, None, Reader::Learner)?;
    Ok(ExitCode::SUCCESS)
}

/// The URL of the step's chapter in the built book, or the command that builds
/// the book.
fn chapter(number: &str) -> Result<String> {
    let dir = skeleton::step_dir(number)?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let root = workspace::root();
    let page = root.join(format!("target/book/{name}.html"));
    Ok(match page.exists() {
        true => format!("file://{}", page.display()),
        false => "./just book".to_owned(),
    })
}
