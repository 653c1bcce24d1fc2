//! The picture of the layout in CONTRIBUTING.md is that of the tree.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use check::workspace;

/// The folders of the picture, by their paths.
fn pictured(page: &str) -> BTreeSet<String> {
    let picture = page.split("```text\n").nth(1).unwrap();
    let picture = picture.split("```").next().unwrap();
    let mut folders = BTreeSet::new();
    let mut above: Vec<String> = Vec::new();
    for line in picture.lines() {
        let depth = (line.len() - line.trim_start().len()) / 4;
        let name = line.split_whitespace().next().unwrap();
        above.truncate(depth);
        above.push(name.trim_end_matches('/').to_owned());
        folders.insert(above.join("/"));
    }
    folders
}

/// The folders of the repository that the picture shows: two levels, and the
/// crates below a step.
fn of_the_tree() -> BTreeSet<String> {
    let root = workspace::root();
    let listed = Command::new("git")
        .args(["ls-files"])
        .current_dir(&root)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut folders = BTreeSet::new();
    for file in listed.lines() {
        let parts: Vec<&str> = file.split('/').collect();
        let folders_of = parts.len() - 1;
        let depth = match parts[..] {
            [".cargo", ..] => 0,
            ["steps", _, inner, ..]
                if root
                    .join("steps")
                    .join(parts[1])
                    .join(inner)
                    .join("Cargo.toml")
                    .exists() =>
            {
                3
            }
            _ => 2,
        };
        for end in 1..=depth.min(folders_of) {
            folders.insert(parts[..end].join("/"));
        }
    }
    folders
}

#[test]
fn the_picture_is_that_of_the_tree() {
    let page = fs::read_to_string(workspace::root().join("CONTRIBUTING.md")).unwrap();
    let (shown, there) = (pictured(&page), of_the_tree());
    let missing: Vec<_> = there.difference(&shown).collect();
    let gone: Vec<_> = shown.difference(&there).collect();
    assert!(missing.is_empty(), "not in the picture: {missing:?}");
    assert!(gone.is_empty(), "not in the tree: {gone:?}");
}
