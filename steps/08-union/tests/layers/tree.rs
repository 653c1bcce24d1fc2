//! A tree as text that can be compared.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FileType, Stat};
use union::tree::node::Metadata;
use union::tree::{Tree, file_type};

/// When a directory was made of which no archive speaks: now.
const RECENT: i64 = 1_000_000_000;

/// A line for every file: type, mode, owner, time, attributes, content, and
/// which names are those of one file.
pub fn describe(tree: &Tree, root: &Path) -> Result<String> {
    let mut text = String::new();
    let mut files = HashMap::new();
    let mut line = |path: &Path, stat: &Stat| -> Result<()> {
        let look = Metadata::read(tree, path, stat)?;
        let what = match file_type(stat) {
            FileType::RegularFile => {
                let mut content = String::new();
                tree.file(path)?.read_to_string(&mut content)?;
                format!("file {content:?}")
            }
            FileType::Symlink => format!("link to {:?}", tree.link(path)?),
            other => format!("{other:?} {:x}", stat.st_rdev),
        };
        let next = files.len();
        let file = *files.entry((stat.st_dev, stat.st_ino)).or_insert(next);
        let time = match look.mtime.0 {
            RECENT.. => "recent".to_owned(),
            old => old.to_string(),
        };
        writeln!(
            text,
            "/{} #{file} {:o} {}:{} {time} {:?} {what}",
            path.display(),
            look.mode,
            look.uid,
            look.gid,
            look.xattrs
        )?;
        Ok(())
    };
    let stat = tree.stat(root)?.context("a root")?;
    line(root, &stat)?;
    tree.walk(root, &mut |path, stat| line(path, stat).map(|()| true))?;
    Ok(text)
}
