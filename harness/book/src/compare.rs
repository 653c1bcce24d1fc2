//! Comparison of an output with the book's.
//!
//! The book has the values of one run; another run has others where a pattern
//! beside the page allows it ([`varies`](super::varies)). Everything else must
//! be equal, but for two things: `...`, alone on a line, stands for any lines,
//! and of the inodes of namespaces only which ones are equal is compared.

use std::collections::BTreeMap;

use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::varies::{Pattern, Shape, named, shape};

/// The line that stands for any lines.
const ANY: &str = "...";

/// What this run has in the place of the book's values.
#[derive(Debug, Default)]
pub struct Known {
    /// Inodes of namespaces, by the book's.
    inodes: BTreeMap<String, String>,
    /// Values that have a name.
    names: BTreeMap<String, String>,
}

/// An output beside the book's.
#[derive(Debug, PartialEq, Eq)]
pub struct Compared {
    /// What differs and may not, one line each: lines of the book with `-`,
    /// lines of the run with `+`.
    pub differences: Vec<String>,
    /// The book's output, corrected where it differs.
    pub corrected: String,
    /// The same with the values of this run throughout.
    pub recorded: String,
}

impl Known {
    /// Compares an output with the book's.
    pub fn compare(&mut self, expected: &str, actual: &str, patterns: &[Pattern]) -> Compared {
        let ours: Vec<&str> = expected.lines().map(str::trim_end).collect();
        let theirs: Vec<&str> = actual.lines().map(str::trim_end).collect();
        let shapes = |lines: &[&str]| -> Vec<Shape> {
            let shape = |line: &&str| shape(patterns, line, blank(line));
            lines.iter().map(shape).collect()
        };
        let (our_shapes, their_shapes) = (shapes(&ours), shapes(&theirs));
        let Some(places) = align(&our_shapes, &their_shapes, 0) else {
            return different(&ours, &theirs, &our_shapes, &their_shapes);
        };
        let pairs = ours.iter().zip(&places);
        let recorded = text(pairs.clone().map(|(ours, place)| match place {
            Some(place) => theirs[*place],
            None => *ours,
        }));
        let inodes = pairs.filter_map(|(ours, place)| {
            let (ours, theirs) = (inodes(ours), inodes(theirs[(*place)?]));
            (ours.len() == theirs.len()).then(|| ours.into_iter().zip(theirs))
        });
        let mut differences = self.agree(inodes.flatten());
        differences.extend(self.learn(theirs.iter().flat_map(|line| named(patterns, line))));
        let corrected = match differences.is_empty() {
            true => text(ours.iter().copied()),
            false => recorded.clone(),
        };
        Compared {
            differences,
            corrected,
            recorded,
        }
    }

    /// Compares which inodes are equal in the book with which are equal in this
    /// run; returns what differs. The kernel reuses the numbers of namespaces
    /// that have ended, so from one command to the next only the namespaces
    /// that the machine began with are remembered.
    fn agree<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
        let mut differences = Vec::new();
        let mut all = self.inodes.clone();
        for (ours, theirs) in pairs {
            let other = all.iter().find(|(k, v)| *v == theirs && *k != ours);
            if let Some((other, _)) = other {
                differences.push(format!("+{theirs} is both {other} and {ours} of the book"));
            }
            let known = all
                .entry(ours.to_owned())
                .or_insert_with(|| theirs.to_owned());
            if known != theirs {
                differences.push(format!("+{ours} of the book is both {known} and {theirs}"));
            }
        }
        if differences.is_empty() {
            all.retain(|ours, _| ours.as_str() < FIRST_NEW);
            self.inodes = all;
        }
        differences
    }

    /// Remembers the values of names; returns those that have changed.
    fn learn<'a>(&mut self, values: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, value) in values {
            let known = self.names.entry(name.to_owned());
            let known = known.or_insert_with(|| value.to_owned());
            if known != value {
                differences.push(format!("+[{name}..] is both {known} and {value}"));
            }
        }
        differences
    }
}

/// For each line of the book the index of the line of the run that it stands
/// for, or `None` for [`ANY`]; the lines of the run from `at` on are meant.
/// `None` if they differ.
fn align(ours: &[Shape], theirs: &[Shape], at: usize) -> Option<Vec<Option<usize>>> {
    let Some((first, rest)) = ours.split_first() else {
        return (at == theirs.len()).then(Vec::new);
    };
    let (place, mut places) = if first.text == ANY {
        let places = (at..=theirs.len()).find_map(|at| align(rest, theirs, at))?;
        (None, places)
    } else if theirs.get(at) == Some(first) {
        (Some(at), align(rest, theirs, at + 1)?)
    } else {
        return None;
    };
    places.insert(0, place);
    Some(places)
}

