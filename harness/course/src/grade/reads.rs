//! A check of the files that the compiler and the linker have read for a
//! submission: a second protection, behind the [`jail`](super::jail). Both list
//! their files as rules of make(1): rustc by `--emit dep-info`, the linker by
//! `--dependency-file`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::jail::SYSTEM;
use super::kit::Kit;
use super::submission::Submission;

/// Checks the lists of a submission that was compiled from `dir` to `out`.
/// rustc may have read the submission's sources. The linker may have read
/// objects and libraries that were made here, or that belong to the kit or to
/// the system.
///
/// # Errors
/// Names a file that should not have been read.
pub fn check(kit: &Kit, dir: &Path, out: &Path, submission: &Submission) -> Result<()> {
    let sources = Path::new(&kit.name).join("src");
    let own: BTreeSet<PathBuf> = submission.files.keys().map(|f| sources.join(f)).collect();
    for list in kit.lists(out) {
        refuse("compiler", &list, |file| {
            own.contains(file.strip_prefix(dir).unwrap_or(file))
        })?;
    }
    let mut libraries = vec![out, &kit.libraries];
    libraries.extend(kit.toolchain.iter().map(PathBuf::as_path));
    libraries.extend(SYSTEM.map(Path::new));
    refuse("linker", &kit.linked(out), |file| {
        is_linked(file) && libraries.iter().any(|dir| is_within(file, dir))
    })
}

fn refuse(who: &str, list: &Path, is_expected: impl Fn(&Path) -> bool) -> Result<()> {
    let text = fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?;
    match files(&text).iter().find(|file| !is_expected(file)) {
        None => Ok(()),
        Some(file) => bail!(
            "the {who} was made to read {}, which is not yours: leave that out",
            file.display()
        ),
    }
}

/// Whether a file has the name of an object or a library. A source has not,
/// even if the linker would accept it as a script.
fn is_linked(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    [".o", ".a", ".rlib", ".so"]
        .iter()
        .any(|kind| name.ends_with(kind))
        || name.contains(".so.")
}

/// Whether a file is below `dir`. The linker's paths of the C library contain
/// `..`.
fn is_within(file: &Path, dir: &Path) -> bool {
    if file.components().all(|part| part != Component::ParentDir) && file.starts_with(dir) {
        return true;
    }
    match (fs::canonicalize(file), fs::canonicalize(dir)) {
        (Ok(file), Ok(dir)) => file.starts_with(dir),
        _ => false,
    }
}

/// The files after `target:`, in the syntax of make(1): separated by blanks,
/// with a backslash before a blank within a name, and one at the end of a line
/// that continues.
fn files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        let Some((_, list)) = line.split_once(": ") else {
            continue;
        };
        let list = list.replace("\\ ", "\0").replace("$$", "$");
        let names = list.split_whitespace();
        files.extend(names.map(|name| PathBuf::from(name.replace('\0', " "))));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_make_reads_them() {
        let rustc = "/o/uts.d: 01-uts/src/lib.rs a\\ b/c.rs\n\n01-uts/src/lib.rs:\n# env-dep:X=1\n";
        assert_eq!(
            files(rustc),
            ["01-uts/src/lib.rs", "a b/c.rs"].map(PathBuf::from)
        );
        let linker = "/o/step_01: \\\n  /usr/lib/crt1.o \\\n  /o/step_01.o\n\n/usr/lib/crt1.o:\n";
        assert_eq!(
            files(linker),
            ["/usr/lib/crt1.o", "/o/step_01.o"].map(PathBuf::from)
        );
    }

    #[test]
    fn only_objects_and_libraries_are_linked() {
        for name in ["/o/a.o", "libc.a", "libnix-1.rlib", "libc.so", "libm.so.6"] {
            assert!(is_linked(Path::new(name)), "{name}");
        }
        for name in [
            "01-uts/src/name.rs",
            "/usr/lib/os-release",
            "/etc/passwd",
            "so",
        ] {
            assert!(!is_linked(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn nobody_climbs_out() {
        assert!(is_within(Path::new("/o/gone/a.o"), Path::new("/o")));
        assert!(is_within(
            Path::new("/usr/lib/../lib"),
            Path::new("/usr/lib")
        ));
        assert!(!is_within(
            Path::new("/usr/lib/../bin"),
            Path::new("/usr/lib")
        ));
        assert!(!is_within(Path::new("/o/../etc/passwd"), Path::new("/o")));
    }
}
