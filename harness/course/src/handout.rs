//! `harness handout DIR`: makes a repository for students, without solutions.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use toml::Table;

use crate::exercise::skeleton::{self, Solutions, read, write};
use crate::exercise::work::UNFINISHED;
use crate::wrong::{self, Wrong};
use check::report::progress;
use check::workspace;

/// Arguments of `harness handout`.
#[derive(clap::Args)]
pub struct Args {
    /// The directory, which is made
    dir: PathBuf,

    /// The steps to be solved: 05, or 01-05. Those below are handed out solved,
    /// those above not at all, unless one of these needs them
    #[arg(long, default_value = "00-10", value_name = "FIRST-LAST")]
    steps: String,
}

/// Files for teachers only: solutions, and what reveals them.
const OURS: [&str; 18] = [
    "harness/wrong/",
    "harness/hostile/",
    "harness/handout/",
    "harness/mutants.toml",
    "harness/autograder/",
    "harness/tests/circles.rs",
    "harness/tests/contributing.rs",
    "harness/tests/english.rs",
    "harness/tests/mutants.rs",
    "harness/tests/tour.rs",
    "harness/tests/wrong.rs",
    "harness/tests/exercises.rs",
    "harness/tests/grading.rs",
    "harness/tests/handout.rs",
    "tools/test-class",
    ".ci/",
    "CONTRIBUTING.md",
    "README.md",
];

/// Words of the pages about this repository, and those about a handout.
const WORDS: [(&str, &str); 6] = [
    ("<summary>Our solution of", "<summary>The place of"),
    (
        "writes the skeleton to `work/",
        "lists the exercises in `steps/",
    ),
    (
        " `./just solution 00` shows the difference to our code at the end.",
        "",
    ),
    (
        "runs the checks on our step",
        "runs the checks on your step",
    ),
    (
        ", `./just hint NN` tells you what to look at next, and `./just solution NN` shows the \
         difference to our code once all checks pass",
        ", and `./just hint NN` tells you what to look at next",
    ),
    (
        " Git ignores `work/`; to keep your work, run `git init` in it.",
        "",
    ),
];

/// Commands that only teachers, or only those with all steps, can use.
const TEACHERS: &str = "[group('teach')]";
/// The step from which on there is an engine.
const ENGINE: &str = "09";

