//! `run` and `create`, which pull what is missing.

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use engine::cli::options::RunArgs;
use engine::cli::places::Places;
use engine::image::digest::Digest;
use engine::image::source::path_and_tag;
use lifecycle::cli::run as life;
use lifecycle::config::Config;
use process::{Exit, LAUNCHER_FAILED};
use union::Kind;

use crate::cli::Here;
use crate::manifest::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::settings::Registries;
use crate::transfer::pull::Pull;

/// The commands that start containers.
#[derive(Subcommand)]
pub enum Tool {
    /// Create and run a new container from an image
    Run(Box<RunPulling>),
    /// Create a new container
    Create(Box<CreatePulling>),
    /// Start one or more stopped containers
    Start(life::Start),
}

/// The options of a pull before a start.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Image (step 13)")]
pub struct PullArgs {
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Speak plain HTTP, or TLS without certificates, with this registry.
    /// Repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Suppress the pull output
    #[arg(short, long)]
    quiet: bool,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Before every start.
    Always,
    /// If it is not here.
    Missing,
    /// Not at all.
    Never,
}

/// The options of `run`.
#[derive(Args)]
#[command(override_usage = "drydock run [OPTIONS] IMAGE [COMMAND] [ARG]...")]
#[command(mut_arg("pull", with_policies))]
pub struct RunPulling {
    #[command(flatten)]
    pull: PullArgs,
    #[command(flatten)]
    run: life::Run,
}

/// The options of `create`.
#[derive(Args)]
#[command(override_usage = "drydock create [OPTIONS] IMAGE [COMMAND] [ARG]...")]
#[command(mut_arg("pull", with_policies))]
pub struct CreatePulling {
    #[command(flatten)]
    pull: PullArgs,
    #[command(flatten)]
    create: life::Create,
}

/// Step 09 knows only `never`.
fn with_policies(arg: clap::Arg) -> clap::Arg {
    arg.value_parser(["always", "missing", "never"])
        .default_value("missing")
        .help("Pull the image before running: always, missing, never")
}

impl Tool {
    /// The exit status of an error: 125 if a container could not be run, else 1.
    pub fn failed(&self) -> u8 {
        match self {
            Tool::Run(_) => LAUNCHER_FAILED,
            Tool::Create(_) | Tool::Start(_) => 1,
        }
    }
}

/// Runs one of the commands.
pub fn run(places: &Places, config: &Config, tool: Tool) -> Result<Exit> {
    let tool = match tool {
        Tool::Run(mut args) => {
            fetch(places, config, &args.pull, &mut args.run.run)?;
            life::Tool::Run(Box::new(args.run))
        }
        Tool::Create(mut args) => {
            fetch(places, config, &args.pull, &mut args.create.run)?;
            life::Tool::Create(Box::new(args.create))
        }
        Tool::Start(args) => life::Tool::Start(args),
    };
    life::run(places, config, tool)
}

/// Pulls the image if the policy says so. Everything of the pull has ended when
/// this returns, its threads too.
fn fetch(places: &Places, config: &Config, args: &PullArgs, run: &mut RunArgs) -> Result<()> {
    let policy = Policy::from_str(&run.container.pull, false)
        .ok()
        .context("--pull")?;
    // Earlier steps have no other.
    run.container.pull = "never".into();
    let Some(reference) = run.image_and_command.first().and_then(|word| word.to_str()) else {
        return Ok(());
    };
    let here = Here::open(places, config.storage_driver)?;
    let wanted = Wanted {
        policy,
        driver: run.layers.storage_driver,
        platform: args.platform.clone(),
        insecure: &args.insecure_registry,
        quiet: args.quiet,
        paths: true,
    };
    let id = here.or_pulled(reference, &wanted)?;
    // Step 09 knows names and IDs.
    if let Some(id) = id.filter(|_| reference.contains('@')) {
        run.image_and_command[0] = id.to_string().into();
    }
    Ok(())
}

/// How an image is wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// When it is pulled.
    pub policy: Policy,
    /// The storage driver that is asked for.
    pub driver: Option<Kind>,
    /// The machine that it is for.
    pub platform: Option<Platform>,
    /// Registries that are insecure by option.
    pub insecure: &'a [String],
    /// Whether nothing is said of the pull.
    pub quiet: bool,
    /// Whether it may be the path of one.
    pub paths: bool,
}

impl Here {
    /// The image that `reference` means, pulled if the policy says so; `None` if
    /// it is the path of one, or there is none and none is pulled.
    // ANCHOR: fetch
    pub fn or_pulled(&self, reference: &str, wanted: &Wanted<'_>) -> Result<Option<Digest>> {
        let is_path = wanted.paths
            && (reference.starts_with(['/', '.']) || path_and_tag(reference).is_some());
        let known = self.find(reference)?;
        let is_id = |id: &str| {
            reference.len() >= 4 && id.starts_with(reference.trim_start_matches("sha256:"))
        };
        let is_an_id = known.as_ref().is_some_and(|known| is_id(known.id.hex()));
        let pulls = match wanted.policy {
            Policy::Always => !is_path && !is_an_id,
            Policy::Missing => known.is_none() && !is_path,
            Policy::Never => false,
        };
        if !pulls {
            return Ok(known.map(|known| known.id));
        }
        let registries = Registries::read()?;
        let parsed: Reference = reference.parse()?;
        // What was pulled under its full name is meant by its short one.
        let place = registries.resolve(&parsed)?;
        if wanted.policy == Policy::Missing && !wanted.quiet {
            kit::errln!("Unable to find image '{place}' locally");
        }
        let progress = Progress::on_stderr(wanted.quiet);
        let pull = Pull {
            images: &self.images,
            blobs: &self.blobs,
            kind: self.kind(wanted.driver)?,
            platform: wanted.platform.clone(),
            registries: &registries,
            insecure: wanted.insecure,
            progress: &progress,
        };
        let pulled = pull.run(&place)?;
        if let Some(image) = self.images.store.record(&pulled.id)? {
            crate::cli::transfer::told("pull", &image, &place);
        }
        progress.say(&format!("Digest: {}", pulled.digest));
        progress.say(&crate::cli::transfer::status(&pulled, &place));
        Ok(Some(pulled.id))
    }
    // ANCHOR_END: fetch
}
