//! Comparison of an output with the book's.
//!
//! `[..]` stands for anything within a line and `...`, alone on a line, for any
//! lines. The book has the inodes of namespaces of one run; another machine has
//! others, so the comparison is of which inodes are equal.

use std::collections::BTreeMap;

use snapbox::filter::NormalizeToExpected;
use snapbox::prelude::*;

/// Inodes of namespaces in the book, and the inodes of this run in their place.
#[derive(Debug, Default)]
pub struct Inodes(BTreeMap<String, String>);

impl Inodes {
    /// Compares an output with the book's. `Err` is the text that the book
    /// should have instead: the output, with the book's elisions where they
    /// still fit.
    pub fn compare(&mut self, expected: &str, actual: &str) -> Result<(), String> {
        let (expected, actual) = (&tidy(expected)[..], tidy(actual));
        let same_shape = normalized(&blank(expected), &blank(&actual)) == blank(expected);
        let (ours, theirs) = (inodes(expected), inodes(&actual));
        // If lines are elided, it is unknown which inode is which.
        if same_shape && (ours.len() != theirs.len() || self.agree(&ours, &theirs)) {
            return Ok(());
        }
        let mut translated = expected.to_owned();
        if same_shape {
            for (old, new) in ours.iter().zip(&theirs) {
                translated = translated.replacen(old, new, 1);
            }
        }
        Err(normalized(&translated, &actual))
    }

    /// Whether equal inodes in the book are equal in this run. The kernel
    /// reuses the numbers of namespaces that have ended, so from one command to
    /// the next only the namespaces that the machine began with are remembered.
    fn agree(&mut self, ours: &[&str], theirs: &[&str]) -> bool {
        let mut all = self.0.clone();
        for (ours, theirs) in ours.iter().zip(theirs) {
            let other = all.iter().any(|(k, v)| v == theirs && k != ours);
            let known = all
                .entry((*ours).to_owned())
                .or_insert_with(|| (*theirs).to_owned());
            if known != theirs || other {
                return false;
            }
        }
        all.retain(|ours, _| ours.as_str() < FIRST_NEW);
        self.0 = all;
        true
    }
}

/// The bound between the numbers of namespaces: those of the namespaces that
/// the machine begins with are below, those of new ones are not.
const FIRST_NEW: &str = "4026532000";

/// Removes trailing blanks, which are invisible, and ends the text with a
/// newline.
fn tidy(output: &str) -> String {
    output
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn normalized(expected: &str, actual: &str) -> String {
    let expected = expected.into_data().raw();
    NormalizeToExpected::new()
        .redact()
        .normalize(actual.into_data().raw(), &expected)
        .render()
        .unwrap_or_default()
}

/// The inodes of namespaces: ten digits, from 4026531834 up (proc_alloc_inum).
fn inodes(text: &str) -> Vec<&str> {
    places(text).map(|at| &text[at..at + 10]).collect()
}

fn places(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices("40265").filter_map(|(at, _)| {
        let number = text.get(at..at + 10)?;
        number.bytes().all(|b| b.is_ascii_digit()).then_some(at)
    })
}

fn blank(text: &str) -> String {
    let mut blank = text.to_owned();
    for at in places(text) {
        blank.replace_range(at..at + 10, "4026500000");
    }
    blank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elisions_stand_for_what_varies() {
        let mut inodes = Inodes::default();
        assert_eq!(
            inodes.compare("pid [..]\n...\nend\n", "pid 7 \na\nb\nend"),
            Ok(())
        );
        assert_eq!(
            inodes.compare("pid [..]\nend\n", "pid 7\nEND\n"),
            Err("pid [..]\nEND\n".to_owned())
        );
    }

    #[test]
    fn inodes_may_change_but_not_their_sameness() {
        let mut inodes = Inodes::default();
        assert_eq!(inodes.compare("4026531838\n", "4026531838\n"), Ok(()));
        assert_eq!(inodes.compare("4026532001\n", "4026532777\n"), Ok(()));
        assert_eq!(inodes.compare("4026532001\n", "4026532777\n"), Ok(()));
        assert!(inodes.compare("4026532001\n", "4026531838\n").is_err());
        let (ours, theirs) = ("4026532001 4026532002\n", "4026532777 4026532777\n");
        assert!(inodes.compare(ours, theirs).is_err());
        assert_eq!(inodes.compare("4026532001\n", "4026532999\n"), Ok(()));
    }
}
