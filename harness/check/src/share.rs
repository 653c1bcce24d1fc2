//! Shares of a list: `2/3` is the second of every three items.

use std::str::FromStr;

/// The K-th of every N items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    which: usize,
    of: usize,
}

impl Share {
    /// Removes the items of all other shares. N runs, one for each K, cover
    /// everything.
    pub fn keep<T>(self, all: &mut Vec<T>) {
        let mut place = 0;
        all.retain(|_| {
            place += 1;
            place % self.of == self.which % self.of
        });
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = text
            .split_once('/')
            .and_then(|(which, of)| Some((which.parse().ok()?, of.parse().ok()?)));
        share
            .filter(|&(which, of)| (1..=of).contains(&which))
            .map(|(which, of)| Share { which, of })
            .ok_or_else(|| format!("{text:?}: not a share such as 2/3"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_whole_together() {
        let mut together: Vec<u32> = Vec::new();
        for share in ["1/3", "2/3", "3/3"] {
            let mut all: Vec<u32> = (0..8).collect();
            share.parse::<Share>().unwrap().keep(&mut all);
            assert!(all.len() >= 2);
            together.extend(all);
        }
        together.sort_unstable();
        assert_eq!(together, (0..8).collect::<Vec<u32>>());
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in ["", "1", "0/3", "4/3", "1/0", "a/b", "-1/3"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
