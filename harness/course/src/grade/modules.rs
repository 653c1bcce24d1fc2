//! The files of a crate that its modules reach, from `lib.rs` and `main.rs`.
//! Other files are not passed on: a file that no `mod` names is not a part of
//! the program, and may be there for the linker to find.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::sources::DEPTH;

/// The files that a crate begins with.
const ROOTS: [&str; 2] = ["lib.rs", "main.rs"];

/// The reached files: those of each `mod name;`, including one within `mod
/// outer { … }` or between the brackets of a macro. A name that a macro makes
/// up is not found.
pub fn reached(files: &BTreeMap<PathBuf, String>) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<PathBuf> = ROOTS.map(PathBuf::from).into();
    while let Some(file) = next.pop() {
        let Some(text) = files.get(&file) else {
            continue;
        };
        // A file that cannot be parsed names no modules. It is refused later.
        if let Ok(tokens) = TokenStream::from_str(text) {
            next.extend(named(&file, tokens));
        }
        reached.insert(file);
        next.retain(|file| !reached.contains(file));
    }
    reached
}

/// The files that may hold the modules that `file` names.
fn named(file: &Path, tokens: TokenStream) -> Vec<PathBuf> {
    let parent = file.parent().unwrap_or(Path::new(""));
    let begins = |names: &[&str]| names.iter().any(|name| file.ends_with(name));
    let dir = match begins(&["mod.rs"]) || (parent == Path::new("") && begins(&ROOTS)) {
        true => parent.to_owned(),
        false => file.with_extension(""),
    };
    let mut found = Vec::new();
    let mut open = vec![(dir, 1, tokens)];
    while let Some((dir, depth, tokens)) = open.pop() {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (place, token) in tokens.iter().enumerate() {
            let name = module(&tokens, place);
            match (name, tokens.get(place + 2)) {
                (Some(name), Some(TokenTree::Punct(end))) if end.as_char() == ';' => {
                    found.push(dir.join(format!("{name}.rs")));
                    found.push(dir.join(name).join("mod.rs"));
                }
                _ => {}
            }
            let TokenTree::Group(group) = token else {
                continue;
            };
            if depth > DEPTH {
                continue;
            }
            let outer = match group.delimiter() {
                Delimiter::Brace => place.checked_sub(2).and_then(|at| module(&tokens, at)),
                _ => None,
            };
            let dir = match outer {
                Some(name) => dir.join(name),
                None => dir.clone(),
            };
            open.push((dir, depth + 1, group.stream()));
        }
    }
    found
}

/// The name after the `mod` at `place`, if there is one.
fn module(tokens: &[TokenTree], place: usize) -> Option<String> {
    match (tokens.get(place), tokens.get(place + 1)) {
        (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(name))) if word == "mod" => {
            Some(name.to_string().trim_start_matches("r#").to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached_of(files: &[(&str, &str)]) -> Vec<String> {
        let files = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect();
        let reached = reached(&files);
        reached.iter().map(|f| f.display().to_string()).collect()
    }

    #[test]
    fn modules_are_found_where_rustc_finds_them() {
        let files = [
            (
                "lib.rs",
                "pub mod a; mod b { pub(crate) mod c; } x! { { mod r#type; } }",
            ),
            ("a.rs", "#[cfg(test)] mod d;"),
            ("a/d.rs", ""),
            ("b/c/mod.rs", "mod e;"),
            ("b/c/e.rs", "mod main;"),
            ("b/c/e/main.rs", "mod f;"),
            ("b/c/e/main/f.rs", ""),
            ("type.rs", ""),
            ("main.rs", "mod act;"),
            ("act.rs", "mod lib;"),
        ];
        let all: BTreeSet<String> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(BTreeSet::from_iter(reached_of(&files)), all);
    }

    #[test]
    fn what_no_module_names_is_left() {
        let files = [
            (
                "lib.rs",
                "// mod a;\nconst B: &str = \"mod b;\"; mod c { } mod lib;",
            ),
            ("a.rs", "INPUT(x)"),
            ("b.rs", ""),
            ("c.rs", ""),
            ("c/lib.rs", ""),
            ("bin/other.rs", ""),
        ];
        assert_eq!(reached_of(&files), ["lib.rs"]);
    }
}
