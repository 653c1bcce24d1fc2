//! Quantities in Docker's spelling.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

/// A number of bytes: `1048576`, `128m`, `1.5g`, `64KiB`. Units are powers of
/// 1024, in either case, with or without a `b` or `ib` after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = Error;

    /// Reads a number of bytes below 2^63, the limit of a cgroup's files.
    fn from_str(text: &str) -> Result<Self> {
        let what = || format!("{text:?} is not a number of bytes: write 1048576, 128m, 1.5g");
        let number = text
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number);
        let unit = unit.trim_start().to_ascii_lowercase();
        let prefix = unit.strip_suffix('b').unwrap_or(&unit);
        let shift = match prefix.strip_suffix('i').unwrap_or(prefix) {
            "" if prefix.is_empty() => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => bail!(what()),
        };
        let (millionths, scale) = decimal(number).with_context(what)?;
        let bytes = (millionths << shift) / scale;
        match u64::try_from(bytes) {
            Ok(bytes) if bytes <= i64::MAX as u64 => Ok(Bytes(bytes)),
            _ => bail!("{text:?} is more than any machine has"),
        }
    }
}

impl fmt::Display for Bytes {
    /// The largest unit without a fraction: `128m`, not `134217728`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
            if self.0 != 0 && self.0 & ((1 << shift) - 1) == 0 {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Reads a decimal number as a fraction: its digits without the point, and the
/// power of ten by which to divide them.
fn decimal(text: &str) -> Result<(u128, u128)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() + fraction.len() == 0 || text.len() > 19 {
        bail!("{text:?} is not a decimal number");
    }
    let digits = format!("{whole}{fraction}").parse::<u128>()?;
    Ok((digits, 10u128.pow(fraction.len() as u32)))
}

/// A number of CPUs: `2`, `0.5`. Stored in billionths, as Docker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus {
    billionths: u64,
}

impl Cpus {
    /// The period of a quota, in microseconds: the kernel's own default
    /// (sched-bwc.rst).
    pub const PERIOD: u64 = 100_000;

    /// The number in billionths.
    pub fn billionths(self) -> u64 {
        self.billionths
    }

    /// A whole number of CPUs.
    pub fn whole(count: u64) -> Self {
        Cpus {
            billionths: count.saturating_mul(1_000_000_000),
        }
    }

    /// The CPU time per [`Self::PERIOD`], in microseconds.
    pub fn quota(self) -> u64 {
        (u128::from(self.billionths) * u128::from(Self::PERIOD) / 1_000_000_000) as u64
    }
}

impl FromStr for Cpus {
    type Err = Error;

    /// Reads a decimal number with at most nine digits after the point.
    fn from_str(text: &str) -> Result<Self> {
        let what = || format!("{text:?} is not a number of CPUs: write 2 or 0.5");
        let (digits, scale) = decimal(text).with_context(what)?;
        if scale > 1_000_000_000 {
            bail!("{text:?}: more than nine digits behind the point");
        }
        let billionths = u64::try_from(digits * (1_000_000_000 / scale))
            .with_context(|| format!("{text:?} is more than any machine has"))?;
        Ok(Cpus { billionths })
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (
            self.billionths / 1_000_000_000,
            self.billionths % 1_000_000_000,
        );
        match format!("{rest:09}").trim_end_matches('0') {
            "" => write!(f, "{whole}"),
            fraction => write!(f, "{whole}.{fraction}"),
        }
    }
}

/// The limit on memory and swap together: a number of bytes, or `-1` for all
/// the swap of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// `-1`: no limit on swap.
    Unlimited,
    /// Memory and swap together, in bytes.
    Total(Bytes),
}

impl FromStr for Swap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "-1" => Ok(Swap::Unlimited),
            _ => Ok(Swap::Total(text.parse()?)),
        }
    }
}

impl fmt::Display for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Swap::Unlimited => f.write_str("-1"),
            Swap::Total(bytes) => bytes.fmt(f),
        }
    }
}

kit::serde_as_text!(Bytes, Swap, Cpus);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("128m", 128 << 20),
            ("128M", 128 << 20),
            ("128mb", 128 << 20),
            ("128MiB", 128 << 20),
            ("128 mb", 128 << 20),
            ("0.5g", 512 << 20),
            ("1.5k", 1536),
            ("2t", 2 << 40),
        ] {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes), "{text}");
        }
        for text in [
            "", "m", "-1", "1.2.3", "12x", "12ib", "1e3", ".", "99999p", " 1", "0x10",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn bytes_are_shown_in_their_largest_whole_unit() {
        for text in ["0", "1000", "1k", "1536k", "128m", "3g"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn cpus_become_a_quota() {
        for (text, quota) in [
            ("1", 100_000),
            ("0.5", 50_000),
            ("1.25", 125_000),
            (".01", 1000),
        ] {
            assert_eq!(text.parse::<Cpus>().unwrap().quota(), quota, "{text}");
        }
        assert_eq!("0.50".parse::<Cpus>().unwrap().to_string(), "0.5");
        assert!(
            Cpus::whole(2) > "1.999".parse().unwrap() && Cpus::whole(2) == "2.0".parse().unwrap()
        );
        for text in ["", "-1", "half", "1.0000000001", "0.5.1"] {
            assert!(text.parse::<Cpus>().is_err(), "{text:?} was accepted");
        }
    }
}
