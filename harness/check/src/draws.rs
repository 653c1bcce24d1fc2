//! Random names and numbers for the checks. No solution can know them, and the
//! same seed gives the same ones.
//!
//! Not fastrand's: a seed that a report shows must give the same draws after an
//! update of the crate, and each draw must take one step of the sequence. Drawn
//! names are found again in messages by the letters that a seed gives, whatever
//! numbers were drawn between them.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_draws_as_ever() {
        let mut draws = Draws::new(7);
        assert_eq!(draws.letters(WORD), "lwwvkteu");
        assert_eq!(draws.number(1_000_000), 77_985);
    }

    #[test]
    fn a_draw_is_one_step_whatever_is_drawn() {
        let all = Draws::new(7).letters(12);
        let mut draws = Draws::new(7);
        assert_eq!(draws.letters(3), all[..3]);
        draws.number(u64::MAX);
        draws.number(1);
        assert_eq!(draws.letters(7), all[5..]);
    }
}
