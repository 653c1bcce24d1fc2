//! `harness doctor`: reports what this machine can and cannot do.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::doctor::{Finding, Grade, isolation, machine, tools};
use check::report::colour;

/// Arguments of `harness doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// Do not boot a virtual machine
    #[arg(long)]
    quick: bool,
}

/// Examines everything and prints each finding at once; for a bad one also its
/// consequence and its remedy. The exit status is 1 if the checks cannot run
/// here.
pub fn doctor(args: Args) -> Result<ExitCode> {
    let mut worst = Grade::Good;
    let mut section = |name: &str, looks: &[fn() -> Finding]| {
        println!("{name}");
        for look in looks {
            let finding = look();
            worst = worst.max(finding.grade);
            print(&finding)?;
        }
        anyhow::Ok(())
    };
    section("This machine", machine::LOOKS)?;
    section(
        "Isolation, for checks on this host (--here)",
        isolation::LOOKS,
    )?;
    section("Tools", tools::LOOKS)?;
    if !args.quick {
        section("The virtual machine, for all other checks", tools::VM_LOOKS)?;
    }
    println!(
        "\n{}",
        match worst {
            Grade::Good => "Everything works here.",
            Grade::Limited => "Everything needed works here; what is marked ! has limits.",
            Grade::Bad => "What is marked ✗ has to be mended first.",
        }
    );
    Ok(ExitCode::from(u8::from(worst == Grade::Bad)))
}

fn print(finding: &Finding) -> Result<()> {
    let (mark, paint) = match finding.grade {
        Grade::Good => ("✓", "32"),
        Grade::Limited => ("!", "33"),
        Grade::Bad => ("✗", "31"),
    };
    let mark = if colour() {
        format!("\x1b[{paint}m{mark}\x1b[0m")
    } else {
        mark.to_owned()
    };
    println!("  {mark} {:<16} {}", finding.name, finding.found);
    if finding.grade != Grade::Good {
        for (label, text) in [("means", &finding.means), ("mend", &finding.mend)] {
            if !text.is_empty() {
                println!("      {label:<6} {text}");
            }
        }
    }
    stdout().flush().context("print")
}
