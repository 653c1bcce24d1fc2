//! `COPY` and `ADD`: files into a layer.
//!
//! A `COPY` is a container that never starts: a child mounts the stage's layer,
//! copies, and ends. What it may read is the context, another layer, or what the
//! Dockerfile itself holds; all three belong to somebody who may wish us ill, and
//! so may the image into which it copies.
//!
//! | module | what |
//! |---|---|
//! | this | a job: what an instruction says, without its variables |
//! | [`tree`] | the sources: names, wildcards, links |
//! | [`stage`] | the root into which files are copied |
//! | [`put`] | the rules of the destination |
//! | [`look`] | mode, owner, time, attributes |
//! | [`owner`] | `--chown`, `--chmod` |
//! | [`unpack`] | archives |
//! | [`remote`] | addresses |
//! | [`digest`] | what the cache wants to know |
//! | [`remembered`] | digests of files, from one build to the next |
//! | [`list`] | the child |

pub mod digest;
pub mod list;
pub mod look;
pub mod owner;
pub mod put;
pub mod remembered;
pub mod remote;
pub mod stage;
pub mod tree;
pub mod unpack;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use engine::cli::places::Places;
use engine::image::digest::Digest;
use engine::spec::Spec;
use serde::{Deserialize, Serialize};
use union::{LayerId, StorageDriver};

use crate::context::Files;
use crate::context::ignore::Ignore;
use crate::copy::digest::Digests;
use crate::copy::owner::Chmod;
use crate::copy::remembered::Remembered;
use crate::copy::tree::Tree;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// A file has changed since [`Job::stamp`] was taken: the layer must not be
    /// kept under these digests.
    pub changed: bool,
    /// The file system of the layer has not taken an attribute of a file.
    pub lost: bool,
}

impl Copied {
    /// All that a child that copies may end with, if nothing is wrong.
    const ALL: [Copied; 4] = [
        Copied::new(false, false),
        Copied::new(false, true),
        Copied::new(true, false),
        Copied::new(true, true),
    ];

    const fn new(changed: bool, lost: bool) -> Self {
        Copied { changed, lost }
    }

    /// The exit status of the child that copies.
    fn status(self) -> u8 {
        // 1 is that of an error.
        u8::from(self.changed) * 2 + u8::from(self.lost) * 4
    }

    fn of_status(status: u8) -> Option<Self> {
        Copied::ALL
            .into_iter()
            .find(|copied| copied.status() == status)
    }
}

impl Job {
    /// Copies what is at `source` into the root, and changes nothing of it.
    pub fn as_it_is(from: From, source: &str) -> Self {
        Job {
            add: false,
            from,
            sources: vec![Source::Path(source.to_owned())],
            destination: "/".into(),
            workdir: "/".into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: None,
            latest: None,
            stamp: None,
        }
    }

    /// Finds what the job would copy. Files of a layer are read by a child, so
    /// the caller has no threads.
    ///
    /// Files of a context may be among those that are remembered.
    ///
    /// # Errors
    /// If a source is missing, in Docker's words.
    pub fn sources(
        &self,
        places: &Places,
        spec: &Spec,
        remembered: Option<&Remembered>,
    ) -> Result<Sources> {
        match &self.from {
            From::Layer(layer) => list::look(places, spec, self, layer),
            From::Context(_) => self.looked_at(list::context(self)?.as_ref(), remembered),
        }
    }

    fn looked_at(&self, tree: Option<&Tree>, remembered: Option<&Remembered>) -> Result<Sources> {
        self.check()?;
        let exclude = match self.exclude.is_empty() {
            true => None,
            false => Some(Ignore::of(&self.exclude).context("--exclude")?),
        };
        let mut digests = Digests::new(remembered);
        for source in &self.sources {
            match source {
                Source::Path(path) => {
                    let tree = tree.context("there is no context to copy from")?;
                    let items = tree.items(path, self.parents);
                    let items = items.context("failed to compute cache key")?;
                    for item in &items {
                        digests.above = item.parents.iter().map(|(name, _)| name).collect();
                        tree.walk(item, exclude.as_ref(), &mut digests)?;
                    }
                }
                Source::Text { name, content } => {
                    let digest = Digest::of(content.as_bytes());
                    digests.files.push((name.clone(), digest));
                }
                Source::Download {
                    file,
                    address,
                    modified,
                    ..
                } => {
                    let file = File::open(file).with_context(|| format!("open {file:?}"))?;
                    let size = file.metadata().context("fstat")?.len();
                    // Its time comes from the server, and with the same address
                    // stands for the same file.
                    let text = format!("{} {modified:?}", digest::content(&file, size)?);
                    let digest = Digest::of(text.as_bytes());
                    digests.files.push((address.clone(), digest));
                }
            }
        }
        Ok(Sources {
            files: digests.files,
            stamp: digests.stamp.digest(),
        })
    }

    /// Checks what can be checked without any file.
    ///
    /// # Errors
    /// In Docker's words.
    pub fn check(&self) -> Result<()> {
        let name = if self.add { "ADD" } else { "COPY" };
        ensure!(
            self.sources.len() < 2 || self.destination.ends_with('/') || self.is_here(),
            "When using {name} with more than one source file, the destination must be a \
             directory and end with a /"
        );
        for source in &self.sources {
            if let Source::Path(path) = source
                && self.add
                && remote::is_repository(path)
            {
                bail!(
                    "{path} is a git repository: that is not supported, clone it into the context"
                );
            }
        }
        if let Some(chmod) = &self.chmod {
            Chmod::parse(chmod)?;
        }
        Ok(())
    }

    fn is_here(&self) -> bool {
        matches!(&*self.destination, "." | "..") || self.destination.ends_with("/.")
    }
}

/// Makes the layer `spec.id` on `spec.layer`, copies the files of `job` there,
/// and calls `harvest` with the driver and the layer, which is not mounted any
/// more. The layer is removed afterwards, in any case. A killed caller's is
/// removed by the next sweep. The caller has no threads.
pub fn run<T>(
    places: &Places,
    spec: &Spec,
    job: &Job,
    harvest: impl FnOnce(&dyn StorageDriver, &LayerId, Copied) -> Result<T>,
) -> Result<T> {
    job.check()?;
    list::copy(places, spec, job, harvest)
}

/// Copies the content of the directory `source` of a layer into the empty
/// directory `to`, which gets the look of the first, but for the mode, user and
/// group that `looks` gives. The caller has no threads.
pub fn fill(
    places: &Places,
    spec: &Spec,
    (layer, source): (&LayerId, &str),
    to: &Path,
    looks: (Option<u32>, Option<u32>, Option<u32>),
) -> Result<()> {
    let job = Job::as_it_is(From::Layer(layer.clone()), source);
    list::fill_directory(places, spec, &job, to, looks)
}
