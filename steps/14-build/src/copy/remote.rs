//! `ADD https://…`: a file from a server that nobody vouches for, but for the
//! `--checksum`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use engine::image::digest::Checksum;
use kit::say;
use kit::say::printable;
use registry::http::agent::agent;
use registry::http::pace::Paced;
use registry::http::url::{Scheme, Url};

use crate::copy::Source;
use crate::copy::stage::Room;

/// How long a silent server is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most redirects, as of Go's client.
const REDIRECTS: usize = 10;

/// Whether a source of `ADD` is an address.
pub fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Whether a source of `ADD` is a repository, which BuildKit would clone.
pub fn is_repository(source: &str) -> bool {
    let address = source.split(['#', '?']).next().unwrap_or_default();
    ["git://", "git@", "ssh://", "github.com/"]
        .iter()
        .any(|begin| source.starts_with(begin))
        || is_address(source) && address.ends_with(".git")
}

/// Downloads the file at `address` into `directory`, compares it with the
/// `--checksum`, and returns it as a [`Source::Download`].
pub fn fetch(address: &str, checksum: Option<&str>, directory: &Path) -> Result<Source> {
    let shown = printable(address);
    ensure!(
        !is_repository(address),
        "{shown} is a git repository: that is not supported, clone it into the context"
    );
    let checksum = checksum.map(str::parse::<Checksum>).transpose();
    let checksum = checksum.context("--checksum")?;
    let mut url = Url::parse(address).with_context(|| shown.clone())?;
    let mut redirects = 0;
    let response = loop {
        let agent = agent(&url.host, url.scheme, false, PATIENCE)?;
        let response = agent.get(url.whole()).call();
        let response = response.map_err(|error| anyhow!("{}", printable(&error.to_string())));
        let response = response.with_context(|| format!("{url}"))?;
        let status = response.status();
        if status.is_success() {
            break response;
        }
        let location = response.headers().get("location");
        let location = location.and_then(|location| location.to_str().ok());
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            bail!("{url}: invalid response status {}", status.as_u16());
        };
        redirects += 1;
        ensure!(redirects <= REDIRECTS, "{url}: too many redirects");
        let next = url
            .join(location)
            .with_context(|| format!("{url}: a redirect"))?;
        ensure!(
            url.scheme == Scheme::Http || next.scheme == Scheme::Https,
            "{url} leads to {next}, without encryption: refused"
        );
        say!("{url}: on to {next}");
        url = next;
    };
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let modified = header("last-modified")
        .and_then(|text| httpdate::parse_http_date(&text).ok())
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map(|since| since.as_secs() as i64);
    let name = header("content-disposition")
        .and_then(|text| disposition(&text))
        .unwrap_or_else(|| name_in(address));
    let file = directory.join(format!("download.{}", kit::random::hex::<8>()?));
    let to = File::create_new(&file).with_context(|| format!("open {file:?}"))?;
    let mut body = Paced::new(response.into_body().into_reader(), PATIENCE);
    keep(&mut body, &to, checksum.as_ref(), directory).with_context(|| shown.clone())?;
    Ok(Source::Download {
        file,
        name,
        address: address.to_owned(),
        modified,
    })
}

/// Writes what the server sends, up to its end or that of the disk.
fn keep(
    body: &mut impl Read,
    mut to: &File,
    checksum: Option<&Checksum>,
    directory: &Path,
) -> Result<()> {
    let mut hash = checksum.map(Checksum::hash);
    let mut room = Room::of(File::open(directory).context("open")?)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = body.read(&mut buffer).context("read")?;
        if length == 0 {
            break;
        }
        room.take(length as u64)?;
        to.write_all(&buffer[..length]).context("write")?;
        if let Some(hash) = &mut hash {
            hash.update(&buffer[..length]);
        }
    }
    match (checksum, hash) {
        (Some(checksum), Some(hash)) => checksum.compare(hash).context("digest mismatch"),
        _ => Ok(()),
    }
}

/// The name at the end of an address; empty if it has none.
fn name_in(address: &str) -> String {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = match path.split_once('/') {
        Some((_, path)) => path.rsplit('/').next().unwrap_or_default(),
        None => "",
    };
    plain(&unescaped(name)).unwrap_or_default()
}

/// The name that a server suggests (RFC 6266, without its extended form).
fn disposition(text: &str) -> Option<String> {
    let (_, name) = text.split_once("filename=")?;
    let name = match name.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => name.split(';').next(),
    };
    plain(name?.trim())
}

/// A name that is one: of a path the last part.
fn plain(name: &str) -> Option<String> {
    let name = name.rsplit('/').next()?;
    let is_name = !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
    is_name.then(|| name.to_owned())
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut left = text.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                left = &rest[2..];
            }
            _ => {
                bytes.push(*first);
                left = rest;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for (address, name) in [
            ("http://h/a/b.tgz?x=/y#z", "b.tgz"),
            ("http://h/a/", ""),
            ("http://h", ""),
            ("http://h/..", ""),
            ("http://h/%2e%2e", ""),
            ("http://h/a%2fb", "b"),
            ("http://h/..%2f..%2fetc%2fpasswd", "passwd"),
            ("http://h/a%0ab", ""),
            ("http://h/a%2", "a%2"),
        ] {
            assert_eq!(name_in(address), name, "{address}");
        }
        let suggested = |text: &str| disposition(text).unwrap_or_default();
        assert_eq!(suggested("attachment; filename=\"a b\"; x=y"), "a b");
        assert_eq!(suggested("attachment; filename=a;x=y"), "a");
        assert_eq!(suggested("attachment; filename=\"../../x\""), "x");
        assert_eq!(suggested("attachment; filename=\"..\""), "");
        assert_eq!(suggested("inline"), "");
    }

    #[test]
    fn repositories_are_told_from_files() {
        for repository in [
            "git@h:a/b",
            "https://h/a.git#v1",
            "git://h/a",
            "github.com/a/b",
        ] {
            assert!(is_repository(repository), "{repository}");
        }
        for file in ["https://h/a.tar.gz", "http://h/a.git/x", "a.git"] {
            assert!(!is_repository(file), "{file}");
        }
    }
}
