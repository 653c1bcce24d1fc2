//! Checks of the built pages: every internal link leads to a page or section,
//! and nothing is loaded from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

/// The faults of the pages below `built`, one per line.
pub fn complaints(built: &Path) -> Result<Vec<String>> {
    let mut texts = BTreeMap::new();
    read(built, &mut texts)?;
    let ids: BTreeMap<&PathBuf, BTreeSet<&str>> = texts
        .iter()
        .map(|(path, text)| (path, attributes(text, "id").collect()))
        .collect();
    let mut complaints = Vec::new();
    for (path, text) in &texts {
        let page = path.strip_prefix(built).unwrap_or(path).display();
        // print.html has the links of all pages, relative to each.
        if ["print.html", "404.html", "toc.html"]
            .iter()
            .any(|p| path.ends_with(p))
        {
            continue;
        }
        for link in attributes(text, "href") {
            if let Some(why) = broken(path, link, &ids) {
                complaints.push(format!("{page}: {link}: {why}"));
            }
        }
        for source in attributes(text, "src").chain(loaded(text)) {
            if source.contains("//") && !source.starts_with("data:") {
                complaints.push(format!("{page}: loads {source}"));
            }
        }
    }
    Ok(complaints)
}

fn read(dir: &Path, texts: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        if path.is_dir() {
            read(&path, texts)?;
        } else if path.extension().is_some_and(|e| e == "html") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            texts.insert(path, text);
        }
    }
    Ok(())
}

fn broken(
    page: &Path,
    link: &str,
    ids: &BTreeMap<&PathBuf, BTreeSet<&str>>,
) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None; // to be followed by the reader, not loaded
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => page.to_owned(),
        file => plain(&page.parent()?.join(file)),
    };
    if !target.exists() {
        return Some("no such page");
    }
    let known = ids.get(&target).is_none_or(|ids| ids.contains(anchor));
    (!anchor.is_empty() && !known).then_some("no such section")
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The values of an attribute. mdBook writes them in double quotes.
fn attributes<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let start = format!(" {name}=\"");
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = rest.find(&start)? + start.len();
        let end = at + rest.get(at..)?.find('"')?;
        let value = &rest[at..end];
        rest = &rest[end..];
        Some(value)
    })
}

/// The files that a browser loads from the `href` of a `<link>`, such as style
/// sheets.
fn loaded(text: &str) -> impl Iterator<Item = &str> {
    text.split("<link ")
        .skip(1)
        .filter_map(|tag| attributes(tag.split('>').next()?, "href").next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_and_foreign_loads_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "a.html",
            r##"<h1 id="x"></h1><a href="b.html#y"><a href="#x">"##,
        );
        write(
            "b.html",
            r##"<a href="a.html#z"><a href="c.html"><img src="https://e/f.png"><h1 id="y">"##,
        );
        let complaints = complaints(dir.path()).unwrap();
        assert_eq!(
            complaints,
            [
                "b.html: a.html#z: no such section",
                "b.html: c.html: no such page",
                "b.html: loads https://e/f.png",
            ]
        );
    }
}
