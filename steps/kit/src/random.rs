//! Random bytes: getrandom(2).

use anyhow::{Context, Result};
use rustix::rand::{GetRandomFlags, getrandom};

/// Returns `N` random bytes. getrandom(2) returns up to 256 bytes in one call.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty()).context("getrandom")?;
    Ok(bytes)
}

/// Returns `N` random bytes as `2 * N` hexadecimal digits.
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
