//! The current time.

use std::time::SystemTime;

/// The current time in the format of RFC 3339, to the nanosecond.
pub fn now() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}
