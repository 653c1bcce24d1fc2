//! The patterns of `${x#p}` and its like: `*` and `?`, no classes.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

/// How long a pattern may be: matching takes the product of its length and the
/// value's.
const LONGEST: usize = 1024;

/// A pattern: texts with a `*` between each two of them.
pub(super) struct Wildcard {
    parts: Vec<Vec<Piece>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Any,
    Char(char),
}

impl Wildcard {
    /// Reads a pattern. A backslash takes their meaning from `*`, `?`, itself,
    /// and from `}` and `/`, which would end the pattern.
    pub(super) fn parse(text: &str) -> Result<Self> {
        ensure!(
            text.len() <= LONGEST,
            "a pattern has more than {LONGEST} bytes"
        );
        let mut parts = vec![Vec::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let piece = match c {
                '*' => {
                    parts.push(Vec::new());
                    continue;
                }
                '?' => Piece::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Piece::Char(c),
                    c => bail!(
                        "invalid pattern ({text}) in substitution: invalid escape '\\{}'",
                        c.map_or(String::new(), String::from)
                    ),
                },
                c => Piece::Char(c),
            };
            if let Some(part) = parts.last_mut() {
                part.push(piece);
            }
        }
        Ok(Self { parts })
    }

    /// The end of the shortest or longest beginning of a text that matches.
    pub(super) fn prefix(&self, text: &str, longest: bool) -> Option<usize> {
        let (first, rest) = self.parts.split_first()?;
        let mut at = matches_at(first, text, 0)?;
        let Some((last, middle)) = rest.split_last() else {
            return Some(at);
        };
        // Each as early as possible leaves most room for the last one.
        for part in middle {
            at = first_in(part, text, at)?.end;
        }
        match longest {
            true => last_in(last, text, at),
            false => first_in(last, text, at),
        }
        .map(|found| found.end)
    }

    /// The start of the shortest or longest end of a text that matches.
    pub(super) fn suffix(&self, text: &str, longest: bool) -> Option<usize> {
        let reversed = Self {
            parts: self.parts.iter().rev().map(|part| reversed(part)).collect(),
        };
        let backwards: String = text.chars().rev().collect();
        let end = reversed.prefix(&backwards, longest)?;
        Some(text.len() - end)
    }

    /// The first and longest match in a text.
    pub(super) fn find(&self, text: &str) -> Option<Range<usize>> {
        let first = self.parts.first()?;
        // If there is a match, there is one from where its beginning is first.
        let start = first_in(first, text, 0)?.start;
        let end = self.prefix(&text[start..], true)?;
        Some(start..start + end)
    }
}

fn reversed(part: &[Piece]) -> Vec<Piece> {
    part.iter().rev().copied().collect()
}

/// The end of a part that begins at a place.
fn matches_at(part: &[Piece], text: &str, at: usize) -> Option<usize> {
    let mut chars = text[at..].chars();
    for piece in part {
        let c = chars.next()?;
        if *piece != Piece::Any && *piece != Piece::Char(c) {
            return None;
        }
    }
    Some(text.len() - chars.as_str().len())
}

fn first_in(part: &[Piece], text: &str, from: usize) -> Option<Range<usize>> {
    places(text, from).find_map(|at| matches_at(part, text, at).map(|end| at..end))
}

fn last_in(part: &[Piece], text: &str, from: usize) -> Option<Range<usize>> {
    places(text, from)
        .rev()
        .find_map(|at| matches_at(part, text, at).map(|end| at..end))
}

/// Where a part may begin.
fn places(text: &str, from: usize) -> impl DoubleEndedIterator<Item = usize> {
    let chars = text[from..].char_indices().map(move |(at, _)| from + at);
    chars.chain([text.len()])
}
