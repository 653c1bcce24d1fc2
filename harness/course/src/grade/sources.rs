//! Words that a student's source file may not contain: those that make the
//! compiler read other files, whose content the program could then print. This
//! serves only an early message that names the place. Macros can make up such
//! words; the files are protected by the [`jail`](super::jail).

use std::str::FromStr;

use anyhow::{Result, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Macros that put a file, or the environment, into the program; the
/// assembler's macros have directives for that. One macro can pass a name to
/// another, so these names are refused everywhere.
const NOWHERE: [&str; 6] = [
    "include_str",
    "include_bytes",
    "option_env",
    "asm",
    "global_asm",
    "naked_asm",
];

/// Macros of the same kind whose names can also be those of a module or of
/// anything else. They are refused if called or renamed.
const NOT_CALLED: [&str; 2] = ["include", "env"];

/// The deepest nesting of brackets. rustc's own limit on macros is 128; without
/// a limit, a compiler exhausts its stack.
pub(super) const DEPTH: usize = 200;

/// Checks a source file.
///
/// # Errors
/// Names the word that is refused. Text that cannot be split into Rust tokens
/// is refused as well; other errors are left to the compiler.
pub fn check(text: &str) -> Result<()> {
    match TokenStream::from_str(text) {
        Ok(tokens) => look(tokens),
        Err(_) => bail!("cannot be read as Rust: a bracket or quote is not closed"),
    }
}

fn look(tokens: TokenStream) -> Result<()> {
    each_token(tokens, &mut |tokens, place| match &tokens[place] {
        TokenTree::Ident(name) => look_at(&name.to_string(), tokens, place),
        TokenTree::Group(group) if is_attribute(tokens, place) => look_at_attribute(group.stream()),
        _ => Ok(()),
    })
}

/// Passes on each token, those inside of brackets too, as a place in the list
/// of its neighbours.
fn each_token(
    tokens: TokenStream,
    look: &mut dyn FnMut(&[TokenTree], usize) -> Result<()>,
) -> Result<()> {
    // Without recursion: the student chooses how deep this goes.
    let mut open = vec![(1, tokens)];
    while let Some((depth, tokens)) = open.pop() {
        if depth > DEPTH {
            bail!("brackets are nested more than {DEPTH} deep");
        }
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (place, token) in tokens.iter().enumerate() {
            look(&tokens, place)?;
            if let TokenTree::Group(group) = token {
                open.push((depth + 1, group.stream()));
            }
        }
    }
    Ok(())
}

fn look_at(name: &str, tokens: &[TokenTree], place: usize) -> Result<()> {
    let name = name.trim_start_matches("r#");
    // `use std::env as innocent` also uses the macro.
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

/// Checks an attribute, which may contain others: `cfg_attr(all(), path = …)`.
fn look_at_attribute(tokens: TokenStream) -> Result<()> {
    each_token(tokens, &mut |tokens, place| match &tokens[place] {
        TokenTree::Ident(name) => look_at_word(&name.to_string(), tokens, place),
        _ => Ok(()),
    })
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
