//! Idioms that read like riddles or like a translation are not in the sources
//! and pages: what to write instead stands beside each.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use check::workspace;

/// What is not written, in lower case, and what is.
const BANNED: [(&str, &str); 13] = [
    ("to be had", "available"),
    ("can be had", "available"),
    ("cannot be had", "not available"),
    ("a matter of the night", "run nightly"),
    ("for the night", "nightly"),
    ("away with one", "remove one"),
    ("leave it away", "omit it"),
    ("one of the two away", "omit one of the two"),
    ("is all there is", "only … is supported"),
    ("bears being done", "is idempotent"),
    ("must bear a second", "must be idempotent"),
    ("nothing to stand on", "no image is given"),
    ("/// those of ", "nothing, or the errno and what it means"),
];

#[test]
fn no_riddles() {
    let root = workspace::root();
    let listed = Command::new("git")
        .args([
            "ls-files", "*.rs", "*.md", "*.toml", "justfile", "tools", ".ci",
        ])
        .current_dir(&root)
        .output()
        .unwrap();
    let mut found = Vec::new();
    for file in String::from_utf8(listed.stdout).unwrap().lines() {
        if file == "harness/tests/english.rs" {
            continue;
        }
        let text = fs::read_to_string(root.join(file)).unwrap();
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for (banned, instead) in BANNED {
                if line.contains(banned) {
                    found.push(format!("{file}:{}: {banned:?}: {instead}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
