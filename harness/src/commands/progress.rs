//! `harness progress`: prints a learner's progress.

use std::io::{ErrorKind, Write, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};

use check::registry::{self, Step};
use check::workspace;
use course::exercise::skeleton;
use course::exercise::work::Work;

/// Prints a table of the steps.
pub fn progress() -> Result<ExitCode> {
    let progress = Work::here().progress()?;
    let mut table = String::from("step            checks    points  best  exercises left\n");
    for number in registry::numbers(&workspace::checks())? {
        // The steps below those of a handout are solved.
        if workspace::is_handed_out() && !skeleton::has_exercises(&number) {
            continue;
        }
        let step = Step::read(&workspace::checks(), &number)?;
        let dir = Work::here().step(&number)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let [passed, points, best, left] = match progress.steps.get(&number) {
            None => ["–", "–", "–", "not started"].map(str::to_owned),
            Some(step) => [
                step.passed.to_string(),
                step.points.to_string(),
                step.best.to_string(),
                left(&number, &dir)?,
            ],
        };
        table += &format!(
            "{name:12} {passed:>5}/{:<4} {points:>5}/100  {best:>4}  {left}\n",
            step.checks.len()
        );
    }
    match stdout().write_all(table.as_bytes()) {
        // Whoever reads it has seen enough: progress | head.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.context("write to standard output")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The number of exercises in a crate that were not begun.
fn left(number: &str, dir: &std::path::Path) -> Result<String> {
    if !dir.join("src").is_dir() {
        return Ok("gone".to_owned());
    }
    let mut open: Vec<String> = skeleton::open(dir, number)?
        .into_iter()
        .map(|(exercise, _)| exercise.name)
        .collect();
    open.dedup();
    Ok(open.len().to_string())
}
