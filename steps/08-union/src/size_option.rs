//! The size of containers' layers, as options name it.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use cgroups::Bytes;
use clap::ValueEnum;

use crate::kind::Kind;

/// A size for containers' layers: `size=10g`, or that of one driver's only:
/// `overlay2.size=10g`, `dm.basesize=10g`, as Docker's daemon takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeOption {
    /// The driver; `None` for any.
    pub driver: Option<Kind>,
    /// The size.
    pub size: Bytes,
}

impl SizeOption {
    /// The value of the option of a single container, `size=10g`.
    ///
    /// # Errors
    /// If it is another option.
    pub fn only(text: &str) -> Result<Bytes> {
        let option: SizeOption = text.parse()?;
        ensure!(
            option.driver.is_none(),
            "{text:?}: for a single container, give size=BYTES"
        );
        Ok(option.size)
    }
}

impl FromStr for SizeOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, size) = text
            .split_once('=')
            .with_context(|| format!("{text:?}: give size=BYTES"))?;
        let driver = match name.to_ascii_lowercase().as_str() {
            "size" => None,
            "dm.basesize" => Some(Kind::Devicemapper),
            other => match other
                .strip_suffix(".size")
                .and_then(|driver| Kind::from_str(driver, false).ok())
            {
                Some(driver) if driver.has_sizes() => Some(driver),
                _ => bail!("unknown storage option {name:?}: give size=BYTES"),
            },
        };
        let size: Bytes = size.parse()?;
        ensure!(size.0 > 0, "{text:?}: give at least 1");
        Ok(SizeOption { driver, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_for_a_driver_or_for_all() {
        let option = |text: &str| text.parse::<SizeOption>().unwrap();
        let all = option("size=2k");
        assert_eq!((all.driver, all.size), (None, Bytes(2048)));
        assert_eq!(option("overlay2.size=1").driver, Some(Kind::Overlay2));
        assert_eq!(option("dm.basesize=1").driver, Some(Kind::Devicemapper));
        for bad in [
            "",
            "size",
            "size=",
            "size=0",
            "size=x",
            "vfs.size=1",
            "colour=1",
        ] {
            assert!(bad.parse::<SizeOption>().is_err(), "{bad}");
        }
        assert!(SizeOption::only("btrfs.size=1").is_err());
        assert_eq!(SizeOption::only("SIZE=1k").unwrap(), Bytes(1024));
    }
}
