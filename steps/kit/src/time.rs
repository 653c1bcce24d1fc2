//! The current time.

use std::time::SystemTime;

/// The current time in the format of RFC 3339, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