/// Outputs whose lines are not alike.
fn different(
    ours: &[&str],
    theirs: &[&str],
    our_shapes: &[Shape],
    their_shapes: &[Shape],
) -> Compared {
    let (mut differences, mut corrected, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
    for op in capture_diff_slices(Algorithm::Myers, our_shapes, their_shapes) {
        let (tag, old, new) = op.as_tag_tuple();
        let (old, new) = (&ours[old], &theirs[new]);
        match (tag, old) {
            (DiffTag::Equal, _) => {
                differences.extend(old.iter().map(|line| format!(" {line}")));
                corrected.extend(old);
                recorded.extend(new);
            }
            (_, [ANY]) => {
                differences.push(format!(" {ANY}"));
                corrected.push(&ANY);
                recorded.push(&ANY);
            }
            _ => {
                differences.extend(old.iter().map(|line| format!("-{line}")));
                differences.extend(new.iter().map(|line| format!("+{line}")));
                corrected.extend(new);
                recorded.extend(new);
            }
        }
    }
    Compared {
        differences,
        corrected: text(corrected.into_iter().copied()),
        recorded: text(recorded.into_iter().copied()),
    }
}

fn text<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The bound between the numbers of namespaces: those of the namespaces that
/// the machine begins with are below, those of new ones are not.
const FIRST_NEW: &str = "4026532000";

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

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts
            .iter()
            .map(|text| Pattern::new(text).unwrap())
            .collect()
    }

    fn differences(known: &mut Known, ours: &str, theirs: &str) -> Vec<String> {
        known.compare(ours, theirs, &[]).differences
    }

    #[test]
    fn what_may_vary_is_recorded_and_all_else_is_compared() {
        let patterns = patterns(&["pid [..] of [..]"]);
        let compare = |actual| Known::default().compare("pid 7 of 9\nuid 0\n", actual, &patterns);
        let same = compare("pid 12 of 13 \nuid 0");
        assert!(same.differences.is_empty());
        assert_eq!(same.corrected, "pid 7 of 9\nuid 0\n");
        assert_eq!(same.recorded, "pid 12 of 13\nuid 0\n");
        let wrong = compare("pid 12 of 13\nuid 1\n");
        assert_eq!(wrong.differences, [" pid 7 of 9", "-uid 0", "+uid 1"]);
        assert_eq!(wrong.corrected, "pid 7 of 9\nuid 1\n");
        assert_eq!(wrong.recorded, "pid 12 of 13\nuid 1\n");
        // The value of a word is a word.
        assert!(
            !compare("pid 12 of all who are here\nuid 0\n")
                .differences
                .is_empty()
        );
        // The rest of the line is compared, and the number of the lines.
        assert!(!compare("PID 12 of 13\nuid 0\n").differences.is_empty());
        assert!(
            !compare("pid 12 of 13\npid 12 of 13\nuid 0\n")
                .differences
                .is_empty()
        );
    }

    #[test]
    fn a_name_is_one_value_in_all_commands() {
        let patterns = patterns(&["is [id..]", "[id..]: [..]"]);
        let mut known = Known::default();
        let mut compare = |ours, theirs| known.compare(ours, theirs, &patterns).differences;
        assert!(compare("is a\n", "is b\n").is_empty());
        assert!(compare("a: 1\n", "b: 2\n").is_empty());
        assert_eq!(compare("a: 1\n", "c: 1\n"), ["+[id..] is both b and c"]);
    }

    #[test]
    fn lines_may_be_left_out() {
        let compare = |ours, theirs| Known::default().compare(ours, theirs, &[]);
        let left_out = compare("a\n...\nc\n...\n", "a\nb\nc\nd\n");
        assert!(left_out.differences.is_empty());
        assert_eq!(left_out.recorded, "a\n...\nc\n...\n");
        let wrong = compare("...\nc\nd\n", "a\nb\nc\ne\n");
        assert_eq!(wrong.differences, [" ...", " c", "-d", "+e"]);
        assert_eq!(wrong.corrected, "...\nc\ne\n");
    }

    #[test]
    fn inodes_may_change_but_not_their_sameness() {
        let mut known = Known::default();
        let mut differ = |ours, theirs| !differences(&mut known, ours, theirs).is_empty();
        assert!(!differ("4026531838\n", "4026531838\n"));
        assert!(!differ("4026532001\n", "4026532777\n"));
        assert!(!differ("4026532001\n", "4026532777\n"));
        assert!(differ("4026532001\n", "4026531838\n"));
        let (ours, theirs) = ("4026532001 4026532002\n", "4026532777 4026532777\n");
        assert!(differ(ours, theirs));
        assert!(!differ("4026532001\n", "4026532999\n"));
    }
}
