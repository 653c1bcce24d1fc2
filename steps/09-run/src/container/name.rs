//! Random names of containers.

use anyhow::Result;

/// First words: qualities of a ship in a dry dock.
const HOW: [&str; 16] = [
    "able", "brave", "brisk", "calm", "eager", "fair", "gentle", "hardy", "jolly", "keen", "merry",
    "proud", "quiet", "steady", "swift", "trim",
];

/// Second words: ships.
const WHAT: [&str; 16] = [
    "barge", "brig", "clipper", "cutter", "dhow", "ferry", "frigate", "galley", "junk", "ketch",
    "lugger", "pinnace", "schooner", "sloop", "trawler", "tug",
];

/// A name for people: `quiet_ketch`, or `quiet_ketch7` for `attempt` 7, since
/// there are only 256 pairs.
pub(super) fn random_name(attempt: u32) -> Result<String> {
    let [how, what] = kit::random::bytes()?.map(|byte| usize::from(byte) % 16);
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
    fn a_name_is_one_of_a_volume_too() {
        for attempt in 0..20 {
            kit::name::check(&random_name(attempt).unwrap()).unwrap();
        }
    }
}
