//! What the compiler has read of a submission: the last word on macros that
//! make it read other files. [`sources`](super::sources) refuses those by name;
//! a name may be handed from macro to macro, but the compiler lists each file
//! that it has opened (rustc's `--emit dep-info`, which cargo puts beside the
//! program).

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Looks through the list at `dep_info`: the sources of step `number` in `dir`
/// may be there, and those of the steps below, in `.ours`.
///
/// # Errors
/// Names another file, and those of reading the list.
pub fn check(dep_info: &Path, dir: &Path, number: &str) -> Result<()> {
    let text =
        fs::read_to_string(dep_info).with_context(|| format!("read {}", dep_info.display()))?;
    match files(&text)
        .into_iter()
        .find(|file| !is_allowed(file, dir, number))
    {
        None => Ok(()),
        Some(file) => bail!(
            "the compiler was made to read {}, which is not yours: leave that out",
            file.display()
        ),
    }
}

fn is_allowed(file: &Path, dir: &Path, number: &str) -> bool {
    let Ok(within) = file.strip_prefix(dir) else {
        return false;
    };
    let parts: Option<Vec<&str>> = within
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match parts.as_deref() {
        Some([".ours", step, "src", ..]) => step.get(..2).is_some_and(|below| below < number),
        Some([step, "src", ..]) => step.get(..2) == Some(number),
        _ => false,
    }
}

/// The files after `target:`, as make(1) writes them: between spaces, with a
/// backslash before a space that belongs to a name.
fn files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in text.lines() {
        let Some((_, list)) = line.split_once(": ") else {
            continue;
        };
        let list = list.replace("\\ ", "\0");
        let names = list.split(' ').filter(|name| !name.is_empty());
        files.extend(names.map(|name| PathBuf::from(name.replace('\0', " "))));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &str) -> bool {
        files(list)
            .iter()
            .all(|file| is_allowed(file, Path::new("/w w"), "02"))
    }

    #[test]
    fn own_sources_and_those_below_may_be_read() {
        assert!(allowed(
            "/t/step-02: /w\\ w/.ours/01-uts/src/name.rs /w\\ w/02-ipc/src/a/lib.rs\n"
        ));
    }

    #[test]
    fn nothing_else_may_be_read() {
        for file in [
            "/etc/passwd",
            "/w\\ w/.ours/02-ipc/src/lib.rs",
            "/w\\ w/.ours/03-pid/src/lib.rs",
            "/w\\ w/02-ipc/src/../../.ours/02-ipc/src/lib.rs",
            "/w\\ w/03-pid/src/lib.rs",
            "/w\\ w/02-ipc/Cargo.toml",
        ] {
            assert!(!allowed(&format!("/t/step-02: {file}")), "{file}");
        }
    }
}
