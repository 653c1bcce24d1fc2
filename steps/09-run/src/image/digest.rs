//! Digests: names of content by which anybody can verify it. OCI Image
//! Specification, descriptor.md “Digests” and config.md “Layer ChainID”.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use union::LayerId;

/// The prefix of the ids of layers that come from images.
const LAYER: &str = "sha256-";

/// A SHA-256 digest, written as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finished(Sha256::new_with_prefix(bytes))
    }

    /// The digest of the data that `hash` has been fed.
    pub fn finished(hash: Sha256) -> Self {
        let bytes = hash.finalize();
        Digest(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// A digest from its hexadecimal digits.
    ///
    /// # Errors
    /// If these are not 64 digits, 0 to 9 and a to f.
    pub fn from_hex(hex: &str) -> Result<Self> {
        let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if hex.len() != 64 || !hex.chars().all(digit) {
            bail!("{hex:?} is not a SHA-256 digest: it has 64 digits, 0 to 9 and a to f");
        }
        Ok(Digest(hex.to_owned()))
    }

    /// The 64 digits, which also serve as a file name.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// The id of the layer with this digest: `sha256-` and the digits. The
    /// digits alone are ids of containers.
    pub fn layer_id(&self) -> Result<LayerId> {
        format!("{LAYER}{}", self.0).parse()
    }

    /// The digest in the id of a layer, if the layer comes from an image.
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
            Some((other, _)) => bail!("{text:?}: digests by {other} are not supported"),
            None => bail!("{text:?} is not a digest: a digest begins with sha256:"),
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

/// The hash that a blob must have, by any algorithm that the specification
/// registers. Images and layers have [`Digest`]s only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha384 => 96,
            Algorithm::Sha512 => 128,
        }
    }
}

impl Checksum {
    /// The path of the blob in an image layout.
    pub fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }

    /// An empty hash of the same algorithm, to be fed the data.
    pub fn hash(&self) -> Hash {
        match self.algorithm {
            Algorithm::Sha256 => Hash::Sha256(Sha256::new()),
            Algorithm::Sha384 => Hash::Sha384(Sha384::new()),
            Algorithm::Sha512 => Hash::Sha512(Sha512::new()),
        }
    }

    /// Checks that `bytes` have this checksum.
    ///
    /// # Errors
    /// Names both checksums if they differ.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        let mut hash = self.hash();
        hash.update(bytes);
        self.compare(hash)
    }

    /// Checks that the data that `hash` has been fed has this checksum.
    ///
    /// # Errors
    /// Names both checksums if they differ.
    pub fn compare(&self, hash: Hash) -> Result<()> {
        let hex = hash.hex();
        if hex != self.hex {
            let name = self.algorithm.name();
            bail!("its digest is {name}:{hex}, not {self}");
        }
        Ok(())
    }
}

impl From<Digest> for Checksum {
    fn from(digest: Digest) -> Self {
        Checksum {
            algorithm: Algorithm::Sha256,
            hex: digest.0,
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Checksum {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, hex) = text.split_once(':').unwrap_or(("", text));
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|one| one.name() == name) else {
            bail!("{text:.80?}: its algorithm is none of sha256, sha384 and sha512");
        };
        let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if hex.len() != algorithm.digits() || !hex.chars().all(digit) {
            bail!(
                "{text:.80?} is not a digest: {name} has {} digits",
                algorithm.digits()
            );
        }
        Ok(Checksum {
            algorithm,
            hex: hex.to_owned(),
        })
    }
}

/// A hash that is being computed.
#[derive(Clone, Debug)]
pub enum Hash {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hash {
    /// Feeds data to the hash.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha384(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
    }

    fn hex(self) -> String {
        let bytes = match self {
            Hash::Sha256(hash) => hash.finalize().to_vec(),
            Hash::Sha384(hash) => hash.finalize().to_vec(),
            Hash::Sha512(hash) => hash.finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The chain ids of a stack of layers, the lowest first. Each names a layer
/// together with all layers below it, which makes it safe to share: the same
/// changes may mean different things on different layers, as a whiteout does.
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
    fn a_checksum_may_be_by_another_algorithm() {
        let sha512 = format!(
            "sha512:{}{}",
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce",
            "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
        );
        let checksum: Checksum = sha512.parse().unwrap();
        assert_eq!(checksum.to_string(), sha512);
        checksum.check(b"").unwrap();
        assert!(checksum.check(b"x").is_err());
        Checksum::from(Digest::of(b"x")).check(b"x").unwrap();
        for bad in ["md5:00", "sha512:00", "", "sha512", "sha256:../../x"] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad}");
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
