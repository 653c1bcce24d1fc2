//! What is handed out holds no solution, in whatever place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use check::workspace;
use course::exercise::skeleton::{self, Solutions};

const FIRST: &str = "01";
const LAST: &str = "05";

/// Lines that are shorter are in everybody's programs.
const SHORTEST: usize = 24;

#[test]
fn a_handout_holds_no_line_of_a_solution() -> Result<()> {
    let top = tempfile::tempdir()?;
    let dir = top.path().join("class");
    let steps = format!("{FIRST}-{LAST}");
    let made = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["handout", &dir.to_string_lossy(), "--steps", &steps])
        .output()
        .context("run harness handout")?;
    ensure!(made.status.success(), "{made:?}");

    let commits = git(&dir, &["rev-list", "--all", "--reflog", "--count"])?;
    ensure!(commits.trim() == "1", "{commits} commits");
    ensure!(git(&dir, &["status", "--porcelain"])?.is_empty());

    let secrets = secrets()?;
    ensure!(
        secrets.len() > 300,
        "{} lines are looked for",
        secrets.len()
    );
    let mut found = BTreeSet::new();
    for file in files(&dir)? {
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let place = file.strip_prefix(&dir)?.display().to_string();
        found.extend(lines_of(&text, &secrets).map(|line| format!("{place}: {line}")));
    }
    // Objects that no commit leads to as well.
    let objects = git(&dir, &["cat-file", "--batch-all-objects", "--batch"])?;
    found.extend(lines_of(&objects, &secrets).map(|line| format!(".git: {line}")));
    let found: Vec<String> = found.into_iter().collect();
    ensure!(
        found.is_empty(),
        "{} lines of solutions:\n{}",
        found.len(),
        found.join("\n")
    );
    Ok(())
}

/// The lines of `text` that are secret, also as a difference shows them.
fn lines_of<'a>(text: &'a str, secrets: &BTreeSet<String>) -> impl Iterator<Item = &'a str> {
    text.lines()
        .map(|line| line.trim().trim_start_matches(['+', '-']).trim())
        .filter(|line| secrets.contains(*line))
}

/// The lines of our solutions, of the steps to be solved and those above, that
/// are nowhere in what everybody may see.
fn secrets() -> Result<BTreeSet<String>> {
    let lines = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| line.len() >= SHORTEST && !line.starts_with("//"))
            .collect()
    };
    let (mut secret, mut open) = (BTreeSet::new(), BTreeSet::new());
    let skeletons = tempfile::tempdir()?;
    for (number, dir) in skeleton::steps()? {
        let solutions = match number.as_str() < FIRST {
            true => Solutions::Stay,
            false => Solutions::CutOut,
        };
        if number.as_str() <= LAST {
            let handed_out = skeletons.path().join(&number);
            skeleton::copy(&number, &handed_out, solutions)?;
            for file in skeleton::sources(&handed_out)? {
                open.extend(lines(&fs::read_to_string(handed_out.join(file))?));
            }
        }
        if solutions == Solutions::CutOut {
            for place in skeleton::places(&dir)? {
                secret.extend(lines(&place.solution));
            }
        }
    }
    let ours = [
        "bench", "book", "check", "course", "inject", "src", "tests", "vm",
    ];
    let harness = Path::new("harness");
    let mut folders: Vec<PathBuf> = ours.map(|dir| harness.join(dir)).into();
    let steps = Path::new("steps");
    folders.extend(skeleton::shared()?.iter().map(|dir| steps.join(dir)));
    for dir in folders {
        for file in files(&workspace::root().join(dir))? {
            open.extend(lines(&fs::read_to_string(file)?));
        }
    }
    Ok(secret.difference(&open).cloned().collect())
}

/// All files below `dir`, without git's own and what was built.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        match entry.file_type()? {
            kind if kind.is_dir() && name != ".git" && name != "target" => {
                files.extend(self::files(&entry.path())?);
            }
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(files)
}

fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("git").current_dir(dir).args(args).output()?;
    if !output.status.success() {
        bail!("git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