/// Writes the repository with a single commit, so that no solution is in its
/// history. `DIR` must not exist.
pub fn handout(args: Args) -> Result<ExitCode> {
    let (first, last) = range(&args.steps)?;
    let dir = &args.dir;
    if dir.exists() {
        bail!("{} is there already: choose another place", dir.display());
    }
    let steps = lay_out(dir, &first, &last)?;
    commit(dir)?;
    println!("{}: steps {} to be solved", dir.display(), steps.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Writes the files of a handout into `dir` and returns the steps to be solved.
pub(crate) fn lay_out(dir: &Path, first: &str, last: &str) -> Result<Vec<String>> {
    progress("copying");
    let root = workspace::root();
    let mut steps = Vec::new();
    let wrongs = wrong::all()?;
    let shared = skeleton::shared()?;
    let needed = skeleton::needed_above(last)?;
    let is_shared = |file: &Path| {
        let within = file.strip_prefix("steps");
        within.is_ok_and(|file| shared.iter().any(|shared| file.starts_with(shared)))
    };
    for file in tracked(&root)? {
        let text = file.to_string_lossy().into_owned();
        if OURS.iter().any(|ours| text.starts_with(ours)) {
            continue;
        }
        match step_of(&text) {
            Some(step)
                if step.as_str() > last
                    && !(text.starts_with("steps/") && needed.contains(&step)) =>
            {
                continue;
            }
            Some(step) if step.as_str() < first && text.starts_with("harness/exercises/") => {
                continue;
            }
            // Skeletons follow below.
            Some(step)
                if (first..=last).contains(&step.as_str())
                    && text.starts_with("steps/")
                    && !is_shared(&file) =>
            {
                continue;
            }
            _ if text.starts_with("book/src/") && text.ends_with(".md") => {
                let page = without_solutions(&read(&root.join(&file))?, last, &wrongs)?;
                write(&dir.join(&file), &page)?;
            }
            _ => copy(&root.join(&file), &dir.join(&file))?,
        }
    }
    for (number, ours) in skeleton::steps()? {
        if number.as_str() < first || number.as_str() > last {
            continue;
        }
        let to = dir.join("steps").join(ours.file_name().unwrap_or_default());
        skeleton::copy(&number, &to, Solutions::CutOut)?;
        steps.push(number);
    }
    for manifest in ["harness/Cargo.toml", "harness/check/Cargo.toml"] {
        let manifest = dir.join(manifest);
        write(&manifest, &with_tests_in(dir, &read(&manifest)?)?)?;
    }
    let to_be_solved = match first == last {
        true => format!("step {first}"),
        false => format!("steps {first} to {last}"),
    };
    for file in ["README.md", "test"] {
        let text = read(&root.join("harness/handout").join(file))?
            .replace("STEPS", &to_be_solved)
            .replace("FIRST   ", &format!("{first}      ")) // in the column that it had
            .replace("FIRST", first);
        let to = match file {
            "test" => dir.join("tools/test"),
            _ => dir.join(file),
        };
        write(&to, &text)?;
    }
    let commands = read(&root.join("justfile"))?;
    write(&dir.join("justfile"), &without_unusable(&commands, last))?;
    let workflow = read(&root.join("harness/handout/classroom.yml"))?;
    write(
        &dir.join(".github/workflows/classroom.yml"),
        &with_steps(&workflow, &steps),
    )?;
    let manifest = dir.join("Cargo.toml");
    let text = quiet(&read(&manifest)?)?;
    write(&manifest, &without_profiles_of(&text, dir))?;
    lock(dir)?;
    Ok(steps)
}

/// The workflow with a job step for each step of the course. The reporter reads
/// the result of the step `NAME` from the variable `NAME_RESULTS`; a variable
/// holds at most 128 KiB (execve(2)), so messages are shortened.
fn with_steps(workflow: &str, steps: &[String]) -> String {
    let (mut jobs, mut results) = (String::new(), String::new());
    for step in steps {
        jobs += &format!(
            "      - name: Step {step}
        id: step{step}
        run: |
          tools/harness grade {step} --submission . --format classroom --output marks-{step}.json
          jq . marks-{step}.json
          result=$(jq -c '.tests[].message |= .[:300]' marks-{step}.json | base64 -w 0)
          echo \"result=$result\" >>\"$GITHUB_OUTPUT\"
"
        );
        results += &format!(
            "          STEP{step}_RESULTS: \"${{{{ steps.step{step}.outputs.result }}}}\"\n"
        );
    }
    let runners: Vec<String> = steps.iter().map(|step| format!("step{step}")).collect();
    workflow
        .replace("STEPS\n", &jobs)
        .replace("RESULTS\n", &results)
        .replace("RUNNERS", &runners.join(","))
}

/// The manifest of the workspace with the lints off that skeletons violate.
fn quiet(manifest: &str) -> Result<String> {
    let lints = "[workspace.lints.rust]\n";
    if !manifest.contains(lints) {
        bail!("Cargo.toml has no {}", lints.trim());
    }
    let allowed: String = UNFINISHED
        .iter()
        .map(|lint| format!("{lint} = \"allow\"\n"))
        .collect();
    Ok(manifest
        .replace(lints, &format!("{lints}{allowed}"))
        .replace("todo = \"warn\"", "todo = \"allow\""))
}

/// The manifest of the workspace without the profiles of steps that are not in
/// `dir`: cargo would warn of each at every build.
fn without_profiles_of(manifest: &str, dir: &Path) -> String {
    let steps = fs::read_dir(dir.join("steps"));
    let steps: Vec<String> = steps
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let is_there = |line: &&str| {
        let package = line
            .strip_prefix("step-")
            .and_then(|rest| rest.split_once('.'));
        let number = package.map(|(number, _)| format!("{number}-"));
        number.is_none_or(|number| steps.iter().any(|step| step.starts_with(&number)))
    };
    let lines: Vec<&str> = manifest.lines().filter(is_there).collect();
    lines.join("\n") + "\n"
}

fn range(text: &str) -> Result<(String, String)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| -> Result<String> {
        let number: u8 = text
            .parse()
            .with_context(|| format!("--steps {text:?}: a number such as 05, or 01-05"))?;
        Ok(format!("{number:02}"))
    };
    let (first, last) = (number(first)?, number(last)?);
    skeleton::step_dir(&first)?;
    skeleton::step_dir(&last)?;
    if first > last {
        bail!("--steps {text}: the first step comes after the last");
    }
    Ok((first, last))
}

/// The number of the step that a file belongs to: `steps/05-user/…`,
/// `harness/tests/step_05.rs`, `harness/exercises/05.toml`.
fn step_of(file: &str) -> Option<String> {
    let rest = file
        .strip_prefix("steps/")
        .or_else(|| file.strip_prefix("harness/tests/step_"))
        .or_else(|| file.strip_prefix("harness/exercises/"))?;
    let number = rest.get(..2)?;
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| number.to_owned())
}

