//! The command line of `drydock` with registries.
//!
//! | module | what |
//! |---|---|
//! | [`run`] | `run`, `create`, with `--pull` |
//! | [`transfer`] | `pull`, `push` |
//! | [`account`] | `login`, `logout` |
//! | [`image`] | `images`, `image …`, `tag`, `rmi`, `history`, `save`, `load`, `import` |
//! | [`container`] | `commit`, `export`, `container …` |

pub mod account;
pub mod container;
pub mod image;
pub mod run;
pub mod transfer;

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use engine::cli::defaults::driver;
use engine::cli::places::Places;
use engine::image::Images;
use engine::image::digest::Digest;
use engine::image::record::ImageRecord;
use lifecycle::cli::system::{self, Besides, Pruned, SystemTool};
use lifecycle::cli::{Global, Other, with_status};
use lifecycle::config::Config;
use process::Exit;
use process::cli::after_help;
use union::Kind;

use crate::blobs::BlobStore;
use crate::reference::Reference;
use crate::settings::Registries;

/// Run containers of images from anywhere
///
/// A container is an ordinary process, launched through a list of isolations. An
/// image is a list of archives, named by their digests, which a registry keeps.
#[derive(Parser)]
#[command(name = "drydock", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
struct Drydock {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    #[command(flatten)]
    All(All),
    /// Manage images
    #[command(subcommand)]
    Image(image::Group),
}

/// The commands that a later step has, too, as they are: all but those of `image`,
/// of which that one has more.
#[derive(Subcommand)]
pub enum All {
    /// Those that start containers.
    #[command(flatten)]
    Run(run::Tool),
    /// The commands of step 12.
    #[command(flatten)]
    Other(Other),
    /// Those that speak with registries.
    #[command(flatten)]
    Transfer(transfer::Tool),
    /// `login` and `logout`.
    #[command(flatten)]
    Account(account::Tool),
    /// Those about images.
    #[command(flatten)]
    Images(image::Tool),
    /// `commit` and `export`.
    #[command(flatten)]
    Files(container::Tool),
    /// Manage containers
    #[command(subcommand)]
    Container(Box<container::Group>),
}

const EXAMPLES: &str = "
  drydock pull localhost:5000/team/app:1.2       from a registry
  drydock run --pull always localhost:5000/app   the newest, then run it
  drydock tag app localhost:5000/app:1.3         another name
  drydock push localhost:5000/app:1.3            under that name
  drydock commit -m 'with vi' web web:2          an image of a container";

const SEE_ALSO: &str = "the OCI Distribution Specification; docker-credential helpers";

/// The `main` function of `drydock`.
pub fn main() -> ExitCode {
    if let Some(status) = lifecycle::cli::internal::run() {
        return status;
    }
    pid::main(|drydock: Drydock| {
        let (places, config) = drydock.global.begin()?;
        match drydock.command {
            Sub::All(command) => {
                let here = Here::open(&places, config.storage_driver)?;
                command.run(&places, &config, &here)
            }
            Sub::Image(group) => {
                let here = Here::open(&places, config.storage_driver);
                here.and_then(|here| image::run_group(&here, group))
                    .map_err(|error| with_status(error, 1))
            }
        }
    })
}

impl All {
    /// Runs the command. `besides` is what images keep besides their layers.
    pub fn run(self, places: &Places, config: &Config, besides: &dyn Besides) -> Result<Exit> {
        let here = || Here::open(places, config.storage_driver);
        let (done, failed) = match self {
            All::Run(tool) => {
                let failed = tool.failed();
                (run::run(places, config, tool), failed)
            }
            All::Transfer(tool) => (here().and_then(|here| transfer::run(&here, tool)), 1),
            All::Account(tool) => (account::run(tool), 1),
            All::Images(tool) => (here().and_then(|here| image::run(&here, tool)), 1),
            All::Files(tool) => (
                here().and_then(|here| container::run(&here, places, tool)),
                1,
            ),
            All::Container(group) => match *group {
                container::Group::Run(tool) => {
                    let failed = tool.failed();
                    (run::run(places, config, tool), failed)
                }
                container::Group::Files(tool) => (
                    here().and_then(|here| container::run(&here, places, tool)),
                    1,
                ),
                container::Group::Other(tool) => {
                    let failed = tool.failed();
                    (tool.run(places), failed)
                }
            },
            All::Other(Other::System(SystemTool::Df(args))) => {
                (system::df(places, &args, besides), 1)
            }
            All::Other(Other::System(SystemTool::Prune(args))) => {
                (system::prune_all(places, &args, besides), 1)
            }
            All::Other(tool) => {
                let failed = tool.failed();
                (tool.run(places), failed)
            }
        };
        done.map_err(|error| with_status(error, failed))
    }
}

/// The images and blobs of a state directory.
pub struct Here {
    /// The images.
    pub images: Images,
    /// What registries keep of them.
    pub blobs: BlobStore,
    /// The storage driver of the configuration file.
    driver: Option<Kind>,
}

/// Images, as `system df` counts and `system prune` removes them.
impl Besides for Here {
    fn all(&self) -> Result<u64> {
        self.blobs.all()
    }

    fn of(&self, ids: &[&str]) -> Result<u64> {
        self.blobs.of(ids)
    }

    fn prunes(&self, all: bool) -> Vec<&'static str> {
        vec![match all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        }]
    }

    fn prune(
        &self,
        all: bool,
        filters: &[String],
        _: Option<SystemTime>,
        pruned: &mut Pruned,
    ) -> Result<()> {
        let (removed, bytes) = image::prune_unused(self, all, filters)?;
        pruned.add("Deleted Images:", removed, bytes);
        Ok(())
    }
}

impl Here {
    /// The store of `places`. Creates nothing yet.
    pub fn open(places: &Places, driver: Option<Kind>) -> Result<Self> {
        Ok(Here {
            images: Images::open(&places.root)?,
            blobs: BlobStore::new(&places.root),
            driver,
        })
    }

    /// The storage driver: the one asked for, that of the file, the preferred
    /// one.
    pub fn kind(&self, asked: Option<Kind>) -> Result<Kind> {
        driver(self.images.root(), asked.or(self.driver))
    }

    /// The image that somebody means, also by a digest of a registry.
    pub fn find(&self, reference: &str) -> Result<Option<ImageRecord>> {
        if let Some(record) = self.images.find(reference)? {
            return Ok(Some(record));
        }
        match self.by_digest(reference)? {
            Some(id) => self.images.store.record(&id),
            None => Ok(None),
        }
    }

    fn by_digest(&self, reference: &str) -> Result<Option<Digest>> {
        let Ok(parsed) = reference.parse::<Reference>() else {
            return Ok(None);
        };
        let Some(digest) = &parsed.digest else {
            return Ok(None);
        };
        let Ok(place) = Registries::read()?.resolve(&parsed) else {
            return Ok(None);
        };
        self.blobs.by_place(&place.repository, digest)
    }

    /// The image that somebody means.
    ///
    /// # Errors
    /// If there is none.
    pub fn image(&self, reference: &str) -> Result<ImageRecord> {
        self.find(reference)?
            .with_context(|| format!("No such image: {reference}"))
    }
}
