//! The name of a layer.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Error, Result, bail};

/// The longest id, in bytes. With the prefixes and suffixes of the stores it is
/// still a file name (255 bytes).
const LONGEST: usize = 128;

/// The name of a layer within a driver: at most 128 bytes of letters, digits,
/// `_`, `.` and `-`, the first a letter or a digit.
///
/// An id is a file name below the state directory and a part of mount options.
/// It therefore cannot be `..` or contain a `/`, nor a `,` or `:`, which mount
/// options would have to escape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(String);

impl LayerId {
    /// The id of the `-init` layer, which is below the container's read-write
    /// layer. It holds what a runtime writes into every container
    /// (`/etc/hosts`…) and what no diff of the container should show.
    ///
    /// # Errors
    /// If the id becomes too long.
    pub fn init(&self) -> Result<Self> {
        format!("{self}-init").parse()
    }

    /// The id without the suffix `-init`, if it has one.
    pub fn is_init_of(&self) -> Option<Self> {
        self.0.strip_suffix("-init")?.parse().ok()
    }

    /// The id as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayerId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let first = |c: char| c.is_ascii_alphanumeric();
        if id.len() > LONGEST || !id.starts_with(first) || !id.chars().all(usual) {
            bail!(
                "{id:?} is not a name for a layer: use letters, digits, _ . and -, the first a \
                 letter or digit, at most {LONGEST}"
            );
        }
        Ok(LayerId(id.to_owned()))
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<Path> for LayerId {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

kit::serde_as_text!(LayerId);

#[cfg(test)]
mod tests {
    use super::LayerId;

    #[test]
    fn what_would_leave_the_directory_or_need_an_escape_is_no_id() {
        for bad in [
            "", ".", "..", "a/b", "a,b", "a:b", "a\\b", "a b", "-x", ".x", "a\n",
        ] {
            assert!(bad.parse::<LayerId>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(129).parse::<LayerId>().is_err());
        assert!("sha256-0a.b_c".parse::<LayerId>().is_ok());
    }
}
