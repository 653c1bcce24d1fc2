//! Whether an output is the one in the book.
//!
//! `[..]` stands for anything within a line and `...`, alone on a line, for any
//! lines. Inodes of namespaces are written as they were once; another machine
//! has others, so what is compared is which of them are the same.

use std::collections::BTreeMap;

use snapbox::filter::NormalizeToExpected;
use snapbox::prelude::*;

/// Inodes of namespaces in the book, and what they were this time.
#[derive(Debug, Default)]
pub struct Inodes(BTreeMap<String, String>);

impl Inodes {
    /// Compares an output with the book's. `Err` has what the book should say
    /// instead: the output, with the book's elisions where they still fit.
    pub fn compare(&mut self, expected: &str, actual: &str) -> Result<(), String> {
        let (expected, actual) = (&tidy(expected)[..], tidy(actual));
        let same_shape = normalized(&blank(expected), &blank(&actual)) == blank(expected);
        let (ours, theirs) = (inodes(expected), inodes(&actual));
        // With lines left out there is no telling which is which.
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

    /// Whether the same ones are equal. The numbers of namespaces that have
    /// ended are given out again, so only those with which the machine began
    /// are remembered from one command to the next.
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

/// The numbers of the first namespaces are below, those of new ones are not.
const FIRST_NEW: &str = "4026532000";

/// Without trailing blanks, which nobody sees, and with a newline at the end.
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
