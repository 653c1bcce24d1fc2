//! Builds our steps with a change: wrong solutions, mutants.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Wrong;
use crate::exercise::work;
use check::{build, workspace};

/// Builds changed steps in a copy of the workspace that has only the steps.
pub struct Builder {
    dir: PathBuf,
    out: PathBuf,
}

/// What became of a build.
#[derive(Debug)]
pub enum Built {
    /// The path of the program.
    Program(PathBuf),
    /// It does not compile: the messages of cargo.
    No(String),
}

impl Builder {
    /// Updates the copy below `target/wrong`. There is one for all: to cargo,
    /// a second copy that shares the target directory would be the same
    /// packages, and up to date.
    pub fn new() -> Result<Self> {
        let root = workspace::root();
        let builder = Builder {
            dir: root.join("target/wrong/source"),
            out: root.join("target/wrong/bin"),
        };
        fs::create_dir_all(&builder.out)
            .with_context(|| format!("mkdir {}", builder.out.display()))?;
        copy_changed(&root.join("steps"), &builder.dir.join("steps"))?;
        let manifest = fs::read_to_string(root.join("Cargo.toml")).context("read Cargo.toml")?;
        let manifest = steps_only(&manifest)?;
        write_changed(&builder.dir.join("Cargo.toml"), manifest.as_bytes())?;
        let lock = fs::read(root.join("Cargo.lock")).context("read Cargo.lock")?;
        write_changed(&builder.dir.join("Cargo.lock"), &lock)?;
        Ok(builder)
    }

    /// Builds a wrong solution and returns the path of its program.
    pub fn build(&self, wrong: &Wrong) -> Result<PathBuf> {
        match self.changed(&wrong.name, &wrong.step, &wrong.files()?)? {
            Built::Program(program) => Ok(program),
            Built::No(messages) => {
                bail!("build the wrong solution {}:\n{messages}", wrong.name)
            }
        }
    }

    /// Builds step `step` with these files instead of ours, as the program
    /// `name`.
    pub fn changed(&self, name: &str, step: &str, files: &[(String, String)]) -> Result<Built> {
        for (file, text) in files {
            write_changed(&self.dir.join(file), text.as_bytes())?;
        }
        let program = workspace::program(step);
        let target = work::target();
        let built = build::command(&self.dir)
            .args(["build", "--profile", "wrong"])
            // The whole workspace, not one package: with the same features
            // for every step, shared crates are built once.
            .args(["--workspace", "--quiet", "--bin", &program])
            .arg("--target-dir")
            .arg(&target)
            .output()
            .context("run cargo")?;
        // Before anything else: the next one is built from the same copy.
        for (file, _) in files {
            let ours =
                fs::read(workspace::root().join(file)).with_context(|| format!("read {file}"))?;
            write_changed(&self.dir.join(file), &ours)?;
        }
        if !built.status.success() {
            let messages = String::from_utf8_lossy(&built.stderr);
            return Ok(Built::No(messages.trim().to_owned()));
        }
        let to = self.out.join(name);
        let from = build::host_dir(&target).join("wrong").join(&program);
        build::replace(&from, &to)?;
        Ok(Built::Program(to))
    }
}

/// The workspace's manifest with the steps as its only members, and with all
/// warnings allowed: unused code in a wrong solution does not matter.
fn steps_only(manifest: &str) -> Result<String> {
    let mut manifest: toml::Table = toml::from_str(manifest).context("parse Cargo.toml")?;
    let workspace = manifest
        .get_mut("workspace")
        .and_then(toml::Value::as_table_mut)
        .context("Cargo.toml has no [workspace]")?;
    workspace.insert("members".to_owned(), vec!["steps/*"].into());
    let lints = toml::toml! { rust.warnings = "allow" };
    workspace.insert("lints".to_owned(), lints.into());
    toml::to_string(&manifest).context("write a Cargo.toml")
}

/// Writes a file unless it has that content already. cargo goes by modification
/// times.
fn write_changed(to: &Path, content: &[u8]) -> Result<()> {
    if fs::read(to).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    fs::write(to, content).with_context(|| format!("write {}", to.display()))
}

/// Makes `to` equal to `from`, and touches only what differs.
fn copy_changed(from: &Path, to: &Path) -> Result<()> {
    let names = |dir: &Path| -> Result<BTreeSet<std::ffi::OsString>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            names.insert(
                entry
                    .with_context(|| format!("list {}", dir.display()))?
                    .file_name(),
            );
        }
        Ok(names)
    };
    fs::create_dir_all(to).with_context(|| format!("mkdir {}", to.display()))?;
    let wanted = names(from)?;
    for name in names(to)?.difference(&wanted) {
        let gone = to.join(name);
        let removed = if gone.is_dir() {
            fs::remove_dir_all(&gone)
        } else {
            fs::remove_file(&gone)
        };
        removed.with_context(|| format!("remove {}", gone.display()))?;
    }
    for name in wanted {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_changed(&from, &to)?;
        } else {
            write_changed(
                &to,
                &fs::read(&from).with_context(|| format!("read {}", from.display()))?,
            )?;
        }
    }
    Ok(())
}
