//! What the checks of step 04 have in common: roots, trees and attempts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use check::prelude::*;

/// The names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(crate) fn make_dir(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("mkdir {}", path.display()))?;
    Ok(path)
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

pub(crate) fn link(target: impl AsRef<Path>, path: &Path) -> Result<()> {
    symlink(target, path).with_context(|| format!("symlink {}", path.display()))
}

/// A root file system with a file in its root whose name nobody can know.
pub(crate) fn marked(c: &Check) -> Result<(PathBuf, String)> {
    let rootfs = c.rootfs()?;
    let mark = c.word("mark");
    write(&rootfs.join(&mark), "")?;
    Ok((rootfs, mark))
}

/// A host as systemd leaves it, whatever this one is: every mount is shared,
/// and the check's directory is not on the root's.
pub(crate) fn shared_host(c: &Check) -> Result<Tree> {
    let tree = Tree::shared()?;
    tree.bind(c.dir())?;
    Ok(tree)
}

/// The step with that root.
pub(crate) fn with_root(c: &Check, rootfs: &Path) -> Step {
    c.step().args(["--rootfs"]).args([rootfs])
}

/// `SRC:DST`
pub(crate) fn volume(source: &Path, target: &str) -> String {
    format!("{}:{target}", source.display())
}

pub(crate) fn ask(held: &mut Held, words: &[&str]) -> Result<Attempt> {
    held.ask(words)
}

/// The mount at `path` inside is of this type and has these options.
pub(crate) fn expect_mount(seen: &Seen, path: &str, fstype: &str, options: &[&str]) -> Result<()> {
    let mount = seen
        .mount(path)
        .ok_or_else(|| failed(format!("a mount on {path} inside"), "none"))?;
    expect_eq(
        &format!("the file system on {path}"),
        mount.fstype.as_str(),
        fstype,
    )?;
    for option in options {
        expect(
            mount.options.iter().any(|o| o == option),
            format!("{path} to be mounted {option}"),
            mount.options.join(","),
        )?;
    }
    Ok(())
}

/// Writing there is refused because the mount is read-only.
pub(crate) fn expect_read_only(held: &mut Held, path: &str) -> Result<()> {
    let tried = ask(held, &["write", path, "x"])?;
    expect(
        tried.errno == "EROFS",
        format!("writing to {path} to be refused with EROFS"),
        if tried.allowed {
            "it allowed".to_owned()
        } else {
            tried.errno
        },
    )
}

pub(crate) fn expect_writable(held: &mut Held, path: &str) -> Result<()> {
    let tried = ask(held, &["write", path, "x"])?;
    expect(tried.allowed, format!("{path} to be writable"), tried.errno)
}
