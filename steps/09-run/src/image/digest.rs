//! Digests: what content is called, so that anybody can check that it is what
//! was meant. OCI Image Specification, descriptor.md “Digests” and config.md
//! “Layer ChainID”.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use union::LayerId;

/// What the ids of layers that came with images begin with.
const LAYER: &str = "sha256-";

/// A SHA-256 digest. Written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finished(Sha256::new_with_prefix(bytes))
    }

    /// The digest of what a hash has been fed with.
    pub fn finished(hash: Sha256) -> Self {
        let bytes = hash.finalize();
        Digest(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digest of these 64 digits.
    ///
    /// # Errors
    /// If they are not.
    pub fn from_hex(hex: &str) -> Result<Self> {
        let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if hex.len() != 64 || !hex.chars().all(digit) {
            bail!("{hex:?} is no SHA-256 digest: 64 digits, 0 to 9 and a to f");
        }
        Ok(Digest(hex.to_owned()))
    }

    /// The 64 digits: a file name.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// As the id of a layer: `sha256-` and the digits. The digits alone are what
    /// containers are called.
    ///
    /// # Errors
    /// None: this is an id.
    pub fn layer_id(&self) -> Result<LayerId> {
        format!("{LAYER}{}", self.0).parse()
    }

    /// The digest that the layer `id` is named by, if it is named by one.
    pub fn of_layer_id(id: &LayerId) -> Option<Self> {
        Self::from_hex(id.as_str().strip_prefix(LAYER)?).ok()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Self::from_hex(hex),
            Some((other, _)) => bail!("{text:?}: digests by {other} are not known here"),
            None => bail!("{text:?} is no digest: it would begin with sha256:"),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// The chain ids of a stack of layers, the lowest first: each names a layer
/// together with all that is below it, which is what makes it safe to share. Of
/// two equal changes on different layers one whiteout may mean different things.
pub fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_and_64_digits() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
        for bad in [
            "sha512:00",
            "e3b0",
            "sha256:E3B0",
            "sha256:../../../etc/passwd",
            "sha256:",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_chain_id_depends_on_all_that_is_below() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let one = chain(&[a.clone(), b.clone()]);
        assert_eq!(one[0], a);
        assert_eq!(one[1], Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(one[1], chain(&[b, a])[1]);
    }
}
