//! `harness changed [BASE]`: names what is worth running after a change, for
//! `tools/test --changed`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::changed;
use check::{registry, workspace};
use course::wrong;

/// Arguments of `harness changed`.
#[derive(clap::Args)]
pub struct Args {
    /// Commit to compare with
    #[arg(default_value = "HEAD")]
    base: String,
}

/// Prints a line for each kind of thing that is worth running: the kind and the
/// names.
pub fn changed(args: Args) -> Result<ExitCode> {
    let mut files = git(&[
        "diff",
        "--name-only",
        "--no-renames",
        "-z",
        &args.base,
        "--",
    ])?;
    files.extend(git(&["ls-files", "--others", "--exclude-standard", "-z"])?);
    let steps = registry::numbers(&workspace::checks())?;
    let touched = changed::by(&files, &steps, &wrong::all()?);
    println!("files {}", files.len());
    if let Some(file) = &touched.all {
        println!("all {file}");
    }
    let sets = [
        ("steps", &touched.steps),
        ("skeletons", &touched.skeletons),
        ("pages", &touched.pages),
        ("wrong", &touched.wrong),
    ];
    for (name, set) in sets {
        if !set.is_empty() {
            let words: Vec<&str> = set.iter().map(String::as_str).collect();
            println!("{name} {}", words.join(" "));
        }
    }
    for (name, is) in [("hostile", touched.hostile), ("book", touched.book)] {
        if is {
            println!("{name} yes");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs git and returns the names that it prints, each ended by NUL.
fn git(args: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(workspace::root())
        .args(args)
        .output()
        .context("run git")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("git {}: {}", args[0], said.trim());
    }
    let names = String::from_utf8(output.stdout).context("a file's name that is not UTF-8")?;
    let names = names.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}
