//! Ranges of subordinate IDs, which an administrator gives to users for their
//! namespaces: subuid(5), subgid(5).

use std::fmt;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use crate::ids::Ids;
use crate::map::{IdMap, number, within};

/// A range of subordinate IDs: the `count` IDs from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first ID.
    pub start: u32,
    /// The number of IDs.
    pub count: u32,
}

impl Range {
    /// Whether all outside IDs of `map` lie in this range.
    pub fn holds(&self, map: &IdMap) -> bool {
        within(map.outside, map.count, self.start, self.count)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = u64::from(self.start) + u64::from(self.count) - 1;
        write!(f, "{}-{last}", self.start)
    }
}

/// Reads the ranges of the user `name` or `uid` in `/etc/subuid` or
/// `/etc/subgid`, in the order of the file. Both files list users, never
/// groups. A missing file has no ranges.
pub fn ranges(ids: Ids, name: Option<&str>, uid: u32) -> Result<Vec<Range>> {
    match fs::read_to_string(ids.subordinate()) {
        Ok(text) => Ok(parse(&text, name, uid)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("read {}", ids.subordinate())),
    }
}

/// Parses subuid(5). Lines other than `USER:START:COUNT` are skipped, as
/// newuidmap(1) does.
fn parse(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let [user, start, count] = line.split(':').collect::<Vec<_>>()[..] else {
                return None;
            };
            let range = Range {
                start: number(start.trim()).ok()?,
                count: number(count.trim()).ok()?,
            };
            ((Some(user) == name || user == uid) && range.count > 0).then_some(range)
        })
        .collect()
}

/// A map of all `ranges` without gaps, from `first` inside on.
pub fn stacked(ranges: &[Range], mut first: u32) -> Vec<IdMap> {
    let mut maps = Vec::new();
    for range in ranges {
        maps.push(IdMap {
            inside: first,
            outside: range.start,
            count: range.count,
        });
        // `map::check` refuses a sum that is too great.
        first = first.saturating_add(range.count);
    }
    maps
}

/// The ranges as text, for errors.
pub fn in_words(ranges: &[Range]) -> String {
    match ranges {
        [] => "none".to_owned(),
        _ => ranges
            .iter()
            .map(Range::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# ranges
alice:100000:65536
bob:165536:65536
1000:300000:10
alice:bad:1
alice:400000:0
alice:500000:5
";

    #[test]
    fn a_user_is_found_by_name_and_by_uid() {
        let found = parse(FILE, Some("alice"), 1000);
        assert_eq!(
            in_words(&found),
            "100000-165535, 300000-300009, 500000-500004"
        );
        assert_eq!(in_words(&parse(FILE, None, 1000)), "300000-300009");
        assert_eq!(in_words(&parse(FILE, Some("eve"), 1002)), "none");
    }

    #[test]
    fn ranges_are_stacked_without_gaps() {
        let maps = stacked(&parse(FILE, Some("alice"), 1), 1);
        assert_eq!(
            crate::map::file_content(&maps),
            "1 100000 65536\n65537 500000 5\n"
        );
    }

    #[test]
    fn a_range_holds_only_what_is_wholly_in_it() {
        let range = Range {
            start: 100_000,
            count: 10,
        };
        assert!(range.holds(&"0:100000:10".parse().unwrap()));
        assert!(range.holds(&"0:100009:1".parse().unwrap()));
        assert!(!range.holds(&"0:100009:2".parse().unwrap()));
        assert!(!range.holds(&"0:99999:1".parse().unwrap()));
    }
}
