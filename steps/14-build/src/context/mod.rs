//! The context of a build: the files that `COPY` and `ADD` may take.
//!
//! | module | what |
//! |---|---|
//! | this | what the command line means: a directory, an archive, nothing |
//! | [`ignore`] | `.dockerignore` |
//! | [`pattern`] | `*`, `?`, `[a-z]`, `**` |
//! | [`spool`] | an archive on standard input, unpacked where nobody else writes |
//! | [`ignore`], [`pattern`] | what is left out |
//!
//! A context in a directory is used where it is: nothing is copied before an
//! instruction asks for it. Nobody's word is taken for what it holds. Every file
//! is opened when its turn comes, without following a link out of the directory.

pub mod ignore;
pub mod pattern;
pub mod spool;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use engine::cli::places::Places;
use engine::image::source::decompress::{Packing, decompress};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use union::archive::reader::Reader;

use crate::context::spool::Spool;
use crate::copy::tree::Tree;

/// The most that is read of a Dockerfile and of what says what is left out, in
/// bytes.
const LONGEST: u64 = 4 << 20;

/// The files of a context, as a [`Job`](crate::copy::Job) names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Their directory, absolute.
    #[serde(with = "kit::text")]
    pub directory: PathBuf,
    /// The text of the file that leaves some of them out.
    pub ignore: Option<String>,
    /// Whether they come from an archive, which says more about them than the
    /// directory shows.
    pub unpacked: bool,
}

/// A context, and the Dockerfile.
#[derive(Debug)]
pub struct Context {
    /// The files; `None` for a Dockerfile alone.
    pub files: Option<Files>,
    /// The text of the Dockerfile.
    pub dockerfile: String,
    /// The name of the Dockerfile, for messages.
    pub name: String,
    /// A directory of ours, until the build is over: for an archive, and for what
    /// is downloaded.
    spool: OnceLock<Spool>,
}

impl Context {
    /// Opens what `docker build [-f FILE] PLACE` names. `input` is standard
    /// input.
    // ANCHOR: open
    pub fn open(
        places: &Places,
        place: &OsStr,
        file: Option<&OsStr>,
        input: &mut dyn Read,
    ) -> Result<Self> {
        ensure!(
            place != "-" || file.is_none_or(|file| file != "-"),
            "invalid argument: can't use stdin for both build context and dockerfile"
        );
        if place == "-" {
            return Self::from_input(places, file, input);
        }
        let directory = directory(place)?;
        let tree = tree(&directory)?;
        let (dockerfile, name, beside) = match file {
            Some(file) if file == "-" => (text(input, "standard input")?, "-".into(), None),
            Some(file) => named(file)?,
            None => default(&tree)?,
        };
        let ignore = match beside {
            Some(ignore) => Some(ignore),
            None => tree.read(Path::new(".dockerignore"), LONGEST)?,
        };
        Ok(Context {
            files: Some(Files {
                directory,
                ignore,
                unpacked: false,
            }),
            dockerfile,
            name,
            spool: OnceLock::new(),
        })
    }
    // ANCHOR_END: open

    /// The directory for what is downloaded. It is removed with the context.
    pub fn downloads(&self, places: &Places) -> Result<&Path> {
        if self.spool.get().is_none() {
            // Another stage may have made one meanwhile; ours is dropped then.
            drop(self.spool.set(Spool::new(&places.root)?));
        }
        let spool = self.spool.get().context("no directory")?;
        Ok(spool.directory())
    }

