//! Lists of CPUs and memory nodes (cpuset(7), "List format").

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

/// A set of CPU or memory node numbers, in the list format of cpuset(7):
/// `0-3,6`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdList(pub BTreeSet<u32>);

impl IdList {
    /// The limit of the numbers: more than any kernel is built for. It prevents
    /// a typing error from filling the memory.
    const MOST: u32 = 1 << 16;

    /// The numbers of `self` that are not in `other`.
    pub fn without(&self, other: &IdList) -> IdList {
        IdList(self.0.difference(&other.0).copied().collect())
    }
}

impl FromStr for IdList {
    type Err = Error;

    /// Reads a list of numbers and ranges, which may be empty.
    fn from_str(text: &str) -> Result<Self> {
        let what = || format!("{text:?} is not a list: write 0, 0-3 or 0,2");
        let mut ids = BTreeSet::new();
        for part in text.split(',').map(str::trim) {
            if part.is_empty() && text.trim().is_empty() {
                continue;
            }
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u32 = first.parse().with_context(what)?;
            let last: u32 = last.parse().with_context(what)?;
            if first > last || last >= Self::MOST {
                bail!(what());
            }
            ids.extend(first..=last);
        }
        Ok(IdList(ids))
    }
}

impl fmt::Display for IdList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while let Some(next) = ids.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

kit::serde_as_text!(IdList);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_shown() {
        for (text, shown) in [
            ("0", "0"),
            ("0-3,6", "0-3,6"),
            ("3,1,2", "1-3"),
            ("0,1", "0-1"),
            ("\n", ""),
        ] {
            assert_eq!(
                text.parse::<IdList>().unwrap().to_string(),
                shown,
                "{text:?}"
            );
        }
        for text in ["a", "3-1", "1,,2", "0-4000000000", "-1", "1-"] {
            assert!(text.parse::<IdList>().is_err(), "{text:?} was accepted");
        }
    }
}
