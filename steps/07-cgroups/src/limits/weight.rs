//! Weights, which v1 and v2 measure on different scales.

/// `cpu.weight` of v2 (1 to 10000, default 100) for `cpu.shares` of v1 (2 to
/// 262144, default 1024).
///
/// The curve passes through both ends and the default: 2 is 1, 1024 is 100,
/// 262144 is 10000. Between them the exponent grows with the square of the
/// logarithm. runc since 1.3.2 and crun since 1.23 use it. The older formula,
/// `1 + (shares - 2) * 9999 / 262142`, is a straight line through the two ends
/// alone: it made 39 of the default 1024, so that a container with the default
/// shares had less than half the weight of a process outside any container.
pub(crate) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// `io.weight` of v2 (1 to 10000) for `blkio.weight` of v1 (10 to 1000): the
/// straight line through both ends, as in other runtimes. It does not apply to
/// `io.bfq.weight`, which has v1's range.
pub(crate) fn io_weight(weight: u64) -> u64 {
    1 + (weight - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_their_ends_and_their_default() {
        for (shares, weight) in [
            (2, 1),
            (3, 2),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn weights_of_io_keep_their_ends() {
        assert_eq!(
            [io_weight(10), io_weight(500), io_weight(1000)],
            [1, 4950, 10_000]
        );
    }
}