    /// Standard input is an archive, or else a Dockerfile.
    fn from_input(places: &Places, file: Option<&OsStr>, input: &mut dyn Read) -> Result<Self> {
        // Enough to unpack the first header.
        let mut begin = Vec::new();
        let mut limited = input.take(64 << 10);
        limited
            .read_to_end(&mut begin)
            .context("read standard input")?;
        let input = limited.into_inner();
        let is_archive = match decompress(&begin[..]) {
            Ok(unpacked) => matches!(Reader::new(unpacked).next(), Ok(Some(_))),
            Err(error) => bail!("standard input: {error}"),
        };
        ensure!(
            is_archive || Packing::of(&begin) == Packing::Plain,
            "standard input is packed, and what is in it is no archive"
        );
        let mut all = Cursor::new(begin).chain(input);
        if !is_archive {
            return Ok(Context {
                files: None,
                dockerfile: text(&mut all, "standard input")?,
                name: "-".into(),
                spool: OnceLock::new(),
            });
        }
        let spool = Spool::new(&places.root)?;
        spool.unpack(all)?;
        let directory = spool.files();
        let tree = tree(&directory)?;
        let (dockerfile, name, beside) = match file {
            None => default(&tree)?,
            Some(file) => inside(&tree, Path::new(file))?.with_context(|| {
                format!(
                    "failed to read dockerfile: open {}: no such file or directory",
                    file.display()
                )
            })?,
        };
        let ignore = match beside {
            Some(ignore) => Some(ignore),
            None => tree.read(Path::new(".dockerignore"), LONGEST)?,
        };
        Ok(Context {
            files: Some(Files {
                directory,
                ignore,
                unpacked: true,
            }),
            dockerfile,
            name,
            spool: spool.into(),
        })
    }
}

/// The directory that a command line names.
fn directory(place: &OsStr) -> Result<PathBuf> {
    let shown = place.display();
    let begins = |with: &str| place.as_bytes().starts_with(with.as_bytes());
    let addresses = [
        "http://",
        "https://",
        "git://",
        "git@",
        "ssh://",
        "github.com/",
    ];
    let path = Path::new(place);
    if addresses.iter().any(|with| begins(with)) && !path.exists() {
        bail!("{shown}: a context at an address is not supported: clone or download it first");
    }
    ensure!(
        path.exists(),
        "unable to prepare context: path \"{shown}\" not found"
    );
    ensure!(
        path.is_dir(),
        "unable to prepare context: context must be a directory: {shown}"
    );
    path.canonicalize()
        .with_context(|| format!("realpath {path:?}"))
}

fn tree(directory: &Path) -> Result<Tree> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty());
    Ok(Tree::layer(
        root.with_context(|| format!("open {directory:?}"))?,
    ))
}

/// A Dockerfile: its text, its name, and what the file beside it leaves out.
type Read3 = (String, String, Option<String>);

/// A Dockerfile that the command line names: it may lie outside of the context.
fn named(file: &OsStr) -> Result<Read3> {
    let shown = file.display();
    let mut open = File::open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!("failed to read dockerfile: open {shown}: no such file or directory")
        }
        _ => anyhow::Error::new(error).context(format!("failed to read dockerfile: open {shown}")),
    })?;
    let text = text(&mut open, &format!("{shown}"))?;
    let mut beside = file.to_owned();
    beside.push(".dockerignore");
    let beside = match File::open(&beside) {
        Ok(mut open) => Some(self::text(&mut open, &format!("{}", beside.display()))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        // As with `-f /dev/fd/63`.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => None,
        Err(error) => return Err(error).with_context(|| format!("open {beside:?}")),
    };
    let name = Path::new(file).file_name().unwrap_or(file);
    Ok((text, name.to_string_lossy().into_owned(), beside))
}

/// The Dockerfile of a context.
fn default(tree: &Tree) -> Result<Read3> {
    for name in ["Dockerfile", "dockerfile"] {
        if let Some(found) = inside(tree, Path::new(name))? {
            return Ok(found);
        }
    }
    bail!("failed to read dockerfile: open Dockerfile: no such file or directory")
}

/// A Dockerfile in a context. A link does not lead out of it.
fn inside(tree: &Tree, path: &Path) -> Result<Option<Read3>> {
    let read = tree
        .read(path, LONGEST)
        .context("failed to read dockerfile")?;
    let Some(text) = read else {
        return Ok(None);
    };
    let name = path.file_name().unwrap_or_default();
    let mut beside = name.to_owned();
    beside.push(".dockerignore");
    let beside = tree.read(&path.with_file_name(beside), LONGEST)?;
    Ok(Some((text, name.to_string_lossy().into_owned(), beside)))
}

fn text(from: &mut dyn Read, what: &str) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("failed to read dockerfile: {what}"))?;
    ensure!(
        bytes.len() as u64 <= LONGEST,
        "{what} has more than {LONGEST} bytes, too many for a Dockerfile"
    );
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
