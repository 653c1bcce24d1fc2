//! `COPY` and `ADD`: files into a layer.

pub mod list;
pub mod remote;

use std::path::PathBuf;

use anyhow::{Result, bail};
use engine::cli::places::Places;
use engine::image::digest::Digest;
use engine::spec::Spec;
use serde::{Deserialize, Serialize};
use union::LayerId;

use crate::context::Files;

/// What a `COPY` or an `ADD` is to do, with every variable expanded. It depends
/// on nothing in this process, so that another one may do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Whether it is `ADD`.
    pub add: bool,
    /// Where [`Source::Path`]s are looked up.
    pub from: From,
    /// What is copied; at least one.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: String,
    /// The stage's working directory, to which the destination is relative.
    #[serde(with = "kit::text")]
    pub workdir: PathBuf,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// `ADD --unpack`.
    pub unpack: Option<bool>,
    /// `SOURCE_DATE_EPOCH`: no file gets a later time.
    pub latest: Option<i64>,
    /// [`Sources::stamp`] of the sources when their digests were taken.
    pub stamp: Option<Digest>,
}

/// Where the files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// From the context, or `None` if there is none.
    Context(Option<Files>),
    /// From another stage or image: its topmost layer, kept by the driver of the
    /// stage that is built.
    Layer(LayerId),
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A path, with wildcards.
    Path(String),
    /// A file that stands in the Dockerfile.
    Text {
        /// Its name.
        name: String,
        /// Its content.
        content: String,
    },
    /// A file that [`remote::fetch`] has downloaded.
    Download {
        /// Where it lies.
        #[serde(with = "kit::text")]
        file: PathBuf,
        /// The name at the end of its address; empty if it has none.
        name: String,
        /// The address, for messages.
        address: String,
        /// When it was changed: seconds since 1970.
        modified: Option<i64>,
    },
}

/// What a job would copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Each file with the digest of what counts: type, mode, owner, target of a
    /// link, content, attributes; not times. In the order of the job's sources,
    /// and of names.
    pub files: Vec<(String, Digest)>,
    /// A digest of inode numbers, sizes and times, by which [`run`] notices that
    /// somebody has changed a file since.
    pub stamp: Digest,
}

/// Whether a job has copied what [`Job::sources`] has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The layer holds the files of [`Job::stamp`], or there was none.
    AsAsked,
    /// A file has changed since: the layer must not be kept under these digests.
    Changed,
}

impl Job {
    /// Finds what the job would copy. Files of a layer are read by a child, so
    /// the caller has no threads.
    ///
    /// # Errors
    /// If a source is missing, in Docker's words.
    pub fn sources(&self, places: &Places, spec: &Spec) -> Result<Sources> {
        let _ = (places, spec);
        bail!("not yet")
    }
}

/// Makes the layer `spec.id` on `spec.layer`, and copies the files of `job` there.
/// The caller has no threads, and removes the layer afterwards
/// ([`union::isolation::remove_container`]), also after an error; a killed
/// caller's is removed by the next sweep.
pub fn run(places: &Places, spec: &Spec, job: &Job) -> Result<Copied> {
    let _ = (places, spec, job);
    bail!("not yet")
}
