//! The current time, and how long to wait.

use std::time::{Duration, SystemTime};

use rustix::event::Timespec;

/// The current time in the format of RFC 3339, to the nanosecond.
pub fn now() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}

/// The time limit of a poll(2) that is to end after `left`.
pub fn timeout(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}

/// The time limit of a poll(2) that is to end at `until`, if that is ever.
pub fn timeout_at(until: Option<SystemTime>) -> Option<Timespec> {
    let left = until?.duration_since(SystemTime::now());
    Some(timeout(left.unwrap_or_default()))
}
