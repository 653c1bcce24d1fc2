//! Builds the programs under test and the test programs, with cargo.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, stderr};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::registry::{Functions, Step};
use crate::workspace;

/// The test programs: step number to path.
pub type Tests = BTreeMap<String, PathBuf>;

/// The harness's own programs: part of every machine, or a tool that measures.
const OWN: [&str; 6] = [
    "bench-load",
    "floor",
    "harness",
    "overlaid",
    "probe",
    "wake",
];

/// Builds the programs of `steps` (numbers) and the harness's own in the
/// release profile and puts them in `bin/`. If `$DRYDOCK_BIN` names another
/// directory, its programs are used and nothing is built. cargo's messages go
/// to standard error.
///
/// Builds with the features of the whole workspace, so that each library is
/// built once, whichever steps are selected.
pub fn programs(steps: &[String]) -> Result<()> {
    if workspace::bin() != workspace::root().join("bin") {
        return Ok(());
    }
    let mut args = vec!["build", "--release", "--workspace"];
    let programs: Vec<String> = steps.iter().map(|step| workspace::program(step)).collect();
    for name in OWN.into_iter().chain(programs.iter().map(String::as_str)) {
        args.extend(["--bin", name]);
    }
    let built = cargo(&workspace::root(), &args)?;
    let bin = workspace::root().join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("mkdir {}", bin.display()))?;
    for program in built {
        if let Some(name) = program.file_name() {
            replace(&program, &bin.join(name))?;
            give_to_owner(&bin.join(name))?;
        }
    }
    Ok(())
}

/// Builds the checks of these steps and returns the path of each test program.
///
/// # Errors
/// Names a check that has a function but no data, or data but no function.
pub fn tests(numbers: &[String]) -> Result<Tests> {
    let names: Vec<String> = numbers.iter().map(|n| format!("step_{n}")).collect();
    let mut args = vec!["test", "--no-run", "--workspace"];
    for name in &names {
        args.extend(["--test", name]);
    }
    let mut tests = Tests::new();
    for program in cargo(&workspace::root(), &args)? {
        if let Some(number) = step_of(&program) {
            Step::read(&workspace::checks(), &number)?.agree(&Functions::of(&program)?)?;
            tests.insert(number, program);
        }
    }
    Ok(tests)
}

/// The number of the step whose checks a test program holds, by its name:
/// `step_03-1f2e3d4c5b6a7988`.
pub fn step_of(program: &Path) -> Option<String> {
    let name = program.file_name()?.to_str()?;
    let number = name.strip_prefix("step_")?.get(..2)?;
    Some(number.to_owned())
}

/// A cargo command in `dir` with the settings of this repository, wherever
/// `dir` is.
pub fn command(dir: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(dir);
    // cargo finds its settings in the directories above, and applies them twice
    // if it is also given the file.
    let root = workspace::root();
    if !dir.starts_with(&root) {
        command.arg("--config").arg(root.join(".cargo/config.toml"));
    }
    command
}

/// Runs cargo in `dir` and returns the executables that it has built, as its
/// JSON messages name them. Messages for people go to standard error.
pub fn cargo(dir: &Path, args: &[&str]) -> Result<Vec<PathBuf>> {
    let output = command(dir)
        .args(args)
        .args(["--message-format", "json-render-diagnostics"])
        // The first build takes minutes: on a terminal cargo shows its
        // progress.
        .args((!stderr().is_terminal()).then_some("--quiet"))
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    let mut programs = Vec::new();
    for line in output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message: serde_json::Value =
            serde_json::from_slice(line).context("parse a message of cargo")?;
        if let Some(program) = message["executable"].as_str() {
            programs.push(program.into());
        }
    }
    Ok(programs)
}

/// cargo's output directory for this machine below a target directory. It is
/// named after the target, because .cargo/config.toml names the target.
pub fn host_dir(target: &Path) -> PathBuf {
    target.join(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
}

/// Gives a file, or a directory with its content, to the owner of the
/// repository. Needed under sudo; without root it changes nothing.
pub fn give_to_owner(path: &Path) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let root = workspace::root();
    let owner = fs::metadata(&root).with_context(|| format!("stat {}", root.display()))?;
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        let about =
            fs::symlink_metadata(&path).with_context(|| format!("stat {}", path.display()))?;
        if about.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| format!("list {}", path.display()))? {
                paths.push(
                    entry
                        .with_context(|| format!("list {}", path.display()))?
                        .path(),
                );
            }
        }
        if (about.uid(), about.gid()) != (owner.uid(), owner.gid()) {
            lchown(&path, Some(owner.uid()), Some(owner.gid()))
                .with_context(|| format!("chown {}", path.display()))?;
        }
    }
    Ok(())
}

/// Replaces `to` by a copy of `from` in one step (rename(2)): a running program
/// is not disturbed.
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension("new");
    fs::copy(from, &temporary)
        .with_context(|| format!("copy {} to {}", from.display(), temporary.display()))?;
    fs::rename(&temporary, to).with_context(|| format!("rename to {}", to.display()))
}
