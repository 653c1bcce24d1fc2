//! The ranges of a uid_map or gid_map, and the kernel's rules for them
//! (user_namespaces(7), “User and group ID mappings”).

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::ids::Ids;

/// The most lines that the kernel takes in one map, since Linux 4.15. Before,
/// it took 5.
const MOST_RANGES: usize = 340;

/// One line of a map: `count` IDs, which are `inside`, `inside` + 1… in the
/// namespace and `outside`, `outside` + 1… in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The first ID as the namespace sees it.
    pub inside: u32,
    /// The first ID as the parent namespace sees it.
    pub outside: u32,
    /// The number of IDs.
    pub count: u32,
}

impl FromStr for IdMap {
    type Err = Error;

    /// Reads `INSIDE:OUTSIDE:COUNT`: three numbers from 0 to 4294967295.
    fn from_str(text: &str) -> Result<Self> {
        let numbers: Result<Vec<u32>> = text.split(':').map(number).collect();
        match numbers.as_deref() {
            Ok(&[inside, outside, count]) => Ok(IdMap {
                inside,
                outside,
                count,
            }),
            _ => bail!(
                "use INSIDE:OUTSIDE:COUNT, each a number from 0 to {}",
                u32::MAX
            ),
        }
    }
}

/// Reads an ID or a count. `u32::from_str` would also take a plus sign.
pub(crate) fn number(text: &str) -> Result<u32> {
    ensure!(
        text.starts_with(|c: char| c.is_ascii_digit()),
        "{text:?} is not a number"
    );
    text.parse()
        .with_context(|| format!("{text:?} is not a number from 0 to {}", u32::MAX))
}

/// The kernel's form: `inside outside count`.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IdMap {
            inside,
            outside,
            count,
        } = self;
        write!(f, "{inside} {outside} {count}")
    }
}

/// The content of a map file, one line per range.
pub fn file_content(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{map}\n")).collect()
}

/// Parses the text of a map file, such as `/proc/self/uid_map`.
pub fn parse_file(text: &str) -> Result<Vec<IdMap>> {
    text.lines()
        .map(|line| {
            line.split_ascii_whitespace()
                .collect::<Vec<_>>()
                .join(":")
                .parse()
        })
        .collect()
}

/// Whether the `count` IDs from `first` on lie within the `size` IDs from
/// `start` on.
pub(crate) fn within(first: u32, count: u32, start: u32, size: u32) -> bool {
    first >= start && u64::from(first) + u64::from(count) <= u64::from(start) + u64::from(size)
}

/// Checks `maps` by the kernel's rules, with an error for each rule instead of
/// its `EINVAL` and `EPERM`. `own` is the launcher's own map: the outside IDs
/// must exist in the launcher's namespace.
///
/// # Errors
/// An empty range, one that reaches 4294967295 (which stands for “no ID”, as
/// -1), two that overlap on either side, too many, or one that is not mapped in
/// the launcher's namespace.
pub fn check(ids: Ids, maps: &[IdMap], own: &[IdMap]) -> Result<()> {
    // ANCHOR: exercise_check_maps
    ensure!(
        maps.len() <= MOST_RANGES,
        "{} ranges are {}; the kernel takes {MOST_RANGES}",
        ids.option(),
        maps.len()
    );
    for (n, map) in maps.iter().enumerate() {
        let name = || format!("{} {}", ids.option(), colons(map));
        ensure!(
            map.count > 0,
            "{}: the range is empty: COUNT is at least 1",
            name()
        );
        for first in [map.inside, map.outside] {
            ensure!(
                first.checked_add(map.count).is_some(),
                "{}: {} from {first} on go beyond {}, the highest {}",
                name(),
                map.count,
                u32::MAX - 1,
                ids.noun()
            );
        }
        for other in &maps[..n] {
            let overlap = |side: fn(&IdMap) -> u32| {
                let (a, b) = (side(map), side(other));
                a < b.saturating_add(other.count) && b < a.saturating_add(map.count)
            };
            for (side, overlaps) in [
                ("inside", overlap(|m| m.inside)),
                ("outside", overlap(|m| m.outside)),
            ] {
                ensure!(
                    !overlaps,
                    "{}: it overlaps {} {side}: an ID is mapped once at most",
                    name(),
                    colons(other)
                );
            }
        }
        ensure!(
            own.iter()
                .any(|own| within(map.outside, map.count, own.inside, own.count)),
            "{}: where the launcher is, not all of these {}s exist: see /proc/self/{}",
            name(),
            ids.noun(),
            ids.file()
        );
    }
    Ok(())
    // ANCHOR_END: exercise_check_maps
}

