//! Verdicts on launches with a fault.

use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::launch::Launch;
use super::plan::{Fault, Planned};
use check::protections::Protections;
use check::trace::follow::LAUNCHER;

/// How a launch with a fault ended. The first four are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The call was not made this time, so nothing was tested.
    Missed,
    /// The command ran as it does without the fault.
    Success,
    /// A clean error: status 125, 126 or 127, and one line that names the call
    /// and its object.
    Refused,
    /// The launch was killed, and the next container removed its remains.
    Killed,
    /// The error names neither the call nor its object, or is not one line.
    Unclear,
    /// Not an exit status of a launcher, or success although the command did
    /// not run.
    Status,
    /// The host or the state directory is changed.
    Left,
    /// The next container fails, or the remains cannot be removed.
    Next,
    /// A panic, or death by a signal that was not injected.
    Died,
    /// The launcher, or a process that it left behind, had to be killed.
    Hung,
    /// The command ran with fewer protections than without the fault.
    Protection,
}

impl Verdict {
    /// All verdicts, in order.
    pub const ALL: [Verdict; 11] = [
        Verdict::Missed,
        Verdict::Success,
        Verdict::Refused,
        Verdict::Killed,
        Verdict::Unclear,
        Verdict::Status,
        Verdict::Left,
        Verdict::Next,
        Verdict::Died,
        Verdict::Hung,
        Verdict::Protection,
    ];

    /// Whether the launch ended as it should.
    pub fn is_good(self) -> bool {
        self <= Verdict::Killed
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Missed => "missed",
            Verdict::Success => "success",
            Verdict::Refused => "refused",
            Verdict::Killed => "killed",
            Verdict::Unclear => "unclear",
            Verdict::Status => "status",
            Verdict::Left => "left",
            Verdict::Next => "next",
            Verdict::Died => "died",
            Verdict::Hung => "hung",
            Verdict::Protection => "protection",
        })
    }
}

/// A verdict and its reason, which is empty for a good one.
pub type Judged = (Verdict, String);

/// Judges the end of the launch itself. `reported` is the report of the
/// command, if it has run; `expected` is the report without a fault; `said` is
/// the launcher's standard error, without what varies between launches.
pub fn of_end(
    planned: &Planned,
    launch: &Launch,
    reported: Option<&Protections>,
    expected: &Protections,
    said: &str,
) -> Judged {
    let lines = said.lines().count();
    let (Some(status), true) = (launch.status, launch.left.is_empty()) else {
        let left = match launch.status {
            None => "the launcher".to_owned(),
            Some(_) => launch.left.join(", "),
        };
        return (Verdict::Hung, format!("did not end: {left}; said: {said}"));
    };
    if launch.reached.is_none() {
        return (Verdict::Missed, String::new());
    }
    if let Some(dropped) = reported.and_then(|reported| difference(expected, reported)) {
        return (Verdict::Protection, dropped);
    }
    let launcher_killed = planned.fault.kills() && planned.at.process == LAUNCHER;
    match (planned.fault, status) {
        _ if said.contains("panicked at") => (Verdict::Died, said.to_owned()),
        (_, 137) if launcher_killed => (Verdict::Killed, String::new()),
        // The killed process was the command of a container, or was to become
        // it.
        (Fault::KillBefore | Fault::KillAfter, 137) => (Verdict::Killed, String::new()),
        (_, 0) if reported.is_some() => (Verdict::Success, String::new()),
        (_, 0) => (
            Verdict::Status,
            "status 0, but the command has not run".to_owned(),
        ),
        (_, 125..=127) if lines != 1 => (Verdict::Unclear, format!("{lines} lines: {said}")),
        (Fault::Fail(errno), 125..=127) => match unnamed(planned, errno, said) {
            None => (Verdict::Refused, String::new()),
            Some(what) => (Verdict::Unclear, format!("names no {what}: {said}")),
        },
        (_, 125..=127) => (Verdict::Refused, String::new()),
        (_, 129..) => (Verdict::Died, format!("status {status}: {said}")),
        _ => (Verdict::Status, format!("status {status}: {said}")),
    }
}

