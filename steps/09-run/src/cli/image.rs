//! `drydock load`, `import`, `images` and `rmi`.

use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use process::Exit;
use union::Kind;

use crate::cli::defaults::driver;
use crate::cli::places::Places;
use crate::container::observer;
use crate::image::Images;
use crate::image::config::{Config, Words};
use crate::image::digest::Digest;
use crate::image::name::Name;
use crate::image::record::ImageRecord;
use crate::image::remove::Removed;

/// The commands that deal with images.
#[derive(Subcommand, Clone, Debug)]
pub enum ImageTool {
    /// Load images from an archive of docker save or an OCI image layout, a
    /// directory or a tar archive, perhaps compressed by gzip, zstd,
    /// bzip2 or xz
    Load(LoadArgs),
    /// Import a root file system, a tar archive or a directory, to create an
    /// image
    Import(ImportArgs),
    /// List images
    Images(ListArgs),
    /// Remove one or more images
    Rmi(RemoveArgs),
}

/// The arguments of `drydock load`.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Read from a file or directory; PATH:TAG selects one of several images
    /// [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Name of the image [default: the names in the archive]
    name: Option<Name>,
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    storage_driver: Option<Kind>,
}

/// The arguments of `drydock import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// Root file system; - is standard input
    #[arg(value_name = "PATH|-")]
    from: PathBuf,
    /// Name of the image
    name: Name,
    /// Default command of the containers, split at spaces
    #[arg(long, value_name = "COMMAND", default_value = "sh")]
    cmd: String,
    /// Set an environment variable of the containers. Repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    storage_driver: Option<Kind>,
}

/// The arguments of `drydock images`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only show image IDs, in full
    #[arg(short, long)]
    quiet: bool,
}

/// The arguments of `drydock rmi`.
#[derive(Args, Clone, Debug)]
pub struct RemoveArgs {
    /// Names or IDs of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Runs one of the commands.
pub fn run(places: &Places, tool: ImageTool) -> Result<Exit> {
    let images = Images::open(&places.root)?;
    match tool {
        ImageTool::Load(args) => load(places, &images, args),
        ImageTool::Import(args) => import(places, &images, args),
        ImageTool::Images(args) => list(&images, args),
        ImageTool::Rmi(args) => remove(&images, args),
    }?;
    Ok(Exit::Code(0))
}

fn load(places: &Places, images: &Images, args: LoadArgs) -> Result<()> {
    let kind = driver(&places.root, args.storage_driver)?;
    let input = args.input.as_deref().filter(|path| *path != Path::new("-"));
    if input.is_none() {
        refuse_terminal("drydock load -i FILE")?;
    }
    let loaded = images.loader().load(input, args.name.as_ref(), kind)?;
    let mut out = stdout().lock();
    for (id, names) in loaded {
        told_new("load", images, &id)?;
        if names.is_empty() {
            writeln!(out, "Loaded image: {id}").context("write")?;
        }
        for name in names {
            writeln!(out, "Loaded image: {name}").context("write")?;
        }
    }
    Ok(())
}

fn import(places: &Places, images: &Images, args: ImportArgs) -> Result<()> {
    let kind = driver(&places.root, args.storage_driver)?;
    let from = (args.from != Path::new("-")).then_some(&*args.from);
    if from.is_none() {
        refuse_terminal("drydock import FILE NAME")?;
    }
    let config = Config {
        cmd: Some(Words(
            args.cmd.split_whitespace().map(str::to_owned).collect(),
        )),
        env: args.env,
        ..Config::default()
    };
    let id = images.loader().import(from, &args.name, config, kind)?;
    told_new("import", images, &id)?;
    writeln!(stdout(), "{id}").context("write")
}

fn list(images: &Images, args: ListArgs) -> Result<()> {
    let mut out = stdout().lock();
    let names = images.store.names()?;
    let named = |id: &Digest| -> Vec<&str> {
        let of = names.iter().filter(|(_, of)| of == id);
        of.map(|(name, _)| name.as_str()).collect()
    };
    let mut rows = Vec::new();
    for record in images.store.readable_records()? {
        let names = match named(&record.id) {
            names if names.is_empty() => vec!["<none>"],
            names => names,
        };
        for name in names {
            rows.push((name.to_owned(), record.clone()));
        }
    }
    if args.quiet {
        let mut ids: Vec<String> = rows.iter().map(|(_, r)| r.id.to_string()).collect();
        ids.dedup();
        for id in ids {
            writeln!(out, "{id}").context("write")?;
        }
        return Ok(());
    }
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    let widest = rows
        .iter()
        .map(|row| row.0.len())
        .max()
        .unwrap_or(0)
        .max(24);
    writeln!(
        out,
        "{:<widest$}  {:<12}  {:>6}  {:>9}",
        "NAME", "ID", "LAYERS", "SIZE"
    )
    .context("write")?;
    for (name, record) in rows {
        let size = format!("{:.1} MB", record.size() as f64 / 1e6);
        let (id, layers) = (&record.id.hex()[..12], record.layers.len());
        writeln!(out, "{name:<widest$}  {id}  {layers:>6}  {size:>9}").context("write")?;
    }
    Ok(())
}

fn remove(images: &Images, args: RemoveArgs) -> Result<()> {
    let mut out = stdout().lock();
    for image in &args.images {
        let before = images.find(image)?;
        let removed = images.remove(image)?;
        if let Some(before) = before {
            told_removed(&before, &removed);
        }
        out.write_all(said_removed(&removed).as_bytes())
            .context("write")?;
    }
    Ok(())
}

/// Tells of an image, with its labels, as Docker does.
pub fn told(action: &str, image: &ImageRecord) {
    let id = image.id.to_string();
    told_as(action, image, (&id, &id));
}

/// Tells of an image by another id than its own, and a name: those by which it
/// was asked for.
pub fn told_as(action: &str, image: &ImageRecord, (id, name): (&str, &str)) {
    let labels = image.config.labels.iter();
    let mut attributes: Vec<(&str, &str)> = labels.map(|(k, v)| (&**k, &**v)).collect();
    // Of two of a name the last one counts.
    attributes.push(("name", name));
    observer::object("image", id, action, &attributes);
}

/// Tells of an image that has just been made, and may be gone already.
///
/// # Errors
/// If its record is damaged.
pub fn told_new(action: &str, images: &Images, id: &Digest) -> Result<()> {
    if let Some(image) = images.store.record(id)? {
        told(action, &image);
    }
    Ok(())
}

/// What `rmi` prints, as Docker does: the names, then the image.
pub fn said_removed(removed: &Removed) -> String {
    match removed {
        Removed::Name(name) => format!("Untagged: {name}\n"),
        Removed::Image(id, names) => {
            let names = names.iter().map(|name| format!("Untagged: {name}\n"));
            names.collect::<String>() + &format!("Deleted: {id}\n")
        }
    }
}

/// Tells of what was removed of an image: a name, or all. Of what is deleted
/// nobody knows the labels any more.
pub fn told_removed(image: &ImageRecord, removed: &Removed) {
    told("untag", image);
    if let Removed::Image(id, _) = removed {
        let id = id.to_string();
        observer::object("image", &id, "delete", &[("name", &id)]);
    }
}

fn refuse_terminal(instead: &str) -> Result<()> {
    if stdin().is_terminal() {
        bail!("standard input is a terminal: {instead}");
    }
    Ok(())
}
