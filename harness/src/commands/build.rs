//! `harness build`: every step, static, into `bin/`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{build, workspace};

/// Builds all steps and says what there is now.
///
/// # Errors
/// If a build fails.
pub fn build() -> Result<ExitCode> {
    let dir = workspace::root().join("steps");
    let reading = || format!("read {}", dir.display());
    let mut packages = Vec::new();
    for entry in fs::read_dir(&dir).with_context(reading)? {
        let name = entry.with_context(reading)?.file_name();
        // 03-pid is the package step-03.
        if let Some(number) = name.to_str().and_then(|name| name.get(..2)) {
            packages.push(format!("step-{number}"));
        }
    }
    packages.sort();
    build::programs(&packages)?;
    let bin = workspace::bin();
    for package in &packages {
        let step = package.trim_start_matches("step-");
        let program = bin.join(workspace::program(step));
        let meta = fs::metadata(&program).with_context(|| format!("stat {}", program.display()))?;
        println!("{}  {} kB", program.display(), meta.len() / 1000);
    }
    Ok(ExitCode::SUCCESS)
}
