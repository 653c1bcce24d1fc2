//! References: what people write for an image, and where it leads.
//!
//! `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, as Docker reads it (distribution's
//! reference grammar). What comes before the first `/` is a host only if it looks
//! like one: it has a `.` or a `:`, or is `localhost`. So `team/app` is a path
//! in a registry that the reference does not name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use engine::image::digest::Digest;
use engine::image::name::Name;

/// The longest host and path, in bytes, as Docker counts.
const LONGEST: usize = 255;
/// The longest tag, in bytes.
const LONGEST_TAG: usize = 128;

/// A reference as somebody has written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry, `HOST[:PORT]`, if it is named.
    pub host: Option<String>,
    /// The path of the repository.
    pub path: String,
    /// The tag, if one is given.
    pub tag: Option<String>,
    /// The digest of a manifest or an index, if one is given.
    pub digest: Option<Digest>,
}

/// A repository in a certain registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// The registry, `HOST[:PORT]`.
    pub host: String,
    /// The path in the registry.
    pub path: String,
}

/// An image in a certain registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it is.
    pub repository: Repository,
    /// Its tag: the one given, else `latest` if there is no digest.
    pub tag: Option<String>,
    /// Its digest, if one is given. It goes before the tag.
    pub digest: Option<Digest>,
}

// ANCHOR: parse
impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // ANCHOR: exercise_parse
        let invalid = || format!("invalid reference format: {text:.300?}");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().with_context(invalid)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rfind(':').filter(|at| !rest[*at..].contains('/')) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((first, path)) if is_like_a_host(first) => (Some(first), path),
            _ => (None, name),
        };
        ensure!(name.len() <= LONGEST, "{}: it is too long", invalid());
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            bail!("{}: repository name must be lowercase", invalid());
        }
        ensure!(path.split('/').all(is_part), "{}", invalid());
        ensure!(host.is_none_or(is_host), "{}: the host", invalid());
        ensure!(tag.is_none_or(is_tag), "{}: the tag", invalid());
        if host.is_none() && Digest::from_hex(path).is_ok() {
            bail!("{}: 64 hexadecimal digits are an ID", invalid());
        }
        Ok(Reference {
            host: host.map(str::to_owned),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
        // ANCHOR_END: exercise_parse
    }
}

/// Whether the first part of a reference names a host.
fn is_like_a_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.starts_with('[')
}
// ANCHOR_END: parse

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        // An address of IPv6 has colons of its own.
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (
                None,
                port.strip_prefix(':').or(port.is_empty().then_some("0")),
            ),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), Some("0")),
        },
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_some_and(|port| digits(port) && port.parse::<u16>().is_ok())
}

/// Whether a part of a path is letters and digits with single separators: `.`,
/// `_`, `__` or any number of `-`.
fn is_part(part: &str) -> bool {
    let is_word = |c: char| matches!(c, 'a'..='z' | '0'..='9');
    let mut rest = part;
    loop {
        let word = rest.trim_start_matches(is_word);
        if word.len() == rest.len() {
            return false;
        }
        let after = word.trim_start_matches(|c| !is_word(c));
        let between = &word[..word.len() - after.len()];
        match between {
            "" => return after.is_empty(),
            "." | "_" | "__" => {}
            dashes if dashes.bytes().all(|byte| byte == b'-') => {}
            _ => return false,
        }
        rest = after;
    }
}

fn is_tag(tag: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_TAG).contains(&tag.len()) && tag.bytes().all(inner) && !tag.starts_with(['.', '-'])
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        f.write_str(&self.path)?;
        write_end(f, self.tag.as_deref(), self.digest.as_ref())
    }
}

fn write_end(
    f: &mut fmt::Formatter<'_>,
    tag: Option<&str>,
    digest: Option<&Digest>,
) -> fmt::Result {
    if let Some(tag) = tag {
        write!(f, ":{tag}")?;
    }
    digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        write_end(f, self.tag.as_deref(), self.digest.as_ref())
    }
}

impl Remote {
    /// The tag or digest by which the registry is asked.
    pub fn asked(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The name that the image gets here; none if it was asked for by its
    /// digest.
    ///
    /// # Errors
    /// If the name is too long for the store.
    pub fn name(&self) -> Result<Option<Name>> {
        match (&self.digest, &self.tag) {
            (None, Some(tag)) => format!("{}:{tag}", self.repository).parse().map(Some),
            _ => Ok(None),
        }
    }
}

/// Whether a registry is on this machine, so that nobody else sees what is said
/// without encryption: `localhost`, 127.0.0.0/8 or `[::1]`.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_what_looks_like_one() {
        let reference = parsed("localhost:5000/team/app:1.2");
        assert_eq!(reference.host.as_deref(), Some("localhost:5000"));
        assert_eq!(reference.path, "team/app");
        assert_eq!(reference.tag.as_deref(), Some("1.2"));
        assert_eq!(parsed("team/app").host, None);
        assert_eq!(parsed("localhost/app").host.as_deref(), Some("localhost"));
        assert_eq!(parsed("a.b/app").host.as_deref(), Some("a.b"));
        assert_eq!(parsed("[::1]:5000/a").host.as_deref(), Some("[::1]:5000"));
        assert_eq!(parsed("app:5000").tag.as_deref(), Some("5000"));
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let hex = "0".repeat(64);
        for bad in [
            "",
            ":",
            "a:",
            "A",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "a b",
            "a\n",
            "a:\n",
            "a:.x",
            "h.org:x/a",
            "h.org:99999/a",
            "h_.org/a",
            "-h.org/a",
            "a@sha256:00",
            "a@md5:00",
            "[::1/a",
            "[x]:1/a",
            "../a",
            "a/../b",
            "a%2f",
            "a?b",
            "a#b",
            &hex,
            "h.org:+1/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        for good in ["a__b", "a--b", "x/a.b-c_d/e", "a:A_.-", "0", "h-1.org:1/a"] {
            assert!(good.parse::<Reference>().is_ok(), "{good:?}");
        }
        assert!(
            format!("a:{}", "x".repeat(129))
                .parse::<Reference>()
                .is_err()
        );
        assert!("x".repeat(256).parse::<Reference>().is_err());
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for here in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for there in [
            "localhost.org",
            "10.0.0.1",
            "127.0.0.1.org",
            "[::2]:1",
            "1.2.3.4:127",
        ] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
