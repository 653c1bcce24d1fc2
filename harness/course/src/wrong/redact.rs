//! Redaction of the parts of a message that vary from run to run: values that
//! the check drew, and numbers that the kernel counts.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use check::draws::{Draws, WORD};

/// Patterns and their replacements, in the order of their use. PIDs have at
/// least two digits: process 1 and 2 of a namespace are no accident.
const PATTERNS: &[(&str, &str)] = &[
    // Directories of checks, and of tempfile in general.
    (r"(/tmp)?/drydock-check-[A-Za-z0-9]{6}", "[dir]"),
    (r"\.tmp[A-Za-z0-9]{6}\b", "[temporary]"),
    (r"\btrial-\d+", "trial-[pid]"),
    (r"\bdrydock-rules-\d+", "drydock-rules-[pid]"),
    // Short names of layers, which are drawn at random.
    (r"/l/[A-Z2-7]{26}\b", "/l/[link]"),
    // Namespaces (nsfs), pipes and sockets.
    (r"\b402653\d{4}\b", "[inode]"),
    (r"\b(pipe|socket):\[\d+\]", "$1:[inode]"),
    // Processes: in words, in options, in the output of -v, in paths, in names.
    (
        r"\b(pid|PID|pids|process|child|namespaces) \d{2,}\b",
        "$1 [pid]",
    ),
    (
        r"(PID inside to be 1, found|be PID 1, found) \d{2,}",
        "$1 [pid]",
    ),
    (r"(processes: left behind:) \d+", "$1 [pid]"),
    (r"\b\d{2,} processes\b", "[number] processes"),
    (r"\bcontainer:\d+", "container:[pid]"),
    (r"\[\d{2,7}\] ", "[pid] "),
    (r"\b(pause|unpause|stats) \d{2,}", "$1 [pid]"),
    (r"/proc/\d+", "/proc/[pid]"),
    (r"\bdrydock-\d+-\d+", "drydock-[pid]-[time]"),
    (r"/run/drydock/net/\d+", "/run/drydock/net/[pid]"),
    // System V objects: key and identifier, which the kernel counts up.
    (r"\b(msg|sem|shm) (\S+) \d+$", "$1 $2 [id]"),
    (r"\b(queue|semaphore|memory) \d{4,}", "$1 [id]"),
    // A name that is padded to the longest allowed.
    (r"\bxy\.[a-z]{8}a+\b", "xy.[word]"),
    // Bad names, which are drawn: the long ones, and all of those that are
    // taken.
    (r"\ba{9,}\.a{9,}\b", "[long name]"),
    (
        r#"name "(?:[^"\\]|\\.)*" to be refused"#,
        "name [name] to be refused",
    ),
    // Users that are drawn at random.
    (r"--user \d+:\d+", "--user [uid]:[gid]"),
    (r"\b(UID|GID) \d{2,}", "$1 [id]"),
    (r"\b(setres[ug]id)\(\d{2,}", "$1([id]"),
    // What the C library says of a name depends on the machine's resolver.
    (r"(lookup address information: )[A-Z][a-z ]+", "$1[why]"),
    // Subnets that are drawn at random; ours is 10.213.0.0/16.
    (r"\b10\.(\d|[1-9]\d|1\d\d)\.\d+\.\d+(/\d+)?", "[address]"),
    // Times, link addresses, digests and IDs of containers.
    (r"\b\d{4}-\d\d-\d\dT[0-9:.]+Z?", "[time]"),
    (r"\b1[7-9]\d{8}\b", "[time]"),
    (r"\b\d+(\.\d+)(ms|s)\b", "[seconds]"),
    (r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "[mac]"),
    (r"\b[0-9a-f]{64}\b", "[digest]"),
    // The runtime's last words about a thread.
    (r"thread '[^']*' \(\d+\)", "thread '[name]' ([number])"),
    // A file that a process makes under a name of its own, with its PID.
    (r"(\[digest\](\.json)?\.)\d+\b", "$1[number]"),
    (r"(\\n|\b)[0-9a-f]{12}\b", "$1[id]"),
    // Operations on a tree, which follow from the seed.
    (
        r"after \[.*\] \(seed \d+, ",
        "after [operations] (seed [seed], ",
    ),
    // Measured values. The sizes of images depend on the distribution's
    // programs.
    (r"\b\d{6,} bytes\b", "[number] bytes"),
    (r"\b\d+ KiB\b", "[number] KiB"),
    (r"\b\d+ µs\b", "[number] µs"),
    (r"\b\d+\.\d{2,3} (s|%)", "[number] $1"),
    (r"\b(up|exited \(\d+\)) \d+ s\b", "$1 [number] s"),
    // When a line of a build came, its files, and those of a launcher's network.
    (r"(?m)^\d+\.\d{3} ", "[seconds] "),
    (r"\bbuild/context/[0-9a-f]{16}\b", "build/context/[id]"),
    (r"\bnet/net/\d+/", "net/net/[number]/"),
    // Hierarchies, which are counted from the boot on.
    (r"\b\d+:name=", "[number]:name="),
];

