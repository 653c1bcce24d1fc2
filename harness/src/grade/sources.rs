//! What a student's source file may not contain: what makes the compiler read
//! other files, of which the program could then tell.

use std::str::FromStr;

use anyhow::{Result, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Macros that put a file, or the environment, into the program. Their names
/// must stand in the source: only a procedural macro could make one up, and
/// there are none.
const MACROS: [&str; 7] = [
    "include",
    "include_str",
    "include_bytes",
    "env",
    "option_env",
    "global_asm",
    "concat_idents",
];

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
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (place, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(name) => {
                let name = name.to_string();
                let name = name.trim_start_matches("r#");
                // `use std::include_str as innocent` is a use of it too.
                if MACROS.contains(&name)
                    && (is_called(&tokens, place) || is_renamed(&tokens, place))
                {
                    bail!("{name} makes the compiler read what is not yours: leave it out");
                }
            }
            TokenTree::Group(group) => {
                let attribute = group.delimiter() == Delimiter::Bracket
                    && place > 0
                    && matches!(&tokens[place - 1], TokenTree::Punct(p) if "#!".contains(p.as_char()));
                if attribute && sets_path(group.stream()) {
                    bail!("#[path] makes the compiler read what is not yours: leave it out");
                }
                look(group.stream())?;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    Ok(())
}

fn is_called(tokens: &[TokenTree], place: usize) -> bool {
    matches!(tokens.get(place + 1), Some(TokenTree::Punct(next)) if next.as_char() == '!')
}

fn is_renamed(tokens: &[TokenTree], place: usize) -> bool {
    matches!(tokens.get(place + 1), Some(TokenTree::Ident(next)) if next == "as")
}

/// Whether an attribute holds `path =`, at any depth: `cfg_attr(all(), path = …)`.
fn sets_path(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens.iter().enumerate().any(|(place, token)| match token {
        TokenTree::Ident(name) => {
            name == "path"
                && matches!(tokens.get(place + 1), Some(TokenTree::Punct(p)) if p.as_char() == '=')
        }
        TokenTree::Group(group) => sets_path(group.stream()),
        _ => false,
    })
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
        ] {
            assert!(check(text).is_err(), "{text}");
        }
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
