//! `harness solution NN`: compares a learner's step with ours.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use similar::TextDiff;

use check::report::colour;
use check::workspace;
use course::exercise::region::solved;
use course::exercise::skeleton;
use course::exercise::work::Work;

/// Arguments of `harness solution`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    /// Show it before all checks have passed
    #[arg(long)]
    force: bool,
}

/// Prints the difference between the learner's sources and ours in the format
/// of diff(1). Without `--force` it fails until all checks have passed.
pub fn solution(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    if workspace::is_handed_out() {
        bail!("a handout has no solutions");
    }
    let work = Work::here();
    let theirs = work.started(&number)?;
    let done = work
        .progress()?
        .steps
        .get(&number)
        .is_some_and(|step| step.done());
    if !done && !args.force {
        bail!(
            "not all checks of step {number} have passed: ./just check {number}, ./just hint \
             {number}, or --force"
        );
    }
    let ours = skeleton::step_dir(&number)?;
    let files: BTreeSet<_> = skeleton::sources(&ours)?
        .into_iter()
        .chain(skeleton::sources(&theirs)?)
        .collect();
    let mut same = true;
    for file in files {
        let text = |path: std::path::PathBuf| match path.exists() {
            true => fs::read_to_string(&path).with_context(|| format!("read {}", path.display())),
            false => Ok(String::new()),
        };
        let (old, new) = (text(theirs.join(&file))?, solved(&text(ours.join(&file))?));
        let diff = TextDiff::from_lines(&old, &new);
        let shown = diff
            .unified_diff()
            .header(
                &format!("yours/{}", file.display()),
                &format!("ours/{}", file.display()),
            )
            .to_string();
        same &= shown.is_empty();
        print_diff(&shown, colour());
    }
    if same {
        println!("Yours is ours, to the letter.");
    }
    Ok(ExitCode::SUCCESS)
}

fn print_diff(diff: &str, colour: bool) {
    for line in diff.lines() {
        let ansi = match line.chars().next() {
            Some('+') => "32",
            Some('-') => "31",
            Some('@') => "36",
            _ => "",
        };
        match colour && !ansi.is_empty() {
            true => println!("\x1b[{ansi}m{line}\x1b[0m"),
            false => println!("{line}"),
        }
    }
}
