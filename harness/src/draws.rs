//! What the checks draw by lot: names and numbers that no solution can know,
//! and that are the same again with the same seed.

/// How many letters of a name are drawn.
pub const WORD: usize = 8;

/// A sequence of numbers that a seed determines: splitmix64.
#[derive(Clone, Debug)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Draws { state: seed }
    }

    /// The next one, as a number below `bound`.
    pub fn number(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// The next ones, as letters.
    pub fn letters(&mut self, count: usize) -> String {
        (0..count)
            .map(|_| char::from(b'a' + self.number(26) as u8))
            .collect()
    }
}
