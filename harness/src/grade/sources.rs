//! What a student's source file may not contain: what makes the compiler read
//! other files, of which the program could then tell. This is for the message
//! only, which comes soon and names the place: words can be made up by macros,
//! and what protects the files is the [`jail`](super::jail).

use std::str::FromStr;

use anyhow::{Result, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Macros that put a file, or the environment, into the program; those of the
/// assembler have directives that do. One macro can hand a name to another, so it
/// may not stand anywhere.
const NOWHERE: [&str; 6] = [
    "include_str",
    "include_bytes",
    "option_env",
    "asm",
    "global_asm",
    "naked_asm",
];

/// The same, by names that are also those of a module, or of anything.
const NOT_CALLED: [&str; 2] = ["include", "env"];

/// Deepest nesting of brackets. rustc's own limit on macros is 128; without
/// any, a compiler runs out of its stack.
pub(super) const DEPTH: usize = 200;

/// Looks through a source file.
///
/// # Errors
/// Names what may not be there. What is no Rust at all is the compiler's to
/// refuse.
pub fn check(text: &str) -> Result<()> {
    match TokenStream::from_str(text) {
        Ok(tokens) => look(tokens),
        Err(_) => bail!("cannot be read as Rust: a bracket or quote is not closed"),
    }
}

fn look(tokens: TokenStream) -> Result<()> {
    // Not by calling itself: how deep this goes is the student's choice.
    let mut open = vec![(1, tokens)];
    while let Some((depth, tokens)) = open.pop() {
        if depth > DEPTH {
            bail!("brackets are nested more than {DEPTH} deep");
        }
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (place, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(name) => look_at(&name.to_string(), &tokens, place)?,
                TokenTree::Group(group) => {
                    if is_attribute(&tokens, place) {
                        look_at_attribute(group.stream())?;
                    }
                    open.push((depth + 1, group.stream()));
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
    Ok(())
}

fn look_at(name: &str, tokens: &[TokenTree], place: usize) -> Result<()> {
    let name = name.trim_start_matches("r#");
    // `use std::env as innocent` is a use of it too.
    let called =
        NOT_CALLED.contains(&name) && (is_called(tokens, place) || is_renamed(tokens, place));
    if called || NOWHERE.contains(&name) {
        bail!("{name} makes the compiler read what is not yours: leave it out");
    }
    Ok(())
}

fn is_attribute(tokens: &[TokenTree], place: usize) -> bool {
    matches!(&tokens[place], TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket)
        && place > 0
        && matches!(&tokens[place - 1], TokenTree::Punct(p) if "#!".contains(p.as_char()))
}

/// An attribute may hold others: `cfg_attr(all(), path = …)`.
fn look_at_attribute(tokens: TokenStream) -> Result<()> {
    let mut open = vec![(1, tokens)];
    while let Some((depth, tokens)) = open.pop() {
        if depth > DEPTH {
            bail!("brackets are nested more than {DEPTH} deep");
        }
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (place, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(name) => look_at_word(&name.to_string(), &tokens, place)?,
                TokenTree::Group(group) => open.push((depth + 1, group.stream())),
                _ => {}
            }
        }
    }
    Ok(())
}

fn look_at_word(name: &str, tokens: &[TokenTree], place: usize) -> Result<()> {
    match name.trim_start_matches("r#") {
        "path" if is_set(tokens, place) => {
            bail!("#[path] makes the compiler read what is not yours: leave it out")
        }
        // `command(name = "link")` is clap's.
        "link" if is_applied(tokens, place) => {
            bail!("#[link] makes the linker read what is not yours: leave it out")
        }
        _ => Ok(()),
    }
}

fn is_set(tokens: &[TokenTree], place: usize) -> bool {
    matches!(tokens.get(place + 1), Some(TokenTree::Punct(next)) if next.as_char() == '=')
}

fn is_applied(tokens: &[TokenTree], place: usize) -> bool {
    matches!(tokens.get(place + 1), Some(TokenTree::Group(_)))
}

fn is_called(tokens: &[TokenTree], place: usize) -> bool {
    matches!(tokens.get(place + 1), Some(TokenTree::Punct(next)) if next.as_char() == '!')
}

fn is_renamed(tokens: &[TokenTree], place: usize) -> bool {
    matches!(tokens.get(place + 1), Some(TokenTree::Ident(next)) if next == "as")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_files_is_refused() {
        for text in [
            "const A: &str = include_str!(\"/etc/passwd\");",
            "const A: &[u8] = include_bytes ! (\"x\");",
            "fn f() { std::include!(\"x\") }",
            "use std::include_str as text;",
            "use std::{fs, include_str as text};",
            "const A: &str = env!(\"SECRET\");",
            "use core::env as e;",
            "#[path = \"/etc/x.rs\"] mod x;",
            "#[cfg_attr(all(), path = \"x.rs\")] mod x;",
            "m!(include_str, \"x\");",
            "fn f() { core::arch::asm!(\".incbin \\\"/etc/passwd\\\"\") }",
            "#[link(name = \"x\", kind = \"static\")] extern \"C\" {}",
            "#[r#link(name = \"x\")] extern \"C\" {}",
            "#[r#path = \"/etc/x.rs\"] mod x;",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_nesting_is_too_deep_to_be_refused() {
        let deep = |n: usize| format!("fn f() {{ {}{} }}", "(".repeat(n), ")".repeat(n));
        assert!(check(&deep(1_000_000)).is_err());
        assert!(check(&format!("#![a{}]", deep(300))).is_err());
        assert!(check(&deep(100)).is_ok());
    }

    #[test]
    fn what_our_steps_do_is_taken() {
        for text in [
            "use std::env; fn f() { env::var_os(\"HOME\"); }",
            "/// include_str! in a comment\nfn f() {}",
            "fn f(path: &str) -> String { format!(\"{path}\") }",
            "#[arg(long, value_name = \"PATH\")] struct A;",
            "#[derive(Clone)] struct A { include: bool }",
        ] {
            assert!(check(text).is_ok(), "{text}");
        }
    }
}
