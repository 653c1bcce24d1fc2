//! Patterns of paths as Go matches them (`filepath.Match`): `*` and `?` do not
//! match a slash, `[a-z]` and `[^a-z]` match one of a class, a backslash takes
//! its meaning from a character. The patterns of `.dockerignore` have `**`, too.
//!
//! A pattern is matched in all ways at once, so that the time is at most the
//! product of the lengths, whatever the pattern.

use anyhow::{Result, ensure};

/// How long a pattern may be.
const LONGEST: usize = 4096;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `?`.
    Any,
    /// `*`.
    Star,
    /// `**`: anything.
    Tree,
    /// `**/`: any number of directories.
    Directories,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any | Self::Star => c != '/',
            Self::Tree | Self::Directories => true,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }

    /// Whether it may stand for nothing.
    fn is_optional(&self) -> bool {
        matches!(self, Self::Star | Self::Tree | Self::Directories)
    }
}

impl Pattern {
    /// A pattern of Go's `filepath.Match`.
    ///
    /// # Errors
    /// "syntax error in pattern", as in Go: for a class that does not end and
    /// for a backslash at the end.
    pub fn new(text: &str) -> Result<Self> {
        Self::read(text, false)
    }

    /// A pattern of a `.dockerignore`, without the `!`.
    pub(super) fn with_trees(text: &str) -> Result<Self> {
        Self::read(text, true)
    }

    fn read(text: &str, trees: bool) -> Result<Self> {
        ensure!(
            text.len() <= LONGEST,
            "a pattern has more than {LONGEST} bytes"
        );
        let wrong = || anyhow::anyhow!("syntax error in pattern {text:?}");
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            pieces.push(match c {
                '*' if trees && rest.starts_with('*') => {
                    rest = &rest[1..];
                    let slash = rest.strip_prefix('/');
                    rest = slash.unwrap_or(rest);
                    if rest.is_empty() {
                        Piece::Tree
                    } else {
                        Piece::Directories
                    }
                }
                '*' => Piece::Star,
                '?' => Piece::Any,
                '[' => {
                    let (class, tail) = class(rest).ok_or_else(wrong)?;
                    rest = tail;
                    class
                }
                '\\' => {
                    let c = rest.chars().next().ok_or_else(wrong)?;
                    rest = &rest[c.len_utf8()..];
                    Piece::Char(c)
                }
                c => Piece::Char(c),
            });
        }
        // Repeated ones mean no more than one of them.
        pieces.dedup_by(|a, b| a == b && a.is_optional());
        Ok(Self { pieces })
    }

    // ANCHOR: matches
    /// Whether all of a text matches.
    pub fn matches(&self, text: &str) -> bool {
        // The pieces that may be next.
        let mut next = vec![false; self.pieces.len() + 1];
        self.reach(&mut next, 0);
        let mut then = next.clone();
        for c in text.chars() {
            then.fill(false);
            for (at, piece) in self.pieces.iter().enumerate() {
                if !next[at] || !piece.takes(c) {
                    continue;
                }
                match piece {
                    Piece::Star | Piece::Tree => self.reach(&mut then, at),
                    // It has begun, and must end with a slash.
                    Piece::Directories if c == '/' => self.reach(&mut then, at),
                    Piece::Directories => then[at] = true,
                    _ => self.reach(&mut then, at + 1),
                }
            }
            std::mem::swap(&mut next, &mut then);
        }
        next[self.pieces.len()]
    }
    // ANCHOR_END: matches

    /// Marks a piece as the next one, and those after it if it may stand for
    /// nothing.
    fn reach(&self, next: &mut [bool], from: usize) {
        for (at, marked) in next.iter_mut().enumerate().skip(from) {
            if std::mem::replace(marked, true) {
                return;
            }
            if !self.pieces.get(at).is_some_and(Piece::is_optional) {
                return;
            }
        }
    }
}

/// A class after its `[`, and what follows it.
fn class(text: &str) -> Option<(Piece, &str)> {
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix(']').filter(|_| !ranges.is_empty()) {
            return Some((Piece::Class { negated, ranges }, rest));
        }
        let low;
        (low, rest) = member(rest)?;
        let mut high = low;
        if let Some(tail) = rest.strip_prefix('-') {
            (high, rest) = member(tail)?;
        }
        ranges.push((low, high));
    }
}

/// A character of a class. There is more after it, since the class must end.
fn member(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    let c = match chars.next()? {
        '-' | ']' => return None,
        '\\' => chars.next()?,
        c => c,
    };
    let rest = chars.as_str();
    (!rest.is_empty()).then_some((c, rest))
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[b-d]", "abc", true),
            ("ab[^e-g]", "abc", true),
            ("[^a-c]x", "bx", false),
            ("a?b", "aßb", true),
            ("a?b", "a/b", false),
            ("a[^b]c", "a/c", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]-x]", "^", true),
            ("[\\]-x]", "a-", false),
            ("[\\]a]", "]", true),
            ("**", "a/b", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        for wrong in [
            "[", "[]a]", "[-x]", "[x-]", "[a-b-c]", "a[", "[^", "[^bc", "a\\", "[a-",
        ] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn trees_are_any_number_of_directories() {
        for (pattern, text, expected) in [
            ("**/a?", "x/y/ab", true),
            ("**/a?", "ab", true),
            ("**/a?", "xab", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "ab", false),
            ("a/**", "a/b/c", true),
            ("a**b", "a/x/b", true),
            ("a**b", "axb", false),
            ("a**b", "ax/b", true),
        ] {
            let pattern = Pattern::with_trees(pattern).unwrap();
            assert_eq!(pattern.matches(text), expected, "{pattern:?} {text}");
        }
    }

    #[test]
    fn matching_is_never_slow() {
        let pattern = Pattern::with_trees(&("*a**/".repeat(500) + "b")).unwrap();
        assert!(!pattern.matches(&"a".repeat(5000)));
    }
}
