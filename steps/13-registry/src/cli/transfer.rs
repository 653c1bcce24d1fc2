//! `pull` and `push`.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use engine::cli::image::told_as;
use engine::image::name::familiar;
use engine::image::record::ImageRecord;
use process::Exit;
use union::Kind;

use crate::cli::Here;
use crate::manifest::Platform;
use crate::progress::Progress;
use crate::reference::{Reference, Remote};
use crate::settings::Registries;
use crate::transfer::connect;
use crate::transfer::pull::{Pull, Pulled, tags};
use crate::transfer::push::Push;

/// The commands that speak with registries.
#[derive(Subcommand)]
pub enum Tool {
    /// Download an image from a registry
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
}

/// The options of `pull`.
#[derive(Args)]
pub struct PullArgs {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Speak plain HTTP, or TLS without certificates, with this registry.
    /// Repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    storage_driver: Option<Kind>,
    /// Image in a registry: [HOST/]NAME[:TAG|@DIGEST]
    #[arg(value_name = "NAME")]
    name: Reference,
}

/// The options of `push`.
#[derive(Args)]
pub struct PushArgs {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Speak plain HTTP, or TLS without certificates, with this registry.
    /// Repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Name of an image: [HOST/]NAME[:TAG]
    #[arg(value_name = "NAME")]
    name: Reference,
}

/// Runs one of the commands.
pub(super) fn run(here: &Here, tool: Tool) -> Result<Exit> {
    match tool {
        Tool::Pull(args) => pull(here, &args),
        Tool::Push(args) => push(here, &args),
    }?;
    Ok(Exit::Code(0))
}

fn pull(here: &Here, args: &PullArgs) -> Result<()> {
    let registries = Registries::read()?;
    let place = registries.resolve(&args.name)?;
    let progress = Progress::new(args.quiet);
    let pull = Pull {
        images: &here.images,
        blobs: &here.blobs,
        kind: here.kind(args.storage_driver)?,
        platform: args.platform.clone(),
        registries: &registries,
        insecure: &args.insecure_registry,
        progress: &progress,
    };
    let mut all = vec![place.clone()];
    if args.all_tags {
        if args.name.tag.is_some() || args.name.digest.is_some() {
            bail!("tag can't be used with --all-tags/-a");
        }
        let client = connect(&registries, &place.repository, &args.insecure_registry)?;
        let with = |tag| Remote {
            tag: Some(tag),
            ..place.clone()
        };
        all = tags(&client, &place.repository)?
            .into_iter()
            .map(with)
            .collect();
    } else if args.name.tag.is_none() && args.name.digest.is_none() {
        progress.say("Using default tag: latest");
    }
    for place in &all {
        let asked = place.asked();
        progress.say(&format!("{asked}: Pulling from {}", place.repository.path));
        let pulled = pull.run(place)?;
        if let Some(image) = here.images.store.record(&pulled.id)? {
            told("pull", &image, place);
        }
        progress.say(&format!("Digest: {}", pulled.digest));
        progress.say(&status(&pulled, place));
        kit::outln!("{place}")?;
    }
    Ok(())
}

/// The last line of a pull.
pub(super) fn status(pulled: &Pulled, place: &Remote) -> String {
    match pulled.is_new {
        true => format!("Status: Downloaded newer image for {place}"),
        false => format!("Status: Image is up to date for {place}"),
    }
}

fn push(here: &Here, args: &PushArgs) -> Result<()> {
    let registries = Registries::read()?;
    if args.name.digest.is_some() {
        bail!("cannot push a digest reference");
    }
    let place = registries.resolve(&args.name)?;
    let repository = &place.repository;
    let progress = Progress::new(args.quiet);
    progress.say(&format!("The push refers to repository [{repository}]"));
    let mut all = Vec::new();
    if args.all_tags {
        if args.name.tag.is_some() {
            bail!("tag can't be used with --all-tags/-a");
        }
        let wanted = repository.to_string();
        for (name, id) in here.images.store.names()? {
            let of = name.as_str().rsplit_once(':');
            if let Some((_, tag)) = of.filter(|(name, _)| familiar(name) == familiar(&wanted)) {
                let record = here.images.store.record(&id)?;
                let place = Remote {
                    tag: Some(tag.to_owned()),
                    ..place.clone()
                };
                all.push((record.context("an image without a record")?, place));
            }
        }
    } else {
        if args.name.tag.is_none() {
            progress.say("Using default tag: latest");
        }
        let name = place.to_string();
        let record = here.find(&name)?.or(here.find(&args.name.to_string())?);
        all.extend(record.map(|record| (record, place.clone())));
    }
    if all.is_empty() {
        bail!("An image does not exist locally with the tag: {repository}");
    }
    let push = Push {
        images: &here.images,
        blobs: &here.blobs,
        registries: &registries,
        insecure: &args.insecure_registry,
        progress: &progress,
    };
    for (record, place) in &all {
        push_ready(here, record)?;
        let pushed = push.run(record, place)?;
        told("push", record, place);
        let tag = place.asked();
        progress.say(&format!(
            "{tag}: digest: {} size: {}",
            pushed.digest, pushed.size
        ));
        if args.quiet {
            kit::outln!("{place}")?;
        }
    }
    Ok(())
}

/// Tells of an image by the name under which it was asked for.
pub(super) fn told(action: &str, image: &ImageRecord, place: &Remote) {
    let (whole, name) = (place.to_string(), place.repository.to_string());
    told_as(action, image, (&whole, &name));
}

/// Makes sure that the blobs of an image are here.
pub(super) fn push_ready(here: &Here, record: &engine::image::record::ImageRecord) -> Result<()> {
    if here.blobs.manifest(&record.id)?.is_some() {
        return Ok(());
    }
    let kind = here.kind(None)?;
    let _lock = here.images.store.lock()?;
    let _held = here.blobs.hold()?;
    here.blobs.require(&here.images, record, kind)
}