/// Numbers of five or six digits are drawn at random (users, ports, ranges),
/// except these.
const CONSTANTS: &[&str] = &["65534", "65535", "65536", "100000", "165535"];

/// The most letters that the checks may have drawn.
const DRAWN: usize = 1 << 16;

/// Redacts a message. Names that were drawn with `seed` become `[word]`.
pub(super) fn redacted(message: &str, seed: u64) -> String {
    static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let compiled = PATTERNS.iter().map(|(p, to)| Ok((Regex::new(p)?, *to)));
        compiled
            .collect::<Result<_, regex::Error>>()
            .unwrap_or_default()
    });
    let mut text = without_words(message, seed);
    for (pattern, to) in COMPILED.iter() {
        text = pattern.replace_all(&text, *to).into_owned();
    }
    without_numbers(&text)
}

fn without_numbers(message: &str) -> String {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b\d{5,7}\b").ok());
    let Some(number) = NUMBER.as_ref() else {
        return message.to_owned();
    };
    let replace = |found: &Captures<'_>| match CONSTANTS.contains(&&found[0]) {
        true => found[0].to_owned(),
        false => "[number]".to_owned(),
    };
    number.replace_all(message, replace).into_owned()
}

/// Redacts drawn names: a prefix, a hyphen and letters. Only the seed's
/// sequence of letters tells them from ordinary words.
fn without_words(message: &str, seed: u64) -> String {
    static NAME: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(&format!("-[a-z]{{{WORD}}}")).ok());
    let Some(name) = NAME.as_ref() else {
        return message.to_owned();
    };
    if !name.is_match(message) {
        return message.to_owned();
    }
    let drawn = Draws::new(seed).letters(DRAWN);
    let replace = |found: &Captures<'_>| match drawn.contains(&found[0][1..]) {
        true => "-[word]".to_owned(),
        false => found[0].to_owned(),
    };
    name.replace_all(message, replace).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        for (pattern, _) in PATTERNS {
            Regex::new(pattern).unwrap();
        }
    }

    #[test]
    fn what_was_drawn_is_taken_out_and_words_stay() {
        let mut draws = Draws::new(7);
        draws.number(1000);
        let name = draws.letters(WORD);
        let message = format!("expected box-{name}, found the read-ordinary one, PID 4711");
        assert_eq!(
            redacted(&message, 7),
            "expected box-[word], found the read-ordinary one, PID [pid]"
        );
        let message = "PID 1 of uts:[4026532132] is UID 65534, as 38298 is not mapped: 125";
        assert_eq!(
            redacted(message, 7),
            "PID 1 of uts:[[inode]] is UID [id], as [number] is not mapped: 125"
        );
    }
}
