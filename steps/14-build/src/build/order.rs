//! What one process of a build asks of another.
//!
//! The process that folds has threads, one for each stage, and so it never clones
//! (a child of a process with threads has the locks of all of them, and only one).
//! It executes this program for everything that needs a container. The order goes
//! through a socket, not through the command line or the environment, which
//! others may read: it may hold a secret.

use engine::image::digest::Digest;
use engine::spec::Spec;
use serde::{Deserialize, Serialize};

use crate::build::cache::Record;
use crate::build::image::Made;
use crate::build::mounts::{Secrets, Used};
use crate::copy::{Job, Sources};

/// An order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The container.
    pub spec: Spec,
    /// What is done in it.
    pub work: Work,
    /// What becomes of its layer.
    pub keep: Keep,
    /// The caches that it uses.
    pub caches: Vec<Used>,
    /// Its secrets.
    pub secrets: Secrets,
}

/// What is done in a container.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// Its command is executed.
    Run,
    /// Files are copied into its layer.
    Copy(Job),
    /// The same, and nothing is made: which files are they?
    Look(Job),
    /// Its working directory is made.
    Directory,
}

/// What becomes of a container's layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Keep {
    /// The digests of the layers below.
    pub below: Vec<Digest>,
    /// `SOURCE_DATE_EPOCH`: no file is younger.
    pub epoch: Option<i64>,
    /// When the layer is said to have been made; `None` for now.
    pub created: Option<String>,
    /// The key under which the layer is found again.
    pub key: Digest,
    /// What is noted there; `None` if nothing is.
    pub record: Option<Record>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The layer is there.
    Made {
        /// The layer.
        made: Made,
        /// Whether a file could not be given an attribute.
        lost: bool,
    },
    /// The files are these.
    Found(Sources),
    /// The command has ended with this status, which is not 0.
    Ended(u8),
    /// It could not be done: the causes, the outermost first.
    Failed(Vec<String>),
}
