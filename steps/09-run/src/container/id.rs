//! Ids and names of containers, drawn at random: getrandom(2).

use anyhow::{Context, Result};
use rustix::rand::{GetRandomFlags, getrandom};

/// How a ship in a dry dock may be.
const HOW: [&str; 16] = [
    "able", "brave", "brisk", "calm", "eager", "fair", "gentle", "hardy", "jolly", "keen", "merry",
    "proud", "quiet", "steady", "swift", "trim",
];

/// What lies in a dry dock, or passes it.
const WHAT: [&str; 16] = [
    "barge", "brig", "clipper", "cutter", "dhow", "ferry", "frigate", "galley", "junk", "ketch",
    "lugger", "pinnace", "schooner", "sloop", "trawler", "tug",
];

/// So many random bytes, as twice as many hexadecimal digits.
///
/// # Errors
/// Those of getrandom(2).
pub fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom(&mut random, GetRandomFlags::empty()).context("getrandom")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A name for people: `quiet_ketch`, or `quiet_ketch7` for `attempt` 7, because
/// there are only so many.
///
/// # Errors
/// Those of getrandom(2).
pub fn random_name(attempt: u32) -> Result<String> {
    let mut random = [0; 2];
    getrandom(&mut random, GetRandomFlags::empty()).context("getrandom")?;
    let [how, what] = random.map(|byte: u8| usize::from(byte) % 16);
    let name = format!("{}_{}", HOW[how], WHAT[what]);
    Ok(match attempt {
        0 => name,
        n => format!("{name}{n}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_two_digits_a_byte() {
        let id = random_hex(32).unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(id, random_hex(32).unwrap());
    }

    #[test]
    fn a_name_is_one_of_a_volume_too() {
        for attempt in 0..20 {
            crate::volume::check_name(&random_name(attempt).unwrap()).unwrap();
        }
    }
}
