//! `harness build`: builds every step as a static program in `bin/`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use check::{build, workspace};
use course::exercise::skeleton;

/// Builds all steps and lists the programs.
pub fn build() -> Result<ExitCode> {
    let steps = skeleton::steps()?;
    let numbers: Vec<String> = steps.into_iter().map(|(number, _)| number).collect();
    build::programs(&numbers)?;
    let bin = workspace::bin();
    for step in &numbers {
        let program = bin.join(workspace::program(step));
        let meta = fs::metadata(&program).with_context(|| format!("stat {}", program.display()))?;
        println!("{}  {} kB", program.display(), meta.len() / 1000);
    }
    Ok(ExitCode::SUCCESS)
}
