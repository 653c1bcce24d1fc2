//! Finds the places of a source that a mutant can change.
//!
//! cargo-mutants changes operators and bodies of functions. It knows neither
//! constants nor dropped calls, and these are what a launcher is made of: a
//! flag, a mode, a mount that is made read-only afterwards.

use std::ops::Range;

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, BinOp, Block, Expr, ExprBinary, ExprIf, ExprLit, ExprMacro, ExprUnary, ExprWhile,
    ImplItemFn, Item, ItemFn, ItemImpl, ItemMod, Lit, Macro, ReturnType, Signature, Stmt, Type,
    UnOp,
};

/// A change of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The bytes of the source that are replaced.
    pub at: Range<usize>,
    /// The line of the change, from 1.
    pub line: usize,
    /// The text in its place.
    pub to: String,
    /// The change in words: `== → !=`.
    pub words: String,
}

/// The most characters of a dropped statement that its name shows.
const SHOWN: usize = 60;

/// Macros that are a protection, and that a mutant drops. All others print or
/// format.
const DROPPED: [&str; 2] = ["bail", "ensure"];

/// All changes of a source, in the order of their places. Tests, attributes,
/// patterns and what macros contain are left alone.
pub(super) fn changes(source: &str) -> Result<Vec<Change>> {
    let file = syn::parse_file(source).context("parse the source")?;
    let mut finder = Finder {
        source,
        found: Vec::new(),
    };
    finder.visit_file(&file);
    let mut found = finder.found;
    found.sort_by_key(|change| (change.at.start, change.at.end));
    Ok(found)
}

struct Finder<'a> {
    source: &'a str,
    found: Vec<Change>,
}

impl<'a> Finder<'a> {
    fn text(&self, of: &impl Spanned) -> &'a str {
        self.source.get(of.span().byte_range()).unwrap_or_default()
    }

    fn add(&mut self, what: &impl Spanned, to: &str, words: String) {
        let span = what.span();
        self.found.push(Change {
            at: span.byte_range(),
            line: span.start().line,
            to: to.to_owned(),
            words,
        });
    }

    fn replace(&mut self, what: &impl Spanned, to: &str) {
        let words = format!("{} → {to}", shown(self.text(what)));
        self.add(what, to, words);
    }

    fn condition(&mut self, condition: &Expr) {
        // `let` binds names that the block needs.
        if matches!(condition, Expr::Let(_) | Expr::Lit(_)) || self.text(condition).contains("let ")
        {
            return;
        }
        for to in ["true", "false"] {
            self.replace(condition, to);
        }
    }

    fn body(&mut self, signature: &Signature, block: &Block) {
        let ReturnType::Type(_, returned) = &signature.output else {
            return;
        };
        if block.stmts.is_empty() {
            return;
        }
        let name = &signature.ident;
        for value in values(returned) {
            let words = format!("fn {name} returns {value}");
            self.add(block, &format!("{{ {value} }}"), words);
        }
    }
}

