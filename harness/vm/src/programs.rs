//! Programs of this host that a check needs inside the VM, with their
//! libraries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use check::plan::Plan;
use check::requirement;

/// The programs that checks of `plan` require or use (`tool:NAME`) and that
/// this host has, with the libraries that they load. A missing program is
/// missing inside too, and the check reports it.
pub fn required(plan: &Plan) -> Result<BTreeSet<PathBuf>> {
    let programs = plan
        .batches
        .iter()
        .flat_map(|batch| &batch.step.checks)
        .flat_map(|check| check.requires.iter().chain(&check.uses))
        .filter_map(|requirement| requirement.strip_prefix("tool:"))
        .filter_map(requirement::tool)
        .collect::<BTreeSet<_>>();
    let mut all = programs.clone();
    for program in &programs {
        all.extend(libraries(program)?);
    }
    Ok(all)
}

/// The libraries that a program loads, by ldd(1); none for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .with_context(|| format!("run ldd {}", program.display()))?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses ldd's output. A line is `name => /path (address)`, or `/path
/// (address)`.
fn parse(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let text = "\tlinux-vdso.so.1 (0x00007f4edef75000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f4eded0e000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f4edef77000)\n";
        let found = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse(text), found.map(PathBuf::from));
        assert!(parse("\tstatically linked\n").is_empty());
    }
}
