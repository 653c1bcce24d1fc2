//! `harness build`: builds every step as a static program in `bin/`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use check::{build, workspace};

/// Builds all steps and lists the programs.
pub fn build() -> Result<ExitCode> {
    let dir = workspace::root().join("steps");
    let reading = || format!("read {}", dir.display());
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&dir).with_context(reading)? {
        let name = entry.with_context(reading)?.file_name();
        // steps/kit is no step.
        let number = name.to_str().and_then(|name| name.get(..2));
        let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        numbers.extend(number.map(str::to_owned));
    }
    numbers.sort();
    build::programs(&numbers)?;
    let bin = workspace::bin();
    for step in &numbers {
        let program = bin.join(workspace::program(step));
        let meta = fs::metadata(&program).with_context(|| format!("stat {}", program.display()))?;
        println!("{}  {} kB", program.display(), meta.len() / 1000);
    }
    Ok(ExitCode::SUCCESS)
}