/// How the reported protections differ from the expected ones; `None` if they
/// are equal.
fn difference(expected: &Protections, reported: &Protections) -> Option<String> {
    let mut all = Vec::new();
    for (what, lines) in expected {
        let found = reported.get(what).map_or(&[][..], Vec::as_slice);
        let gone = lines.iter().filter(|line| !found.contains(line));
        all.extend(gone.map(|line| format!("{what}: not {line:?}")));
        let new = found.iter().filter(|line| !lines.contains(line));
        all.extend(new.map(|line| format!("{what}: but {line:?}")));
    }
    (!all.is_empty()).then(|| all.join("; "))
}

/// The part that an error message fails to name: the errno, the call or its
/// object. A library may use another name for the call; then the message must
/// name the object.
fn unnamed(planned: &Planned, errno: Errno, said: &str) -> Option<&'static str> {
    let has = |word: &str| said.to_lowercase().contains(&word.to_lowercase());
    let object = &planned.at.object;
    let is_named = |part: &str| {
        let name = part.rsplit('/').find(|name| !name.is_empty());
        // Varying parts have other names in the message.
        let varies = ["ID", "PID", "NAME", "LINK", "…"];
        has(part) || name.is_some_and(|name| !varies.contains(&name) && has(name))
    };
    // A directory stands for its content, a file for the directories above it.
    let paths = said.split(['"', ' ', '(', ')', ':', ',']);
    let paths = paths.map(|path| path.trim_end_matches('/'));
    let mut paths =
        paths.filter(|path| path.starts_with(['/', '…']) && path.len() > '…'.len_utf8());
    let is_below = |path: &str| {
        let mut parts = object.split(' ').filter(|part| !part.is_empty());
        parts.any(|part| part.starts_with(path) || path.starts_with(part))
    };
    let names_object = object.split(' ').any(is_named) || paths.any(is_below);
    let names_call = words(&planned.at.call).iter().any(|word| has(word));
    let names_errno = has(&format!("{errno:?}")) || has(errno.desc()) || has(&words_for(errno));
    // The standard library's mkdir -p returns EEXIST where it could not look.
    if !(names_errno || names_object && object.contains('/')) {
        return Some("errno");
    }
    // A descriptor has no name of its own, but its target has one.
    let names_place = said.contains(['/', '"']) || !object.contains('/');
    match (names_object && object.contains('/'), names_call) {
        (true, _) => None,
        (false, true) if names_place => None,
        (false, true) => Some("object"),
        (false, false) => Some("call"),
    }
}

/// The C library's text for an errno, which the standard library prints.
fn words_for(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The names that a message may use for a call.
fn words(call: &str) -> Vec<String> {
    let stem = call.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.strip_suffix("at").unwrap_or(stem);
    let mut words = vec![call.to_owned(), stem.to_owned()];
    let more: &[&str] = match call {
        "sendto" | "sendmsg" | "recvfrom" | "recvmsg" | "bind" | "socket" | "getsockname"
        | "setsockopt" => &["netlink", "nftables", "socket", "RTM_", "NFT_"],
        "clone3" | "clone" | "vfork" => &["clone", "fork"],
        "wait4" => &["wait"],
        "getdents64" => &["readdir"],
        "signalfd4" => &["signalfd"],
        "prlimit64" => &["rlimit"],
        "dup2" | "fcntl" => &["dup"],
        "readlink" | "readlinkat" => &["realpath"],
        "newfstatat" | "statx" => &["stat"],
        "setresuid" | "setresgid" => &["setresuid", "setresgid", "uid"],
        "fsconfig" | "fsmount" | "fsopen" => &["fsopen", "mount"],
        _ => &[],
    };
    words.extend(more.iter().map(|&word| word.to_owned()));
    words
}
