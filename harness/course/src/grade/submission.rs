//! The sources that are taken from a submission: those of one crate that its
//! modules reach.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{modules, sources};

/// The most files, and the most bytes of all files together: ten times the
/// largest step.
const FILES: usize = 500;
const BYTES: u64 = 4 << 20;

/// The most entries of a directory or an archive, and the most bytes of an
/// archive. Students hand in whole repositories, with what was built.
const ENTRIES: usize = 100_000;
const ARCHIVE: u64 = 1 << 30;

/// The longest path, in bytes.
const PATH: usize = 500;

/// A student's sources, by their paths below `src/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// The paths below `src/`, and the texts (UTF-8).
    pub files: BTreeMap<PathBuf, String>,
}

impl Submission {
    /// Reads the crate of step `number` from a directory or a zip archive: the
    /// crate whose directory is called `NN-…`, or the only one.
    ///
    /// # Errors
    /// If there is no such crate, or if its sources are too large or refused by
    /// [`sources`].
    pub fn read(path: &Path, number: &str) -> Result<Self> {
        let found = match path.is_dir() {
            true => in_directory(path)?,
            false => in_zip(path)?,
        };
        let mut crates: BTreeMap<PathBuf, Submission> = BTreeMap::new();
        for (file, text) in found {
            let Some((top, below)) = split(&file) else {
                continue;
            };
            crates.entry(top).or_default().files.insert(below, text);
        }
        let named = |top: &Path| {
            top.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{number}-")))
        };
        let of_step = crates.keys().find(|top| named(top)).cloned();
        let chosen = match (of_step, crates.len()) {
            (Some(top), _) => crates.remove(&top),
            (None, 1) => crates.into_values().next(),
            (None, 0) => bail!("{}: no src/ with Rust sources in it", path.display()),
            (None, n) => bail!(
                "{}: {n} crates, and none in a directory {number}-…",
                path.display()
            ),
        };
        let mut submission = chosen.unwrap_or_default();
        for (file, text) in &submission.files {
            let directory = file.ancestors().skip(1);
            if let Some(file) = directory
                .into_iter()
                .find(|dir| submission.files.contains_key(*dir))
            {
                bail!("src/{} is a file and a directory", file.display());
            }
            sources::check(text).with_context(|| format!("src/{}", file.display()))?;
        }
        let reached = modules::reached(&submission.files);
        submission.files.retain(|file, _| reached.contains(file));
        Ok(submission)
    }

    /// Writes the sources below `crate_dir/src`.
    pub fn write(&self, crate_dir: &Path) -> Result<()> {
        for (file, text) in &self.files {
            let to = crate_dir.join("src").join(file);
            if let Some(dir) = to.parent() {
                fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
            }
            fs::write(&to, text).with_context(|| format!("write {}", to.display()))?;
        }
        Ok(())
    }
}

/// Splits `a/05-user/src/map.rs` into the crate's directory and `map.rs`.
/// `None` for a path that is not a source.
fn split(file: &Path) -> Option<(PathBuf, PathBuf)> {
    let parts: Vec<Component<'_>> = file.components().collect();
    if !parts
        .iter()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return None;
    }
    let src = parts.iter().position(|part| part.as_os_str() == "src")?;
    let below: PathBuf = parts[src + 1..].iter().collect();
    (below.extension()? == "rs").then(|| (parts[..src].iter().collect(), below))
}

/// The sources so far. Too many files or bytes are an error.
#[derive(Default)]
struct Taken {
    files: Vec<(PathBuf, String)>,
    bytes: u64,
}

impl Taken {
    fn add(&mut self, path: PathBuf, from: impl Read) -> Result<()> {
        let long = path.components().any(|part| part.as_os_str().len() > 255);
        if long || path.as_os_str().len() > PATH {
            bail!("a file has a name of more than 255 bytes, or a path of more than {PATH}");
        }
        let mut bytes = Vec::new();
        from.take(BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {}", path.display()))?;
        self.bytes += bytes.len() as u64;
        if self.bytes > BYTES || self.files.len() >= FILES {
            bail!("more than {FILES} files or {} MiB of sources", BYTES >> 20);
        }
        let text =
            String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))?;
        self.files.push((path, text));
        Ok(())
    }
}

