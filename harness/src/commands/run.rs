//! `harness run PLAN`: runs a plan and prints the records, a line of JSON each.

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::runner::{self, Plan};

/// Arguments of `harness run`.
#[derive(clap::Args)]
pub struct Args {
    /// A plan as JSON
    plan: PathBuf,
}

/// Runs the plan.
///
/// # Errors
/// The harness's own; a check that fails is a record.
pub fn run(args: Args) -> Result<ExitCode> {
    let text = fs::read(&args.plan).with_context(|| format!("read {}", args.plan.display()))?;
    let plan: Plan =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", args.plan.display()))?;
    if plan.untrusted {
        lock_up(&args.plan)?;
    }
    runner::run(&plan, &mut |record| {
        let mut line = serde_json::to_vec(&record).context("write a record as JSON")?;
        line.push(b'\n');
        stdout()
            .write_all(&line)
            .and_then(|()| stdout().flush())
            .context("write a record")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps hostile programs, which run as root beside us, from the seed and from
/// the memory of the checks.
fn lock_up(plan: &Path) -> Result<()> {
    fs::remove_file(plan).with_context(|| format!("unlink {}", plan.display()))?;
    // Nobody may trace anybody any more: ptrace(2), "/proc/sys/kernel/yama".
    let scope = "/proc/sys/kernel/yama/ptrace_scope";
    fs::write(scope, "3").with_context(|| format!("write 3 to {scope}"))
}
