//! The book: runs its transcripts, and proves that what it includes and links
//! to exists.
//!
//! | module | what |
//! |---|---|
//! | [`transcript`] | the console blocks of a chapter, as commands with the output that they must have |
//! | [`shell`] | runs such commands, one by one, in the virtual machine |
//! | [`varies`] | what may vary in an output, from the file beside the page |
//! | [`compare`] | compares an output with the book's |
//! | [`session`] | boots the machine, runs the chapters, compares, rewrites |
//! | [`preprocess`] | insertions that mdBook lacks: differences, measurements, wrong solutions |
//! | [`includes`], [`experiments`], [`pages`](mod@pages) | checks of the sources and of the built pages |
//! | [`browser`], [`look`] | every page in a real browser |

pub mod browser;
pub mod compare;
pub mod experiments;
pub mod includes;
pub mod look;
pub mod pages;
pub mod preprocess;
pub mod session;
pub mod shell;
pub mod transcript;
pub mod varies;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use check::workspace;

/// The directory of the book, which holds `book.toml`.
pub fn dir() -> PathBuf {
    workspace::root().join("book")
}

/// The directory of the built pages: `target/book`.
pub fn built() -> PathBuf {
    workspace::root().join("target/book")
}

/// A page of the book.
#[derive(Clone, Debug)]
pub struct Page {
    /// The path below `book/src`, as in the summary.
    pub path: String,
    /// The Markdown text.
    pub text: String,
}

impl Page {
    /// The file's name without its extension: `04-mount`.
    pub fn name(&self) -> &str {
        self.path
            .rsplit_once('/')
            .map_or(self.path.as_str(), |(_, name)| name)
            .trim_end_matches(".md")
    }

    /// The path of the file.
    pub fn file(&self) -> PathBuf {
        dir().join("src").join(&self.path)
    }
}

/// The pages that the summary names, in its order.
pub fn pages() -> Result<Vec<Page>> {
    let summary = dir().join("src/SUMMARY.md");
    let text =
        fs::read_to_string(&summary).with_context(|| format!("read {}", summary.display()))?;
    let mut pages = Vec::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once("](") else {
            continue;
        };
        let path = rest.split(')').next().unwrap_or_default();
        if path.is_empty() {
            continue; // a draft
        }
        let file = dir().join("src").join(path);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        pages.push(Page {
            path: path.to_owned(),
            text,
        });
    }
    Ok(pages)
}

/// The mdBook that the repository uses. `tools/get` fetches it if it is
/// missing.
pub fn mdbook() -> Result<PathBuf> {
    let output = Command::new(workspace::root().join("tools/get"))
        .arg("mdbook")
        .stderr(Stdio::inherit())
        .output()
        .context("run tools/get mdbook")?;
    if !output.status.success() {
        bail!("tools/get mdbook failed");
    }
    Ok(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}

/// Builds the pages. mdBook reports a broken include as an ERROR and goes on;
/// here any ERROR or WARN is a failure.
pub fn build() -> Result<PathBuf> {
    let out = built();
    let output = Command::new(mdbook()?)
        .arg("build")
        .arg(dir())
        .arg("--dest-dir")
        .arg(&out)
        .output()
        .context("run mdbook")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let complaint = said
        .lines()
        .any(|line| line.contains("ERROR") || line.contains("WARN"));
    if !output.status.success() || complaint {
        bail!("mdbook build: {}", said.trim());
    }
    Ok(out)
}

/// A path as messages show it: from the top of the repository.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root())
        .unwrap_or(path)
        .display()
        .to_string()
}