/// The sources below a directory. Links are skipped, and so are directories
/// that are not the student's: `target`, and those whose names begin with a
/// dot.
fn in_directory(top: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut taken = Taken::default();
    let mut dirs = vec![PathBuf::new()];
    let mut entries = 0;
    while let Some(within) = dirs.pop() {
        let list = top.join(&within);
        for entry in fs::read_dir(&list).with_context(|| format!("list {}", list.display()))? {
            let entry = entry.with_context(|| format!("list {}", list.display()))?;
            entries += 1;
            if entries > ENTRIES {
                bail!("more than {ENTRIES} files and directories");
            }
            let name = entry.file_name();
            let hidden = name == "target" || name.to_string_lossy().starts_with('.');
            let kind = entry
                .file_type()
                .with_context(|| format!("stat {}", list.display()))?;
            let path = within.join(&name);
            if kind.is_dir() && !hidden && path.components().count() < 16 {
                dirs.push(path);
            } else if kind.is_file() && split(&path).is_some() {
                let file = File::open(top.join(&path))
                    .with_context(|| format!("open {}", path.display()))?;
                taken.add(path, file)?;
            }
        }
    }
    Ok(taken.files)
}

fn in_zip(archive: &Path) -> Result<Vec<(PathBuf, String)>> {
    let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let length = file
        .metadata()
        .with_context(|| format!("stat {}", archive.display()))?
        .len();
    if length > ARCHIVE {
        bail!("{} has more than {} MiB", archive.display(), ARCHIVE >> 20);
    }
    let mut zip = zip::ZipArchive::new(file)
        .with_context(|| format!("{} is neither a directory nor a zip", archive.display()))?;
    if zip.len() > ENTRIES {
        bail!("more than {ENTRIES} files and directories");
    }
    let mut taken = Taken::default();
    for place in 0..zip.len() {
        let entry = zip
            .by_index(place)
            .with_context(|| format!("read {}", archive.display()))?;
        let Some(path) = entry.enclosed_name() else {
            continue;
        };
        if entry.is_file() && split(&path).is_some() {
            taken.add(path, entry)?;
        }
    }
    Ok(taken.files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_in(dir: &Path, name: &str, file: &str, text: &str) -> Result<()> {
        let src = dir.join(name).join("src");
        fs::create_dir_all(&src)?;
        fs::write(src.join(file), text)?;
        Ok(())
    }

    #[test]
    fn only_sources_are_taken_that_modules_reach() -> Result<()> {
        let dir = tempfile::tempdir()?;
        crate_in(
            dir.path(),
            "05-user",
            "script.rs",
            "TARGET(binary) INPUT(x)",
        )?;
        crate_in(dir.path(), "05-user", "lib.rs", "//! mine\n")?;
        crate_in(dir.path(), "05-user", "data.bin", "x")?;
        fs::write(dir.path().join("05-user/build.rs"), "fn main() {}")?;
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("05-user/src/link.rs"))?;
        let submission = Submission::read(dir.path(), "05")?;
        let files: Vec<_> = submission.files.keys().collect();
        assert_eq!(files, [Path::new("lib.rs")]);
        Ok(())
    }

    #[test]
    fn the_crate_of_the_step_is_chosen() -> Result<()> {
        let dir = tempfile::tempdir()?;
        crate_in(dir.path(), "work/04-mount", "lib.rs", "//! four\n")?;
        crate_in(dir.path(), "work/05-user", "lib.rs", "//! five\n")?;
        let submission = Submission::read(dir.path(), "05")?;
        assert_eq!(submission.files[Path::new("lib.rs")], "//! five\n");
        assert!(Submission::read(dir.path(), "06").is_err());
        Ok(())
    }

    #[test]
    fn too_much_is_refused() -> Result<()> {
        let dir = tempfile::tempdir()?;
        crate_in(dir.path(), "05-user", "lib.rs", &"//\n".repeat(2 << 20))?;
        assert!(Submission::read(dir.path(), "05").is_err());
        Ok(())
    }
}
