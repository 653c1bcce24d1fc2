//! Random bytes: getrandom(2).

use anyhow::{Context, Result};
use rustix::rand::{GetRandomFlags, getrandom};

/// So many random bytes. So few come at once.
///
/// # Errors
/// Those of getrandom(2).
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty()).context("getrandom")?;
    Ok(bytes)
}

/// `N` random bytes as twice as many hexadecimal digits.
///
/// # Errors
/// As [`bytes`].
pub fn hex<const N: usize>() -> Result<String> {
    let bytes: [u8; N] = bytes()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_two_digits_a_byte() {
        let id = hex::<32>().unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(id, hex::<32>().unwrap());
    }
}
