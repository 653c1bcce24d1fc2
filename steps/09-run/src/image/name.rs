//! Names of images: `busybox`, `team/app:1.2`. OCI Distribution Specification,
//! “Pulling manifests”, defines their syntax.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};

/// The longest name with its tag, in bytes: it serves as a file name, too.
const LONGEST: usize = 200;

/// The name of an image with its tag, by default `latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name as a file name: each `/` becomes `%`, which no name contains.
    pub fn file_name(&self) -> String {
        self.0.replace('/', "%")
    }

    /// The name that a file name stands for, if any.
    pub fn of_file_name(file_name: &str) -> Option<Self> {
        file_name.replace('%', "/").parse().ok()
    }

    /// Whether `short` means this name without the host, and perhaps more, in
    /// front: `app:1` and `team/app:1` mean `host/team/app:1`.
    pub fn ends_with(&self, short: &Name) -> bool {
        self.0
            .strip_suffix(&short.0)
            .is_some_and(|before| before.ends_with('/'))
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // A colon before the last slash belongs to a port.
        let tag_at = text.rfind(':').filter(|at| !text[*at..].contains('/'));
        let (path, tag) = match tag_at {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, "latest"),
        };
        let part = |part: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let outer = |c: char| c.is_ascii_alphanumeric();
            part.starts_with(outer) && part.ends_with(outer) && part.chars().all(inner)
        };
        let in_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_tag = !tag.is_empty() && !tag.starts_with(['.', '-']) && tag.chars().all(in_tag);
        // Only a host in front of a path may have a port.
        let (place, rest) = match path.split_once('/') {
            Some((place, rest)) => (Some(place), rest),
            None => (None, path),
        };
        let is_place = place.is_none_or(|place| match place.split_once(':') {
            Some((host, port)) => part(host) && port.parse::<u16>().is_ok(),
            None => part(place),
        });
        let name = format!("{path}:{tag}");
        if !is_place || !rest.split('/').all(part) || !is_tag || name.len() > LONGEST {
            bail!(
                "{text:?} is not a name for an image: use letters, digits, . _ - and / between \
                 parts, then perhaps : and a tag; at most {LONGEST} bytes"
            );
        }
        Ok(Name(name))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_tag_it_is_the_latest() {
        assert_eq!(name("busybox").as_str(), "busybox:latest");
        assert_eq!(name("host:5000/a/b").as_str(), "host:5000/a/b:latest");
        assert_eq!(name("host:5000/a/b:1.2").as_str(), "host:5000/a/b:1.2");
    }

    #[test]
    fn a_path_is_no_name_and_no_name_leaves_the_directory() {
        for bad in [
            "", "/a", "./a", "../a", "a/../b", "a//b", "a b", "a%b", "a:", "a:.", "a:-", "-a",
            "a\n", "a/b:1/c", "a:b:c", "a:b/c", "1:2:3",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(300).parse::<Name>().is_err());
    }

    #[test]
    fn a_file_name_stands_for_one_name() {
        let long = name("host:5000/team/app:1");
        assert_eq!(Name::of_file_name(&long.file_name()), Some(long.clone()));
        assert!(!long.file_name().contains('/'));
        assert!(long.ends_with(&name("app:1")) && long.ends_with(&name("team/app:1")));
        assert!(!long.ends_with(&name("p:1")) && !long.ends_with(&name("app")));
    }
}