/// The files that git tracks.
fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let output = git(root, &["ls-files", "-z"])?;
    Ok(output
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}

fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .current_dir(dir)
        .args(args)
        .output()
        .context("run git")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes unneeded packages from Cargo.lock.
fn lock(dir: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(dir)
        .args(["update", "--workspace", "--offline", "--quiet"])
        .output()
        .context("run cargo update")?;
    if !output.status.success() {
        bail!(
            "cargo update --workspace: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn commit(dir: &Path) -> Result<()> {
    git(dir, &["init", "--quiet", "--initial-branch", "main"])?;
    git(dir, &["add", "--all"])?;
    git(
        dir,
        &[
            "-c",
            "user.name=Drydock",
            "-c",
            "user.email=drydock@localhost",
            "commit",
            "--quiet",
            "--message",
            "The exercises",
        ],
    )?;
    Ok(())
}

/// A manifest of the harness with those of its tests that are handed out.
fn with_tests_in(dir: &Path, text: &str) -> Result<String> {
    let mut manifest: Table = text.parse().context("parse the manifest of the harness")?;
    if let Some(tests) = manifest.get_mut("test").and_then(|t| t.as_array_mut()) {
        let tests_in = dir.join("harness/tests");
        tests.retain(|test| {
            let name = test.get("name").and_then(|name| name.as_str());
            name.is_some_and(|name| tests_in.join(format!("{name}.rs")).is_file())
        });
    }
    toml::to_string(&manifest).context("write the manifest of the harness")
}

/// A page of the book that students can build: of a wrong solution it keeps the
/// belief only, and of a step that is not handed out nothing.
fn without_solutions(page: &str, last: &str, wrongs: &[Wrong]) -> Result<String> {
    let mut out = String::new();
    for line in page.lines() {
        let words = line
            .strip_prefix("{{#")
            .and_then(|rest| rest.strip_suffix("}}"))
            .and_then(|words| words.split_once(' '));
        let above = |step: &str| step.get(..2).is_some_and(|number| number > last);
        match words {
            Some(("wrong", name)) => {
                let wrong = wrongs.iter().find(|wrong| wrong.name == name);
                let wrong = wrong.with_context(|| format!("there is no wrong solution {name}"))?;
                out += &format!(
                    "**Belief: {}.** What follows from it, and which check finds it?",
                    wrong.title
                );
            }
            Some(("main-diff", step)) if above(step) => out += "That step was not handed out.",
            Some(("include", path)) if path.strip_prefix("../../steps/").is_some_and(above) => {
                out += "// this step was not handed out";
            }
            _ => {
                let mut line = line.to_owned();
                for (ours, theirs) in WORDS {
                    line = line.replace(ours, theirs);
                }
                out += &line;
            }
        }
        out.push('\n');
    }
    Ok(out)
}

/// The justfile without the commands that do not work in a handout.
fn without_unusable(justfile: &str, last: &str) -> String {
    let needs_all = ["demo", "run", "bench", "claims", "inject", "kernels"];
    let usable = |recipe: &&str| {
        let named = |name: &str| {
            recipe
                .lines()
                .any(|line| line.starts_with(&format!("{name} ")))
        };
        !recipe.contains(TEACHERS)
            && !named("solution")
            && (last >= ENGINE || !needs_all.into_iter().any(named))
    };
    let recipes: Vec<&str> = justfile.split("\n\n").filter(usable).collect();
    recipes
        .join("\n\n")
        .replace(
            "Run all tests, as CI does; --changed [BASE]: those that your changes can affect",
            "Check all steps that were handed out",
        )
        .replace(
            "A first hour: twelve short experiments",
            "Short experiments",
        )
        .replace(
            "Start step NN: create its skeleton, with its exercises, in work/",
            "Show the exercises of step NN, with their files",
        )
        .trim_end()
        .to_owned()
        + "\n"
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    match fs::read_link(from) {
        Ok(target) => symlink(target, to).with_context(|| format!("symlink {}", to.display())),
        Err(_) => fs::copy(from, to)
            .map(|_| ())
            .with_context(|| format!("copy {}", from.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_profiles_of_steps_that_are_there_stay() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("steps/01-uts")).unwrap();
        let manifest = "[a]\nstep-01.opt-level = 2\nstep-10.opt-level = 2\nsha2.opt-level = 2\n";
        assert_eq!(
            without_profiles_of(manifest, dir.path()),
            "[a]\nstep-01.opt-level = 2\nsha2.opt-level = 2\n"
        );
    }
}
