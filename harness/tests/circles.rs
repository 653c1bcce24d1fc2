//! No modules of a crate import one another in a circle: what is below does not
//! know what is above.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use check::workspace;
use course::exercise::skeleton;

/// The modules of a crate by their paths (`group::v1`), and what each imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn modules(src: &Path) -> BTreeMap<String, PathBuf> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inner = path.strip_prefix(src).unwrap().with_extension("");
            let mut parts: Vec<_> = inner.iter().map(|part| part.to_str().unwrap()).collect();
            if parts.last() == Some(&"mod") {
                parts.pop();
            }
            let is_top = matches!(parts[..], ["lib" | "main"] | ["bin", ..]);
            if path.extension().is_some_and(|end| end == "rs") && !is_top {
                modules.insert(parts.join("::"), path);
            }
        }
    }
    modules
}

/// The paths of `use` declarations in a source, `{…}` taken apart, and other
/// paths from the crate's root; without comments and tests.
fn paths(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n");
    let mut paths = BTreeSet::new();
    for declaration in code.split("use ").skip(1) {
        let text: String = declaration.split(';').next().unwrap().into();
        let text: String = text.split_whitespace().collect();
        flatten("", &text, &mut paths);
    }
    for tail in code.split("crate::").skip(1) {
        let end = tail
            .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
            .unwrap_or(tail.len());
        paths.insert(format!("crate::{}", &tail[..end]));
    }
    paths
}

fn flatten(prefix: &str, text: &str, paths: &mut BTreeSet<String>) {
    let Some((head, rest)) = text.split_once('{') else {
        paths.insert(format!("{prefix}{text}"));
        return;
    };
    let prefix = format!("{prefix}{head}");
    let (mut depth, mut item) = (0, String::new());
    for c in rest.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                flatten(&prefix, &std::mem::take(&mut item), paths);
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    if !item.is_empty() {
        flatten(&prefix, &item, paths);
    }
}

fn graph(src: &Path) -> Graph {
    let modules = modules(src);
    let mut graph = Graph::new();
    for (name, file) in &modules {
        let is_folder = file.file_stem().unwrap() == "mod";
        let mut parent: Vec<&str> = name.split("::").collect();
        if !is_folder {
            parent.pop();
        }
        let mut imports = BTreeSet::new();
        for path in paths(&fs::read_to_string(file).unwrap()) {
            let mut parts: Vec<&str> = path.split("::").collect();
            match parts[0] {
                "crate" => {
                    parts.remove(0);
                }
                "super" => {
                    parts.remove(0);
                    let mut above = parent.clone();
                    if is_folder {
                        above.pop();
                    }
                    parts = [above, parts].concat();
                }
                _ => continue,
            }
            // The longest beginning that is a module.
            let found = (1..=parts.len())
                .rev()
                .map(|end| parts[..end].join("::"))
                .find(|path| modules.contains_key(path));
            imports.extend(found.filter(|found| found != name));
        }
        graph.insert(name.clone(), imports);
    }
    graph
}

/// A way from `from` back to itself, the shortest.
fn circle(graph: &Graph, from: &str) -> Option<Vec<String>> {
    let mut ways: Vec<Vec<String>> = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in &graph[way.last().unwrap()] {
                let mut way = way.clone();
                way.push(next.clone());
                if next == from {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[test]
fn no_modules_import_one_another_in_a_circle() {
    let steps = workspace::root().join("steps");
    let mut crates: Vec<PathBuf> = skeleton::steps()
        .unwrap()
        .into_iter()
        .map(|(_, dir)| dir)
        .collect();
    crates.extend(
        skeleton::shared()
            .unwrap()
            .iter()
            .map(|dir| steps.join(dir)),
    );
    let harness = workspace::root().join("harness");
    for entry in fs::read_dir(&harness).unwrap() {
        let path = entry.unwrap().path();
        crates.extend(path.join("Cargo.toml").is_file().then_some(path));
    }
    crates.push(harness);
    let mut circles = Vec::new();
    for dir in crates {
        let graph = graph(&dir.join("src"));
        assert!(!graph.is_empty(), "{}", dir.display());
        let mut known = BTreeSet::new();
        for name in graph.keys() {
            if !known.contains(name)
                && let Some(way) = circle(&graph, name)
            {
                circles.push(format!("{}: {}", dir.display(), way.join(" -> ")));
                known.extend(way);
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("lib.rs", "mod a;\nmod b;\nmod c;\n");
    write("a.rs", "use crate::{b::{self, B}, c};\n");
    write("b.rs", "// use crate::a;\nuse super::c::C;\n");
    write("c.rs", "");
    assert_eq!(circle(&graph(dir.path()), "a"), None);
    write("c.rs", "fn f() {\n    crate::a::g()\n}\n");
    let found = circle(&graph(dir.path()), "a").unwrap();
    assert_eq!(found, ["a", "c", "a"]);
}
