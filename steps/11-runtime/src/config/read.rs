//! Reading documents: with limits, and with an error that says where.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use kit::warn;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use process::inside::is_regular;
use serde::de::DeserializeOwned;

use crate::config::null::NullIsMissing;

/// The largest document in bytes: Kubernetes allows environments of a megabyte.
const LARGEST: u64 = 16 << 20;

/// The configuration's file in a bundle.
pub(crate) const CONFIG: &str = "config.json";

/// Reads a document from a file. A FIFO or a device is refused, since reading it
/// may never end.
pub(crate) fn document<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty()).with_context(|| format!("open {path:?}"))?;
    ensure!(
        is_regular(&file)?,
        "{path:?} is not a regular file: it is not read"
    );
    from(File::from(file), &path.display().to_string())
}

/// Reads a document from a file or a pipe, such as that of a shell's `<(…)`. A pipe
/// that nobody writes to is at its end.
pub(crate) fn document_or_pipe<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty()).with_context(|| format!("open {path:?}"))?;
    let kind = fstat(&file).context("fstat")?.st_mode & SFlag::S_IFMT.bits();
    ensure!(
        kind == SFlag::S_IFREG.bits() || kind == SFlag::S_IFIFO.bits(),
        "{path:?} is neither a regular file nor a pipe: it is not read"
    );
    // The writer may be slow.
    let flags = fcntl(&file, FcntlArg::F_GETFL).context("fcntl(F_GETFL)")?;
    let flags = OFlag::from_bits_retain(flags).difference(OFlag::O_NONBLOCK);
    fcntl(&file, FcntlArg::F_SETFL(flags)).context("fcntl(F_SETFL)")?;
    from(File::from(file), &path.display().to_string())
}

/// Reads a document from a stream, called `name` in errors.
pub(crate) fn from<T: DeserializeOwned>(stream: impl Read, name: &str) -> Result<T> {
    let mut text = Vec::new();
    stream
        .take(LARGEST + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("read {name}"))?;
    ensure!(
        text.len() as u64 <= LARGEST,
        "{name} has more than {LARGEST} bytes: it is not read"
    );
    parse(&text, name)
}

/// Parses a document. An unknown property is ignored, as the specification
/// wants it (“Extensibility”), and named in a warning.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8], name: &str) -> Result<T> {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let mut json = serde_json::Deserializer::from_slice(text);
    let ignoring = serde_ignored::Deserializer::new(&mut json, &mut note);
    let parsed = serde_path_to_error::deserialize(NullIsMissing::new(ignoring));
    let document = parsed.map_err(|error| {
        let place = error.path().to_string();
        match place.as_str() {
            "." => anyhow!("{name}: {}", error.inner()),
            _ => anyhow!("{name}: {place}: {}", error.inner()),
        }
    })?;
    if let Err(error) = json.end() {
        bail!("{name}: after the document: {error}");
    }
    for path in unknown.iter().take(MOST_UNKNOWN) {
        warn!("{name}: the property {path} is unknown, and ignored");
    }
    if unknown.len() > MOST_UNKNOWN {
        warn!("{name}: and {} more", unknown.len() - MOST_UNKNOWN);
    }
    Ok(document)
}

/// The number of unknown properties that are named.
const MOST_UNKNOWN: usize = 8;

/// Prints a document on standard output.
pub(crate) fn print(document: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(document).context("serialise")?;
    line(&text)
}

/// Prints a line on standard output. A closed pipe is no error.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written
            .map_err(Error::from)
            .context("write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_error_says_where() {
        let refused = |text: &str| {
            let error = parse::<Config>(text.as_bytes(), "c").unwrap_err();
            format!("{error:#}")
        };
        for (text, words) in [
            (r#"{"ociVersion":1}"#, "c: ociVersion: invalid type"),
            (r#"{}"#, "missing field `ociVersion`"),
            (
                r#"{"ociVersion":"1.0.0","mounts":[{"destination":5}]}"#,
                "mounts[0].destination: invalid type",
            ),
            (
                r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"ipd"}]}}"#,
                "linux.namespaces[0].type: unknown variant `ipd`",
            ),
            (
                r#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":-1}}}"#,
                "process.user.uid: invalid value",
            ),
            (
                r#"{"ociVersion":"1.0.0","ociVersion":"1.0.1"}"#,
                "duplicate field `ociVersion`",
            ),
            (r#"{"ociVersion":"1.0.0"} x"#, "after the document"),
            (&"[".repeat(100_000), "invalid type"),
        ] {
            let said = refused(text);
            assert!(said.contains(words), "{said}, not {words}");
        }
    }

    #[test]
    fn null_is_what_is_missing_and_unknown_properties_are_ignored() {
        let config: Config = parse(
            br#"{"ociVersion":"1.0.2","mounts":null,"hooks":null,"annotations":null,"vm":{},
                "process":{"cwd":"/","args":null,"rlimits":null,"user":null},
                "linux":{"namespaces":null,"resources":{"devices":null},"new":[1]}}"#,
            "c",
        )
        .unwrap();
        assert!(config.mounts.is_empty());
        assert_eq!(config.process.unwrap().user.uid, 0);
    }
}
