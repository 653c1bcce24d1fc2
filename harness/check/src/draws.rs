//! Random names and numbers for the checks. No solution can know them, and the
//! same seed gives the same ones.

/// Number of letters in a drawn name.
pub const WORD: usize = 8;

/// A sequence of numbers determined by a seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// Starts the sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Draws { state: seed }
    }

    /// Draws the next number, below `bound`.
    pub fn number(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Draws `count` letters, `a` to `z`.
    pub fn letters(&mut self, count: usize) -> String {
        (0..count)
            .map(|_| char::from(b'a' + self.number(26) as u8))
            .collect()
    }
}
