//! The lines of a file around those that an error is about, as Docker shows
//! them.

use std::ops::Range;

use super::wrong::Wrong;

/// The lines that an error is about, if it says so.
pub fn lines_of(error: &anyhow::Error) -> Option<Range<usize>> {
    let wrong = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Wrong>());
    wrong
        .map(|wrong| wrong.lines.clone())
        .filter(|lines| !lines.is_empty())
}

/// The most lines that are shown of those with a marker: of more, the first and
/// the last ones.
const MOST: usize = 20;

/// The most characters that are shown of a line.
const WIDEST: usize = 500;

/// The lines with a marker, and some before and after them:
///
/// ```text
/// Dockerfile:2
/// --------------------
///    1 |     FROM box
///    2 | >>> FOO bar
///    3 |     RUN true
/// --------------------
/// ```
///
/// Empty if the file does not have such lines.
pub fn mark(name: &str, text: &str, lines: &Range<usize>) -> String {
    let all: Vec<&str> = text.split('\n').collect();
    let last = lines.end.saturating_sub(1).min(all.len());
    if lines.start < 1 || lines.start > last {
        return String::new();
    }
    let (mut from, mut to) = (lines.start, last);
    let margin = if from == to { 4 } else { 2 };
    let mut shown = 0;
    while shown < margin {
        if from > 1 {
            from -= 1;
            shown += 1;
        }
        if to < all.len() {
            to += 1;
            shown += 1;
        }
        shown += 1;
    }
    let mut block = format!("{name}:{}\n--------------------\n", lines.start);
    let left_out = match last - lines.start {
        ..MOST => 0..0,
        _ => lines.start + MOST / 2..last - MOST / 2,
    };
    for (number, line) in (from..=to).zip(&all[from - 1..to]) {
        if left_out.contains(&number) {
            if number == left_out.start {
                block.push_str(&format!("     | … {} lines\n", left_out.len()));
            }
            continue;
        }
        let mark = if lines.contains(&number) {
            ">>>"
        } else {
            "   "
        };
        // A terminal obeys what a hostile file says.
        let line: String = line
            .trim_end_matches('\r')
            .chars()
            .take(WIDEST)
            .map(|c| {
                if c.is_control() && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        block.push_str(&format!(" {number:3} | {mark} {line}\n"));
    }
    block.push_str("--------------------\n");
    block
}
