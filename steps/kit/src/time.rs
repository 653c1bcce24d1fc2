//! Points in time.

use std::time::SystemTime;

/// This moment, as RFC 3339 has it, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
