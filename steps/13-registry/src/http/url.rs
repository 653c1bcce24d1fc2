//! URLs, as far as a registry needs them: made of parts, joined with a
//! `Location`, compared by origin, and shown without secrets.

use std::fmt;

use anyhow::{Result, bail, ensure};

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without encryption.
    Http,
    /// By TLS.
    Https,
}

/// A URL of HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// How the server is spoken to.
    pub scheme: Scheme,
    /// The server, `HOST[:PORT]`.
    pub host: String,
    /// The path with its query. Begins with `/`.
    path: String,
}

impl Url {
    /// The URL of `path`, which begins with `/`, at a server.
    pub fn new(scheme: Scheme, host: &str, path: &str) -> Self {
        Url {
            scheme,
            host: host.to_owned(),
            path: path.to_owned(),
        }
    }

    /// Parses a URL of HTTP.
    ///
    /// # Errors
    /// If it is none, or holds a user's name or control characters.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => bail!("it leads to something else than HTTP"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        ensure!(
            !host.is_empty() && !host.contains('@'),
            "it names no plain host"
        );
        let path = path.split('#').next().unwrap_or_default();
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            is_plain(host) && is_plain(&path),
            "it holds blanks or control characters"
        );
        Ok(Url {
            scheme,
            host: host.to_ascii_lowercase(),
            path,
        })
    }

    /// Where a `Location` leads from here (RFC 3986, section 5.2, without dot
    /// segments). Its query is kept: it may hold the state of an upload.
    // ANCHOR: join
    pub fn join(&self, location: &str) -> Result<Self> {
        let location = location.trim();
        if location.starts_with("//") {
            return Url::parse(&format!("{}:{location}", self.scheme));
        }
        let before_query = location.split('?').next().unwrap_or_default();
        if before_query.contains("://") {
            return Url::parse(location);
        }
        let base = self.path.split('?').next().unwrap_or_default();
        let directory = &base[..=base.rfind('/').unwrap_or_default()];
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{base}{location}"),
            _ => format!("{directory}{location}"),
        };
        Url::parse(&format!("{}://{}{path}", self.scheme, self.host))
    }
    // ANCHOR_END: join

    /// The URL with another parameter in its query. The value is escaped.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.path
            .push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        self.path.push_str(&escaped(value));
        self
    }

    /// Whether both lead to the same server, spoken to in the same way.
    pub fn is_same_origin(&self, other: &Url) -> bool {
        (self.scheme, self.authority()) == (other.scheme, other.authority())
    }

    /// The host with its port, also the usual one.
    fn authority(&self) -> String {
        let has_port = self
            .host
            .rsplit(']')
            .next()
            .is_some_and(|end| end.contains(':'));
        match (has_port, self.scheme) {
            (true, _) => self.host.clone(),
            (false, Scheme::Http) => format!("{}:80", self.host),
            (false, Scheme::Https) => format!("{}:443", self.host),
        }
    }

    /// The whole URL. It may hold secrets: show `self` instead.
    pub fn whole(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.path)
    }
}

/// A value for a query or a form (RFC 3986, section 2.3).
pub fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// Shows the URL without its query: a storage's holds a signature.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path:.300}", self.scheme, self.host)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(location: &str) -> String {
        let base = Url::parse("http://localhost:5000/v2/a/blobs/uploads/?x=1").unwrap();
        base.join(location).unwrap().whole()
    }

    #[test]
    fn a_location_may_be_relative_and_keeps_its_query() {
        let at = "http://localhost:5000";
        assert_eq!(
            joined("/v2/a/u?_state=b%3D"),
            format!("{at}/v2/a/u?_state=b%3D")
        );
        assert_eq!(
            joined("u?s=http://x"),
            format!("{at}/v2/a/blobs/uploads/u?s=http://x")
        );
        assert_eq!(joined("?s=1"), format!("{at}/v2/a/blobs/uploads/?s=1"));
        assert_eq!(joined("//h.org/u"), "http://h.org/u");
        assert_eq!(joined("https://h.org?x"), "https://h.org/?x");
        let url = Url::parse(&joined("/u?s=1"))
            .unwrap()
            .with("digest", "sha256:00");
        assert_eq!(url.whole(), format!("{at}/u?s=1&digest=sha256%3A00"));
        assert_eq!(url.to_string(), format!("{at}/u"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "file:///etc/passwd",
            "ftp://h/",
            "http://",
            "http://u:p@h/",
            "http://h/\r\nX: y",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_origin_has_a_scheme_a_host_and_a_port() {
        let same = |one: &str, other: &str| {
            Url::parse(one)
                .unwrap()
                .is_same_origin(&Url::parse(other).unwrap())
        };
        assert!(same("https://h.org/a", "https://H.org:443/b"));
        assert!(!same("https://h.org/", "http://h.org/"));
        assert!(!same("https://h.org/", "https://h.org:444/"));
        assert!(!same("https://h.org/", "https://h.org.evil.org/"));
    }
}
