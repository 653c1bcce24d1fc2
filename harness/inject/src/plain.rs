//! Removes from texts what varies between launches.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use regex::Regex;

/// The rules that replace what varies.
pub struct Plain {
    place: PathBuf,
    rules: Vec<(Regex, &'static str)>,
}

/// Patterns of what varies, and their replacements.
const RULES: [(&str, &str); 13] = [
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\b(drydock|dd)-\d+-\d+\b", "$1-PID"),
    (
        r"\b(pipe|socket|net|pid|mnt|user|uts|ipc|cgroup):\[\d+\]",
        "$1:[…]",
    ),
    (r"/proc/\d+\b", "/proc/PID"),
    (r"/net/\d+\b", "/net/PID"),
    (r"\.\d+\.new\b", ".PID.new"),
    (r"/names/[a-z]+_[a-z]+\w*", "/names/NAME"),
    (r"\bl/[A-Z2-7]{26}\b", "l/LINK"),
    (r"\b\d+\.\d+\.\d+\.\d+\b", "ADDRESS"),
    (r"\b(NSpid:)\s.*", "$1 …"),
    (r"\bveth[0-9a-z]+\b", "vethN"),
    (r"memfd:\S+", "memfd"),
];

impl Plain {
    /// The rules for launches in the directory `place`.
    pub fn new(place: &Path) -> Result<Self> {
        let rules = RULES.into_iter().map(|(pattern, with)| {
            let rule = Regex::new(pattern).with_context(|| format!("the pattern {pattern:?}"))?;
            Ok((rule, with))
        });
        Ok(Plain {
            place: place.to_owned(),
            rules: rules.collect::<Result<_>>()?,
        })
    }

    /// Replaces everything in a text that varies.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.replace(&*self.place.to_string_lossy(), "…");
        for (rule, with) in &self.rules {
            text = rule.replace_all(&text, *with).into_owned();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_replaced() {
        let plain = Plain::new(Path::new("/tmp/here")).unwrap();
        for (text, expected) in [
            (
                "/tmp/here/root/run/overlay2.lock",
                "…/root/run/overlay2.lock",
            ),
            ("socket:[123] x", "socket:[…] x"),
            (
                "/sys/fs/cgroup/pids/drydock/drydock-97-88094",
                "/sys/fs/cgroup/pids/drydock/drydock-PID",
            ),
            ("c/names/jolly_trawler", "c/names/NAME"),
        ] {
            assert_eq!(plain.text(text), expected);
        }
    }
}
