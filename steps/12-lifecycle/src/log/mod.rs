//! The log of a container, as Docker's driver `json-file` writes it:
//!
//! ```text
//! STATE/ID/json.log      {"log":"a line\n","stream":"stdout","time":"2026-…Z"}
//! STATE/ID/json.log.1    the file before, and so on
//! ```
//!
//! A line of the command is a line of the file, unless it is longer than 16 KiB:
//! then it is several, of which only the last has the newline.

pub mod read;
pub mod write;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The longest piece of a line, in bytes.
pub const LONGEST: usize = 16 << 10;

/// One of the command's two outputs. With a terminal there is only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the command wrote, with its newline.
    pub log: String,
    /// Where.
    pub stream: Output,
    /// When it was read from the command, RFC 3339 with nanoseconds.
    pub time: String,
}

/// The newest file of a log in the directory of a container.
pub fn file(directory: &Path, number: u32) -> PathBuf {
    match number {
        0 => directory.join("json.log"),
        number => directory.join(format!("json.log.{number}")),
    }
}

/// A point in time as Go's `RFC3339Nano` prints it: zeros at the end of the
/// fraction are left out.
pub fn timestamp(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_nanos(time).to_string();
    let text = text.trim_end_matches('Z').trim_end_matches('0');
    format!("{}Z", text.trim_end_matches('.'))
}

/// The point in time that a user names: RFC 3339, also without a zone or a time
/// of day; seconds since 1970; or an age, such as `10m` or `1h30m`.
pub fn point_in_time(text: &str) -> anyhow::Result<SystemTime> {
    use anyhow::Context;
    use std::time::Duration;
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    if let Ok(day) = humantime::parse_rfc3339_weak(&format!("{text}T00:00:00Z")) {
        return Ok(day);
    }
    if let Ok(seconds) = text.parse::<f64>()
        && let Ok(since) = Duration::try_from_secs_f64(seconds)
    {
        return Ok(UNIX_EPOCH + since);
    }
    let age = humantime::parse_duration(text)
        .ok()
        .and_then(|age| SystemTime::now().checked_sub(age));
    age.with_context(|| {
        format!("{text:?} is no point in time: give 2026-11-30T12:00:00Z, or an age such as 10m")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_gos() {
        let at = |nanos: u64| timestamp(UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(120_000_000), "1970-01-01T00:00:00.12Z");
        assert_eq!(at(10_000_000_001), "1970-01-01T00:00:10.000000001Z");
    }

    #[test]
    fn points_in_time() {
        for text in [
            "2026-11-30T12:00:00Z",
            "2026-11-30T12:00:00.5Z",
            "2026-11-30T12:00:00",
            "2026-11-30",
            "1500000000",
            "1500000000.25",
            "10m",
            "1h30m",
        ] {
            point_in_time(text).unwrap();
        }
        for bad in ["", "yesterday", "-1", "10 parsecs"] {
            assert!(point_in_time(bad).is_err(), "{bad}");
        }
    }
}