fn colons(map: &IdMap) -> String {
    map.to_string().replace(' ', ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: IdMap = IdMap {
        inside: 0,
        outside: 0,
        count: u32::MAX,
    };

    fn refusal(maps: &[&str], own: &[IdMap]) -> String {
        let maps: Vec<IdMap> = maps.iter().map(|map| map.parse().unwrap()).collect();
        match check(Ids::User, &maps, own) {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_map_is_three_numbers() {
        let map: IdMap = "0:100000:65536".parse().unwrap();
        assert_eq!((map.inside, map.outside, map.count), (0, 100_000, 65_536));
        assert_eq!(map.to_string(), "0 100000 65536");
        for text in [
            "",
            "0",
            "0:0",
            "0:0:1:1",
            "0:0:-1",
            "0:+1:1",
            "a:b:c",
            "0:0:4294967296",
            "0: 0:1",
        ] {
            assert!(text.parse::<IdMap>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn the_kernels_own_file_is_read() {
        let own =
            parse_file("         0       1000          1\n         1 100000 65536\n").unwrap();
        assert_eq!(file_content(&own), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn what_the_kernel_takes_is_taken() {
        assert_eq!(refusal(&["0:1000:1", "1:100000:65536"], &[ALL]), "");
        assert_eq!(refusal(&["0:0:4294967295"], &[ALL]), "");
        assert_eq!(refusal(&["5:9:1", "0:10:5", "6:0:9"], &[ALL]), "");
        assert_eq!(refusal(&[], &[ALL]), "");
    }

    #[test]
    fn empty_and_endless_ranges_are_refused() {
        assert!(refusal(&["0:0:0"], &[ALL]).contains("empty"));
        assert!(refusal(&["1:0:4294967295"], &[ALL]).contains("beyond 4294967294"));
        assert!(refusal(&["0:4294967295:1"], &[ALL]).contains("beyond 4294967294"));
    }

    #[test]
    fn overlaps_are_refused_on_either_side() {
        assert!(refusal(&["0:1000:10", "9:2000:1"], &[ALL]).contains("overlaps 0:1000:10 inside"));
        assert!(
            refusal(&["0:1000:10", "10:1009:5"], &[ALL]).contains("overlaps 0:1000:10 outside")
        );
        assert!(refusal(&["5:5:1", "0:0:100"], &[ALL]).contains("overlaps 5:5:1 inside"));
    }

    #[test]
    fn an_outside_that_is_not_there_is_refused() {
        let own = [IdMap {
            inside: 0,
            outside: 1000,
            count: 1,
        }];
        assert_eq!(refusal(&["7:0:1"], &own), "");
        assert!(refusal(&["0:0:2"], &own).contains("0:0:2"));
        assert!(refusal(&["0:1000:1"], &own).contains("0:1000:1"));
    }

    #[test]
    fn more_ranges_than_the_kernel_takes_are_refused() {
        let maps: Vec<String> = (0..341).map(|n| format!("{n}:{n}:1")).collect();
        let maps: Vec<&str> = maps.iter().map(String::as_str).collect();
        assert_eq!(refusal(&maps[..340], &[ALL]), "");
        assert!(refusal(&maps, &[ALL]).contains("340"));
    }
}
