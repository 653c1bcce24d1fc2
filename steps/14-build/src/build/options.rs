//! What a build is asked to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine::image::name::Name;
use registry::cli::run::Policy;
use registry::manifest::Platform;

/// What the command line says, without a type of its parser.
#[derive(Clone, Debug)]
pub struct Options {
    /// The names of the image.
    pub tags: Vec<Name>,
    /// The stage that is wanted; `None` for the last.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// Whether nothing is taken from the cache.
    pub no_cache: bool,
    /// The stages of which nothing is.
    pub no_cache_filter: Vec<String>,
    /// Images whose layers are taken as if they had been built here.
    pub cache_from: Vec<String>,
    /// When images are pulled.
    pub pull: Policy,
    /// The machine that the image is for.
    pub platform: Option<Platform>,
    /// Registries that are insecure by option.
    pub insecure: Vec<String>,
    /// The network of `RUN`s that name none.
    pub network: Network,
    /// Secrets by ID: where each is.
    pub secrets: BTreeMap<String, SecretSource>,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub epoch: Option<i64>,
}

/// The network of a `RUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// That of every container.
    Default,
    /// A loopback device.
    None,
    /// The host's.
    Host,
}

impl Network {
    /// The network of that name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "default" | "sandbox" | "bridge" => Some(Network::Default),
            "none" => Some(Network::None),
            "host" => Some(Network::Host),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        }
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the caller's environment.
    Variable(String),
}
