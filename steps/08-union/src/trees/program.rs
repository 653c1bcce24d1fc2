//! Programs of the host that the block-device drivers call: mkfs and dmsetup.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use kit::say;

/// The directories of programs for root, independent of the caller's PATH.
const DIRECTORIES: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
];

/// The path of a program; `None` if the host does not have it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

/// Runs a program and returns its standard output. `-v` shows the command, so
/// that it can be repeated.
///
/// # Errors
/// If the program is missing, or if it fails: with the last useful line of its
/// standard error.
pub(crate) fn run<A: AsRef<OsStr>>(name: &str, args: &[A]) -> Result<String> {
    let Some(path) = find(name) else {
        bail!("the program {name} is missing: install its package");
    };
    let shown = args.iter().fold(name.to_owned(), |line, arg| {
        format!("{line} {}", arg.as_ref().to_string_lossy())
    });
    say!("{shown}");
    let done = Command::new(&path)
        .args(args)
        // Its messages are parsed.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {path:?}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let mut why = said
            .lines()
            .filter(|line| !["", "Command failed."].contains(&line.trim()));
        let last = why.next_back();
        bail!("{shown}: {}", last.unwrap_or("it failed without a message"));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
