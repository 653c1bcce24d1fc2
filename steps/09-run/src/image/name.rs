//! Names of images: `busybox`, `team/app:1.2`. OCI Distribution Specification,
//! “Pulling manifests”, defines their syntax.
//!
//! Docker's own registry is the one of names without a host, and `library` in it
//! the place of names of one part: `busybox`, `docker.io/busybox` and
//! `docker.io/library/busybox` are one name. It is kept as the first, which
//! Docker calls familiar; other tools write the last.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};

/// The longest name with its tag, in bytes: it serves as a file name, too
/// (`NAME_MAX`).
const LONGEST: usize = 255;

/// The registry of names without a host, in both spellings.
const DOCKER: [&str; 2] = ["docker.io/", "index.docker.io/"];
/// The place there of names of one part.
const LIBRARY: &str = "library/";

/// The name of an image with its tag, by default `latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name as a file name: each `/` becomes `%`, which no name contains.
    pub fn file_name(&self) -> String {
        self.0.replace('/', "%")
    }

    /// The name that a file name stands for, if any: as it is written there, for
    /// an earlier version may have kept a name with Docker's host, or with
    /// capitals.
    pub fn of_file_name(file_name: &str) -> Option<Self> {
        let name = file_name.replace('%', "/");
        is_name(&name).then_some(Name(name))
    }

    /// The name with the host and the path that a familiar one omits, as
    /// containerd wants it: `docker.io/library/busybox:latest`.
    pub fn full(&self) -> String {
        let name = &self.0;
        match name.split_once('/') {
            None => format!("{}{LIBRARY}{name}", DOCKER[0]),
            Some((first, _)) if is_like_a_host(first) => name.clone(),
            Some(_) => format!("{}{name}", DOCKER[0]),
        }
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
        let (path, tag) = path_and_tag(text);
        let name = format!("{}:{}", familiar(path), tag.unwrap_or("latest"));
        if !is_name(&name) {
            bail!(
                "{text:?} is not a name for an image: use letters, digits, . _ - and / between \
                 parts, then perhaps : and a tag; at most {LONGEST} bytes"
            );
        }
        let (path, _) = path_and_tag(&name);
        let repository = match path.split_once('/') {
            Some((first, repository)) if is_like_a_host(first) => repository,
            _ => path,
        };
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            bail!("invalid reference format: repository name must be lowercase");
        }
        Ok(Name(name))
    }
}

/// A path without the parts that say only what is meant without them.
pub fn familiar(path: &str) -> &str {
    let Some(path) = DOCKER.iter().find_map(|host| path.strip_prefix(host)) else {
        return path;
    };
    let one = path.strip_prefix(LIBRARY);
    one.filter(|one| !one.contains('/')).unwrap_or(path)
}

/// Whether the first part of a name is a host, by distribution's grammar.
fn is_like_a_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// A colon before the last slash belongs to a port.
fn path_and_tag(text: &str) -> (&str, Option<&str>) {
    match text.rfind(':').filter(|at| !text[*at..].contains('/')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Whether `name` is a path with a tag, and nothing that leads out of a
/// directory.
fn is_name(name: &str) -> bool {
    let (path, Some(tag)) = path_and_tag(name) else {
        return false;
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
    is_place && rest.split('/').all(part) && is_tag && name.len() <= LONGEST
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
            assert_eq!(Name::of_file_name(bad), None, "{bad:?}");
        }
        // The longest file name, and one byte more.
        let longest = format!("{}:1", "x".repeat(253));
        assert_eq!(name(&longest).file_name().len(), 255);
        assert!(format!("x{longest}").parse::<Name>().is_err());
    }

    #[test]
    fn what_docker_takes_for_one_name_is_one() {
        for one in [
            "x",
            "docker.io/x",
            "docker.io/library/x",
            "index.docker.io/library/x",
        ] {
            assert_eq!(name(one).as_str(), "x:latest", "{one}");
            assert_eq!(name(one).full(), "docker.io/library/x:latest");
        }
        let team = name("docker.io/team/app:1");
        assert_eq!(team.as_str(), "team/app:1");
        assert_eq!(team.full(), "docker.io/team/app:1");
        // The place of names of one part is none of other registries.
        for whole in ["h.org/library/x:1", "localhost/x:1", "docker.io:443/x:1"] {
            assert_eq!(name(whole).as_str(), whole);
            assert_eq!(name(whole).full(), whole);
        }
        assert_eq!(name("docker.io/library/a/b:1").as_str(), "library/a/b:1");
        assert_eq!(
            name("docker.io/library/a/b:1").full(),
            "docker.io/library/a/b:1"
        );
        assert!(
            "docker.io/".parse::<Name>().is_err() && "docker.io/library/".parse::<Name>().is_err()
        );
        // A name from before that was kept so.
        let old = Name::of_file_name("docker.io%library%x:1").unwrap();
        assert_eq!(old.file_name(), "docker.io%library%x:1");
        assert!(old.ends_with(&name("docker.io/library/x:1")));
    }

    #[test]
    fn capitals_are_for_hosts_and_tags() {
        for bad in ["BAD", "team/App", "Team/app", "h.org/App"] {
            let error = bad.parse::<Name>().unwrap_err().to_string();
            assert!(
                error.ends_with("repository name must be lowercase"),
                "{error}"
            );
        }
        assert_eq!(name("H.org:5000/a:RC").as_str(), "H.org:5000/a:RC");
        assert_eq!(Name::of_file_name("App:1").unwrap().as_str(), "App:1");
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
