//! The kernels in the distribution's suites.

use anyhow::{Result, bail};

use super::apt::{Apt, os_release};
use super::arch::ARCH;

/// Debian's names for its releases by age, oldest first.
const DEBIAN: [&str; 5] = ["oldoldstable", "oldstable", "stable", "testing", "unstable"];

/// A kernel in a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The suite.
    pub suite: String,
    /// Version, such as `6.12`.
    pub version: String,
}

/// The package that depends on a suite's newest kernel for virtual machines.
pub fn package() -> String {
    format!("linux-image-{}", ARCH.flavour)
}

/// The oldest and the newest suite that the distribution names; empty if it
/// names none.
pub fn ends() -> Vec<String> {
    match are_named() {
        true => [DEBIAN[0], DEBIAN[DEBIAN.len() - 1]]
            .map(str::to_owned)
            .to_vec(),
        false => Vec::new(),
    }
}

/// The kernels of these suites, or of all named ones if `suites` is empty: each
/// version once, oldest first.
pub fn kernels(suites: &[String]) -> Result<Vec<Offer>> {
    let suites = match (suites, are_named()) {
        ([], true) => DEBIAN.map(str::to_owned).to_vec(),
        ([], false) => bail!(
            "this distribution has no names for its older and newer suites: name them with --suite"
        ),
        (some, _) => some.to_vec(),
    };
    let mut offers: Vec<Offer> = Vec::new();
    for suite in suites {
        for name in Apt::of_suite(&suite)?.depends(&package())? {
            let Some(release) = name.strip_prefix("linux-image-") else {
                continue;
            };
            let version = short(release);
            if !offers.iter().any(|offer| offer.version == version) {
                offers.push(Offer {
                    suite: suite.clone(),
                    version,
                });
            }
        }
    }
    offers.sort_by_key(|offer| numbers(&offer.version));
    Ok(offers)
}

/// Whether the distribution has fixed names for its suites.
pub fn are_named() -> bool {
    os_release("ID").as_deref() == Some("debian")
}

/// The client of the first suite whose kernel has this version.
pub fn find(version: &str) -> Result<Apt> {
    let offers = kernels(&[])?;
    match offers.iter().find(|offer| offer.version == version) {
        Some(offer) => Apt::of_suite(&offer.suite),
        None => bail!(
            "no suite of this distribution has Linux {version}: there are {}",
            versions(&offers)
        ),
    }
}

/// The versions of the offers, separated by commas.
pub fn versions(offers: &[Offer]) -> String {
    let versions: Vec<&str> = offers.iter().map(|offer| offer.version.as_str()).collect();
    versions.join(", ")
}

/// The parts of a version as numbers, for comparison.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|number| number.parse().unwrap_or(0))
        .collect()
}

/// Shortens a release to its version: `6.1.0-56-cloud-amd64` to `6.1`.
pub(super) fn short(release: &str) -> String {
    release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("5.10") > numbers("5.9"));
        assert!(numbers("6.1") < numbers("6.12"));
        assert!(numbers("6.12") < numbers("7.0"));
    }
}
