//! `harness why`: finds what proves a source file: the wrong solutions that
//! edit it, and the checks that they fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use check::registry::Step;
use check::workspace;
use course::wrong::{self, Wrong};

/// Arguments of `harness why`.
#[derive(clap::Args)]
pub struct Args {
    /// Source files of the steps, or directories. Without any: the files that
    /// no wrong solution edits
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Prints the wrong solutions that edit each file, with the checks that they
/// fail; without arguments, the files that none edits.
///
/// # Errors
/// Names a file that is not a source of a step.
pub fn why(args: Args) -> Result<ExitCode> {
    let all = wrong::all()?;
    let mut editing: BTreeMap<&str, Vec<&Wrong>> = BTreeMap::new();
    for wrong in &all {
        let files: BTreeSet<&str> = wrong.edits.iter().map(|edit| &*edit.file).collect();
        for file in files {
            editing.entry(file).or_default().push(wrong);
        }
    }
    let sources = sources()?;
    if args.files.is_empty() {
        unproven(&sources, &editing);
        return Ok(ExitCode::SUCCESS);
    }
    for asked in &args.files {
        let asked = within(asked)?;
        let files: Vec<_> = sources
            .iter()
            .filter(|f| Path::new(f).starts_with(&asked))
            .collect();
        if files.is_empty() {
            bail!(
                "{} is not a source of a step: name a file or directory in steps/",
                asked.display()
            );
        }
        for file in files {
            print(file, editing.get(&**file).map_or(&[], Vec::as_slice))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(file: &str, wrongs: &[&Wrong]) -> Result<()> {
    println!("{file}");
    if wrongs.is_empty() {
        println!("  no wrong solution edits it");
    }
    for wrong in wrongs {
        println!("  {}: {}", wrong.name, wrong.title);
        let step = Step::read(&workspace::checks(), &wrong.step)?;
        for check in &wrong.fails {
            let title = step.entry(check).map_or("", |entry| &entry.title);
            println!("    step {}  {check}: {title}", wrong.step);
        }
    }
    Ok(())
}

fn unproven(sources: &[String], editing: &BTreeMap<&str, Vec<&Wrong>>) {
    let without: Vec<_> = sources
        .iter()
        .filter(|file| !editing.contains_key(&***file))
        .collect();
    println!(
        "{} of {} source files have a wrong solution that edits them. These have none:",
        sources.len() - without.len(),
        sources.len()
    );
    for file in without {
        println!("  {file}");
    }
}

/// The Rust sources of all steps, relative to the top of the repository,
/// sorted.
fn sources() -> Result<Vec<String>> {
    let root = workspace::root();
    let mut found = Vec::new();
    let mut open = vec![root.join("steps")];
    while let Some(dir) = open.pop() {
        let listing = || format!("list {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(listing)? {
            let path = entry.with_context(listing)?.path();
            let below = path
                .strip_prefix(&root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && !below.ends_with("/tests") {
                open.push(path);
            } else if below.ends_with(".rs") {
                found.push(below);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A path relative to the top of the repository, as in the wrong solutions.
fn within(asked: &Path) -> Result<PathBuf> {
    let root = workspace::root();
    let here = asked
        .canonicalize()
        .or_else(|_| root.join(asked).canonicalize());
    let there = here.with_context(|| format!("no such file: {}", asked.display()))?;
    let root = root.canonicalize().context("realpath of the repository")?;
    Ok(there.strip_prefix(&root).unwrap_or(&there).to_owned())
}