/// Values that a function may return without doing anything.
fn values(returned: &Type) -> &'static [&'static str] {
    let Type::Path(path) = returned else {
        return &[];
    };
    let Some(last) = path.path.segments.last() else {
        return &[];
    };
    let nothing = |argument: &syn::PathArguments| {
        matches!(argument, syn::PathArguments::AngleBracketed(list)
            if matches!(list.args.first(), Some(syn::GenericArgument::Type(Type::Tuple(tuple)))
                if tuple.elems.is_empty()))
    };
    match last.ident.to_string().as_str() {
        "bool" => &["true", "false"],
        "Option" => &["None"],
        "Result" if nothing(&last.arguments) => &["Ok(())"],
        _ => &[],
    }
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether an item is compiled for tests only.
fn of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|path| path.is_ident("test")))
    })
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(ItemFn { attrs, .. }) | Item::Mod(ItemMod { attrs, .. }) => attrs.as_slice(),
            Item::Impl(ItemImpl { attrs, .. }) => attrs,
            _ => &[],
        };
        if !of_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.body(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.body(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    // Lengths of arrays and numbers in attributes are no decisions.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_expr_macro(&mut self, _: &'ast ExprMacro) {}
    fn visit_macro(&mut self, _: &'ast Macro) {}

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let dropped = match statement {
            Stmt::Expr(expression, Some(_)) => matches!(
                expression,
                Expr::Call(_) | Expr::MethodCall(_) | Expr::Try(_) | Expr::Assign(_)
            ),
            Stmt::Macro(call) => {
                let path = &call.mac.path;
                call.semi_token.is_some() && DROPPED.iter().any(|name| path.is_ident(name))
            }
            _ => false,
        };
        if dropped {
            let words = format!("without {}", shown(self.text(statement)));
            self.add(statement, "", words);
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr_if(&mut self, branch: &'ast ExprIf) {
        self.condition(&branch.cond);
        visit::visit_expr_if(self, branch);
    }

    fn visit_expr_while(&mut self, repeated: &'ast ExprWhile) {
        // `while true` would only hang.
        if !matches!(*repeated.cond, Expr::Let(_)) && !self.text(&repeated.cond).contains("let ") {
            self.replace(&repeated.cond, "false");
        }
        visit::visit_expr_while(self, repeated);
    }

    fn visit_expr_unary(&mut self, negated: &'ast ExprUnary) {
        if let UnOp::Not(not) = &negated.op {
            let words = format!("{} without !", shown(self.text(negated)));
            self.add(not, "", words);
        }
        visit::visit_expr_unary(self, negated);
    }

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        let other = match binary.op {
            BinOp::Eq(_) => Some("!="),
            BinOp::Ne(_) => Some("=="),
            BinOp::Lt(_) => Some("<="),
            BinOp::Le(_) => Some("<"),
            BinOp::Gt(_) => Some(">="),
            BinOp::Ge(_) => Some(">"),
            BinOp::And(_) => Some("||"),
            BinOp::Or(_) => Some("&&"),
            BinOp::Add(_) => Some("-"),
            BinOp::Sub(_) => Some("+"),
            BinOp::Mul(_) => Some("/"),
            BinOp::Div(_) => Some("*"),
            BinOp::BitAnd(_) => Some("|"),
            _ => None,
        };
        let chained = self.text(binary).contains("let ");
        match other {
            // `||` cannot join what `let` binds.
            Some("||") if chained => {}
            Some(other) => self.replace(&binary.op, other),
            None => {}
        }
        if let BinOp::BitOr(_) = binary.op {
            let (left, right) = (self.text(&binary.left), self.text(&binary.right));
            for (kept, lost) in [(left, right), (right, left)] {
                let words = format!("without | {}", shown(lost));
                self.add(binary, kept, words);
            }
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_lit(&mut self, literal: &'ast ExprLit) {
        match &literal.lit {
            Lit::Bool(value) => self.replace(value, if value.value { "false" } else { "true" }),
            Lit::Int(value) => match value.base10_parse::<u64>() {
                Ok(1) => self.replace(value, &format!("0{}", value.suffix())),
                Ok(number) => {
                    let to = format!("{}{}", number.saturating_add(1), value.suffix());
                    self.replace(value, &to);
                }
                Err(_) => {}
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let changes = changes(source).unwrap();
        changes.into_iter().map(|change| change.words).collect()
    }

    /// The source after each of its changes.
    fn mutated(source: &str) -> Vec<String> {
        let changes = changes(source).unwrap();
        let mutated = changes.into_iter().map(|change| {
            let mut text = source.to_owned();
            text.replace_range(change.at, &change.to);
            text
        });
        mutated.collect()
    }

    #[test]
    fn a_call_is_dropped_and_a_condition_decided() {
        let source = "fn f(a: u8) { if a == 7 { g(a)?; } }";
        assert_eq!(
            words(source),
            [
                "a == 7 → true",
                "a == 7 → false",
                "== → !=",
                "7 → 8",
                "without g(a)?;"
            ]
        );
        assert_eq!(
            mutated(source)[4],
            "fn f(a: u8) { if a == 7 {  } }",
            "the statement goes with its semicolon"
        );
    }

    #[test]
    fn a_flag_is_lost_on_either_side() {
        let mutants = mutated("fn f() { g(A | B) }");
        assert_eq!(mutants, ["fn f() { g(A) }", "fn f() { g(B) }"]);
    }

    #[test]
    fn a_function_may_do_nothing() {
        assert_eq!(
            words("fn f() -> Result<()> { g() } fn h() -> Result<u8> { g() }"),
            ["fn f returns Ok(())"]
        );
        assert_eq!(words("impl A { fn f() -> bool { g() } }").len(), 2);
    }

    #[test]
    fn places_after_other_letters_than_ascii_are_found() {
        let mutants = mutated("// „ä“\nfn f() -> u8 { g(\"ß\", 1u8) }");
        assert_eq!(mutants, ["// „ä“\nfn f() -> u8 { g(\"ß\", 0u8) }"]);
    }

    #[test]
    fn tests_messages_patterns_and_lengths_stay() {
        for source in [
            "#[cfg(test)] mod tests { fn f() { g(1); } }",
            "#[test] fn f() { g(1); }",
            "fn f() { println!(\"{}\", 1 + 1); }",
            "fn f(a: [u8; 4]) -> u8 { match a { [1, ..] => g() } }",
            "#[repr(align(8))] struct A;",
        ] {
            assert_eq!(words(source), [""; 0], "{source}");
        }
    }

    #[test]
    fn what_a_let_binds_is_needed() {
        assert_eq!(
            words("fn f() { if let Some(a) = g() && a { h(a) } }"),
            [""; 0]
        );
    }
}
