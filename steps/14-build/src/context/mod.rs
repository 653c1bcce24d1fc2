//! The context of a build: the files that `COPY` and `ADD` may take.
//!
//! | module | what |
//! |---|---|
//! | this | what the command line means: a directory, an archive, nothing |
//! | [`ignore`] | `.dockerignore` |
//! | [`pattern`] | `*`, `?`, `[a-z]`, `**` |
//! | [`spool`] | an archive on standard input, unpacked where nobody else writes |
//!
//! A context in a directory is used where it is. Nobody else's word is taken for
//! what it holds: every file is opened without following a link out of it, and
//! only when its turn comes.

pub mod ignore;
pub mod pattern;
pub mod spool;

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use engine::cli::places::Places;
use serde::{Deserialize, Serialize};

use crate::context::spool::Spool;

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
    /// Keeps an unpacked archive until the build is over.
    pub spool: Option<Spool>,
}

impl Context {
    /// Opens what `docker build [-f FILE] PLACE` names. `input` is standard
    /// input.
    pub fn open(
        places: &Places,
        place: &OsStr,
        file: Option<&OsStr>,
        input: &mut dyn Read,
    ) -> Result<Self> {
        let _ = (places, Path::new(place), file, input);
        bail!("not yet")
    }
}
