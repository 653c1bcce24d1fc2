//! The rules for host names: the kernel's limit (sethostname(2)) and the syntax
//! of RFC 1123, section 2.1.
//!
//! The kernel accepts any 64 bytes. A name that other programs cannot look up,
//! or whose slash ends up in a path, does harm later and elsewhere: it is
//! refused here.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, bail, ensure};

/// The kernel's limit for either name, in bytes (`__NEW_UTS_LEN`).
pub const KERNEL_LIMIT: usize = 64;

/// The longest label of a host name, in bytes (RFC 1123, RFC 1035).
pub const LABEL_LIMIT: usize = 63;

/// Checks a host name or domain name.
///
/// # Errors
/// Names the rule that `name` breaks. In the order of the checks, a name is not
/// empty; has at most [`KERNEL_LIMIT`] bytes; consists of labels, separated by
/// dots, of 1 to [`LABEL_LIMIT`] ASCII letters, digits and hyphens, without a
/// hyphen at either end; and does not have the form of an IPv4 address.
pub fn check(name: &OsStr) -> Result<()> {
    // ANCHOR: exercise_names_of_hosts
    let bytes = name.as_bytes();
    ensure!(!bytes.is_empty(), "a host name is not empty");
    ensure!(
        bytes.len() <= KERNEL_LIMIT,
        "it has {} bytes, and the kernel takes {KERNEL_LIMIT} at most (sethostname(2)): shorten it",
        bytes.len()
    );
    for label in bytes.split(|byte| *byte == b'.') {
        check_label(label)?;
    }
    if name.to_str().is_some_and(|s| s.parse::<Ipv4Addr>().is_ok()) {
        bail!("it has the form of an IPv4 address, which no host name may have (RFC 1123)");
    }
    Ok(())
    // ANCHOR_END: exercise_names_of_hosts
}

fn check_label(label: &[u8]) -> Result<()> {
    let shown = OsStr::from_bytes(label);
    ensure!(
        !label.is_empty(),
        "a label is empty: write single dots, and only between labels (RFC 1123)"
    );
    ensure!(
        label.len() <= LABEL_LIMIT,
        "the label {shown:?} has {} bytes, and {LABEL_LIMIT} is the limit (RFC 1123): shorten it",
        label.len()
    );
    if let Some(byte) = label
        .iter()
        .find(|byte| !byte.is_ascii_alphanumeric() && **byte != b'-')
    {
        bail!(
            "{:?} is not allowed: use letters from a to z, digits, hyphens and dots (RFC 1123)",
            OsStr::from_bytes(&[*byte])
        );
    }
    ensure!(
        !label.starts_with(b"-") && !label.ends_with(b"-"),
        "the label {shown:?} begins or ends with a hyphen (RFC 1123)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        check(OsStr::new(name)).unwrap_err().to_string()
    }

    #[test]
    fn names_of_hosts_are_accepted() {
        let longest = format!("{}.{}", "a".repeat(31), "b".repeat(32));
        assert_eq!(longest.len(), KERNEL_LIMIT);
        for name in [
            "a",
            "box",
            "BOX",
            "a-b",
            "3com.example",
            "10",
            "1.2.3",
            &longest,
        ] {
            assert!(check(OsStr::new(name)).is_ok(), "{name} was refused");
        }
    }

    #[test]
    fn a_refusal_names_its_rule() {
        assert!(refusal("").contains("empty"));
        assert!(refusal(&"a".repeat(65)).contains("64"));
        assert!(refusal(&"a".repeat(64)).contains("63 is the limit"));
        assert!(refusal("a/b").contains("\"/\""));
        assert!(refusal("a_b").contains("\"_\""));
        assert!(refusal("a b").contains("\" \""));
        assert!(refusal("-a").contains("hyphen"));
        assert!(refusal("b.a-").contains("hyphen"));
        assert!(refusal("a..b").contains("empty"));
        assert!(refusal("a.").contains("empty"));
        assert!(refusal("10.0.0.1").contains("IPv4"));
    }

    #[test]
    fn a_byte_that_is_no_character_is_refused_and_shown() {
        let error = check(OsStr::from_bytes(b"a\xffb")).unwrap_err();
        assert!(error.to_string().contains("\\xFF"), "{error}");
    }
}
