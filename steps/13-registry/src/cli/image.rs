//! `images` and its company.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use engine::cli::image::{said_removed, told_as, told_new, told_removed};
use engine::image::config::{Config, Words};
use engine::image::digest::Digest;
use engine::image::name::Name;
use engine::image::remove::Removed;
use lifecycle::cli::format::{Listing, Row, documents};
use lifecycle::cli::is_sure;
use lifecycle::cli::words::{shortened, since};
use process::Exit;
use union::Kind;

use crate::cli::Here;
use crate::cli::container::to_file;
use crate::cli::transfer::{self, PullArgs, PushArgs, push_ready};
use crate::image::config::{Made, RawConfig};
use crate::image::list::{Filters, Listed, listed};
use crate::image::{archive, change, history, inspect};
use crate::progress::bytes;

/// The commands that deal with images.
#[derive(Subcommand)]
pub enum Tool {
    /// List images
    Images(ListArgs),
    /// Remove one or more images
    Rmi(RemoveArgs),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(TagArgs),
    /// Show the history of an image
    History(HistoryArgs),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(SaveArgs),
    /// Load an image from a tar archive or STDIN
    Load(LoadArgs),
    /// Import the contents from a tarball or directory to create a filesystem
    /// image
    Import(ImportArgs),
}

/// `drydock image …`
#[derive(Subcommand)]
pub enum Group {
    /// List images
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove one or more images
    #[command(alias = "remove")]
    Rm(RemoveArgs),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(TagArgs),
    /// Show the history of an image
    History(HistoryArgs),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(SaveArgs),
    /// Load an image from a tar archive or STDIN
    Load(LoadArgs),
    /// Import the contents from a tarball or directory to create a filesystem
    /// image
    Import(ImportArgs),
    /// Display detailed information on one or more images
    Inspect(InspectArgs),
    /// Remove unused images
    Prune(PruneArgs),
    /// Download an image from a registry
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
}

/// The options of `images`.
#[derive(Args)]
pub struct ListArgs {
    /// Show all images [default: hides intermediate images, of which there are
    /// none here]
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output: dangling, label, reference, before, since, until.
    /// Repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output using a Go template, table or json
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["quiet", "tree"])]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// List images with their layers, and what they share, as a tree
    #[arg(long, conflicts_with = "quiet")]
    tree: bool,
    /// Only this repository, or this image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

/// The options of `rmi`.
#[derive(Args)]
pub struct RemoveArgs {
    /// Force removal of the image: it is no error if there is none
    #[arg(short, long)]
    force: bool,
    /// Names or IDs of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// The options of `tag`.
#[derive(Args)]
pub struct TagArgs {
    /// Name or ID of an image
    source: String,
    /// Its further name
    target: Name,
}

/// The options of `history`.
#[derive(Args)]
pub struct HistoryArgs {
    /// Format output using a Go template, table or json
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(
        short = 'H', long, num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL"
    )]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Name or ID of an image
    image: String,
}

/// The options of `save`.
#[derive(Args)]
pub struct SaveArgs {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names or IDs of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// The options of `load`.
#[derive(Args)]
pub struct LoadArgs {
    /// Read from a file or directory; PATH:TAG selects one of several images
    /// [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    storage_driver: Option<Kind>,
    /// Name of the image [default: the names in the archive]
    name: Option<Name>,
}

/// The options of `import`.
#[derive(Args)]
pub struct ImportArgs {
    /// Apply Dockerfile instruction to the created image. Repeatable
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    message: String,
    /// Default command of the containers, split at spaces
    #[arg(long, value_name = "COMMAND", default_value = "sh")]
    cmd: String,
    /// Set an environment variable of the containers. Repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    storage_driver: Option<Kind>,
    /// Root file system; - is standard input
    #[arg(value_name = "PATH|-")]
    from: PathBuf,
    /// Name of the image
    name: Name,
}

/// The options of `image inspect`.
#[derive(Args)]
pub struct InspectArgs {
    /// Format output using a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names or IDs of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// The options of `image prune`.
#[derive(Args)]
pub struct PruneArgs {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Filter: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE],
    /// dangling=BOOL. Repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Runs one of the commands.
pub(super) fn run(here: &Here, tool: Tool) -> Result<Exit> {
    let group = match tool {
        Tool::Images(args) => Group::Ls(args),
        Tool::Rmi(args) => Group::Rm(args),
        Tool::Tag(args) => Group::Tag(args),
        Tool::History(args) => Group::History(args),
        Tool::Save(args) => Group::Save(args),
        Tool::Load(args) => Group::Load(args),
        Tool::Import(args) => Group::Import(args),
    };
    run_group(here, group)
}

/// Runs one of the commands of `image`.
pub fn run_group(here: &Here, group: Group) -> Result<Exit> {
    match group {
        Group::Ls(args) => list(here, &args),
        Group::Rm(args) => return remove(here, &args),
        Group::Tag(args) => tag(here, &args),
        Group::History(args) => show_history(here, &args),
        Group::Save(args) => save(here, &args),
        Group::Load(args) => load(here, &args),
        Group::Import(args) => import(here, args),
        Group::Inspect(args) => return show(here, &args),
        Group::Prune(args) => prune(here, &args),
        Group::Pull(args) => return transfer::run(here, transfer::Tool::Pull(args)),
        Group::Push(args) => return transfer::run(here, transfer::Tool::Push(args)),
    }?;
    Ok(Exit::Code(0))
}

fn print(text: &str) -> Result<()> {
    stdout().write_all(text.as_bytes()).context("write")
}

/// An ID as it is shown.
fn id_of(id: &Digest, no_trunc: bool) -> String {
    match no_trunc {
        true => id.to_string(),
        false => id.hex()[..12].to_owned(),
    }
}

const LIST: Listing = Listing {
    usual: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    heads: &[
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
    ],
};

const WITH_DIGESTS: Listing = Listing {
    usual: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    heads: LIST.heads,
};

fn list(here: &Here, args: &ListArgs) -> Result<()> {
    let mut filters = args.filter.clone();
    filters.extend(
        args.repository
            .iter()
            .map(|pattern| format!("reference={pattern}")),
    );
    let images = listed(
        &here.images,
        &here.blobs,
        &Filters::parse(&here.images, &filters)?,
    )?;
    if args.tree {
        return tree(here, &images);
    }
    if args.quiet {
        let mut ids: Vec<String> = images
            .iter()
            .map(|one| id_of(&one.record.id, args.no_trunc))
            .collect();
        ids.dedup();
        return print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let rows: Vec<Row> = images.iter().map(|one| row(one, args.no_trunc)).collect();
    let listing = match args.digests {
        true => WITH_DIGESTS,
        false => LIST,
    };
    print(&listing.print(args.format.as_deref(), &rows)?)
}

fn row(one: &Listed, no_trunc: bool) -> Row {
    let created = one.record.created.clone().unwrap_or_default();
    let ago = match created.is_empty() {
        true => "N/A".to_owned(),
        false => format!("{} ago", since(&created)),
    };
    Row {
        cells: BTreeMap::from([
            ("ID", id_of(&one.record.id, no_trunc)),
            ("Repository", one.repository.clone()),
            ("Tag", one.tag.clone()),
            ("Digest", one.digest.clone()),
            ("CreatedSince", ago),
            ("CreatedAt", created),
            ("Size", bytes(one.record.size())),
        ]),
        labels: one.record.config.labels.clone(),
    }
}

/// Images with their layers. A layer that several have is shown with each, and
/// counted once.
fn tree(here: &Here, images: &[Listed]) -> Result<()> {
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for record in here.images.store.readable_records()? {
        for layer in &record.layers {
            *uses.entry(layer.chain.hex().to_owned()).or_default() += 1;
            sizes.insert(layer.chain.hex().to_owned(), layer.size);
        }
    }
    let mut text = String::new();
    for one in images {
        let id = id_of(&one.record.id, false);
        let name = format!("{}:{}", one.repository, one.tag);
        text += &format!("{name}  {id}  {}\n", bytes(one.record.size()));
        let last = one.record.layers.len().saturating_sub(1);
        for (n, layer) in one.record.layers.iter().enumerate() {
            let branch = if n == last { "└─" } else { "├─" };
            let shared = match uses.get(layer.chain.hex()) {
                Some(uses) if *uses > 1 => format!("  (in {uses} images)"),
                _ => String::new(),
            };
            let id = id_of(&layer.chain, false);
            text += &format!("{branch} {id}  {}{shared}\n", bytes(layer.size));
        }
    }
    let all: u64 = sizes.values().sum();
    text += &format!(
        "all layers, each once: {}; as blobs: {}\n",
        bytes(all),
        bytes(here.blobs.space()?)
    );
    print(&text)
}

fn remove(here: &Here, args: &RemoveArgs) -> Result<Exit> {
    let mut failed = false;
    for image in &args.images {
        // What a digest of a registry means, step 09 knows by its ID.
        let reference = match here.by_digest(image)? {
            Some(id) => id.to_string(),
            None => image.clone(),
        };
        let Some(before) = here.images.find(&reference)? else {
            if !args.force {
                kit::errln!("drydock: No such image: {}", kit::say::printable(image));
                failed = true;
            }
            continue;
        };
        let removed = here.images.remove(&reference);
        if let Ok(removed) = &removed {
            told_removed(&before, removed);
        }
        match removed {
            Ok(removed) => print(&said_removed(&removed))?,
            Err(error) => {
                kit::errln!("drydock: {}", kit::say::printable(&format!("{error:#}")));
                failed = true;
            }
        }
    }
    let lock = here.images.store.lock()?;
    here.blobs.collect(&here.images, &lock)?;
    Ok(Exit::Code(u8::from(failed)))
}

fn tag(here: &Here, args: &TagArgs) -> Result<()> {
    let lock = here.images.store.lock()?;
    let record = here.image(&args.source)?;
    here.images.store.name(&args.target, &record.id, &lock)?;
    let (id, name) = (record.id.to_string(), args.target.to_string());
    told_as("tag", &record, (&id, &name));
    Ok(())
}

const HISTORY: Listing = Listing {
    usual: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    heads: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

fn show_history(here: &Here, args: &HistoryArgs) -> Result<()> {
    let record = here.image(&args.image)?;
    let rows = history::rows(&record, &here.images.store.config(&record.id)?)?;
    let id = |id: &str| match (id.strip_prefix("sha256:"), args.no_trunc) {
        (Some(hex), false) => hex[..12].to_owned(),
        _ => id.to_owned(),
    };
    if args.quiet {
        return print(
            &rows
                .iter()
                .map(|row| id(&row.id) + "\n")
                .collect::<String>(),
        );
    }
    let rows: Vec<Row> = rows
        .iter()
        .map(|row| {
            let by = row.created_by.replace('\t', " ");
            let by = match args.no_trunc {
                true => by,
                false => shortened(&by, 45),
            };
            let created = match (row.created.is_empty(), args.human) {
                (true, _) => "N/A".to_owned(),
                (false, true) => format!("{} ago", since(&row.created)),
                (false, false) => row.created.clone(),
            };
            let size = match args.human {
                true => bytes(row.size),
                false => row.size.to_string(),
            };
            Row {
                cells: BTreeMap::from([
                    ("ID", id(&row.id)),
                    ("CreatedSince", created),
                    ("CreatedAt", row.created.clone()),
                    ("CreatedBy", kit::say::printable(&by)),
                    ("Size", size),
                    ("Comment", kit::say::printable(&row.comment)),
                ]),
                labels: BTreeMap::new(),
            }
        })
        .collect();
    print(&HISTORY.print(args.format.as_deref(), &rows)?)
}

fn save(here: &Here, args: &SaveArgs) -> Result<()> {
    let mut images: Vec<(Digest, Vec<Name>)> = Vec::new();
    for reference in &args.images {
        let record = here.image(reference)?;
        push_ready(here, &record)?;
        let named = here.images.store.names()?.into_iter();
        let mut names: Vec<Name> = named
            .filter(|(_, id)| *id == record.id)
            .map(|(name, _)| name)
            .collect();
        // Docker gives an image that is asked for by a name this name only, and
        // one that is asked for by its ID none.
        let given: Option<Name> = reference.parse().ok();
        names.retain(|name| {
            given
                .as_ref()
                .is_some_and(|given| name == given || name.ends_with(given))
        });
        match images.iter_mut().find(|(id, _)| *id == record.id) {
            Some((_, known)) => known.extend(names),
            None => images.push((record.id, names)),
        }
    }
    to_file(args.output.as_deref(), &mut |to| {
        archive::save(&here.blobs, &images, to)
    })?;
    for (id, _) in &images {
        told_new("save", &here.images, id)?;
    }
    Ok(())
}

fn load(here: &Here, args: &LoadArgs) -> Result<()> {
    let kind = here.kind(args.storage_driver)?;
    let input = args.input.as_deref().filter(|path| *path != Path::new("-"));
    if input.is_none() {
        ensure!(
            !stdin().is_terminal(),
            "requested load from stdin, but stdin is empty: drydock load -i FILE"
        );
    }
    let loader = here.images.loader();
    let loaded = loader.load_seen(input, args.name.as_ref(), kind, &mut |parts, _| {
        here.blobs.adopt(parts, loader.room()?)
    })?;
    for (id, names) in loaded {
        told_new("load", &here.images, &id)?;
        match &names[..] {
            [] => print(&format!("Loaded image ID: {id}\n"))?,
            names => {
                for name in names {
                    print(&format!("Loaded image: {name}\n"))?;
                }
            }
        }
    }
    Ok(())
}

fn import(here: &Here, args: ImportArgs) -> Result<()> {
    let kind = here.kind(args.storage_driver)?;
    let from = (args.from != Path::new("-")).then_some(&*args.from);
    if from.is_none() {
        ensure!(
            !stdin().is_terminal(),
            "standard input is a terminal: drydock import FILE NAME"
        );
    }
    let config = Config {
        cmd: Some(Words(
            args.cmd.split_whitespace().map(str::to_owned).collect(),
        )),
        env: args.env,
        ..Config::default()
    };
    let loader = here.images.loader();
    let from_where = match from {
        Some(path) => path.display().to_string(),
        None => "-".to_owned(),
    };
    let made = Made {
        comment: match args.message.is_empty() {
            true => format!("Imported from {from_where}"),
            false => args.message.clone(),
        },
        ..Made::default()
    };
    // The ID is the digest of the configuration: everything goes into it before
    // the image is kept.
    let id = loader.import_seen(from, &args.name, config, kind, &mut |parts, _| {
        let mut raw = RawConfig::parse(&parts.config)?;
        raw.note(&made, &kit::time::now())?;
        for change in &args.change {
            change::apply(&mut raw, change).context("--change")?;
        }
        parts.config = raw.to_vec()?;
        here.blobs.adopt(parts, loader.room()?)
    })?;
    told_new("import", &here.images, &id)?;
    print(&format!("{id}\n"))
}

fn show(here: &Here, args: &InspectArgs) -> Result<Exit> {
    let mut failed = false;
    let mut found = Vec::new();
    for image in &args.images {
        match here.find(image)? {
            Some(record) => found.push(inspect::document(&here.images, &here.blobs, &record)?),
            None => {
                kit::errln!("drydock: No such image: {}", kit::say::printable(image));
                failed = true;
            }
        }
    }
    print(&documents(args.format.as_deref(), &found)?)?;
    Ok(Exit::Code(u8::from(failed)))
}

fn prune(here: &Here, args: &PruneArgs) -> Result<()> {
    let (all, filters) = wanted(here, args.all, &args.filter)?;
    if !args.force {
        let what = match all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        if !is_sure(&format!("WARNING! This will remove {what}."))? {
            return Ok(());
        }
    }
    let (removed, freed) = prune_those(here, all, &filters)?;
    if !removed.is_empty() {
        print(&format!("Deleted Images:\n{}\n\n", removed.join("\n")))?;
    }
    print(&format!("Total reclaimed space: {}\n", bytes(freed)))
}

/// What `image prune` is to remove: whether images with names, too, and which.
fn wanted(here: &Here, all: bool, given: &[String]) -> Result<(bool, Filters)> {
    let known = ["until", "label", "label!", "dangling"];
    for filter in given {
        let name = filter.split_once('=').map_or(&**filter, |(name, _)| name);
        ensure!(known.contains(&name), "invalid filter '{name}'");
    }
    let mut filters = Filters::parse(&here.images, given)?;
    // As in Docker, dangling=false is another word for --all.
    let all = all || filters.dangling == Some(false);
    filters.dangling = None;
    Ok((all, filters))
}

/// Removes the images that no container uses, with `all` also those with a name.
/// Returns what was removed, as Docker lists it, and the bytes that are free now.
pub(super) fn prune_unused(
    here: &Here,
    all: bool,
    filters: &[String],
) -> Result<(Vec<String>, u64)> {
    let (all, filters) = wanted(here, all, filters)?;
    prune_those(here, all, &filters)
}

fn prune_those(here: &Here, all: bool, filters: &Filters) -> Result<(Vec<String>, u64)> {
    let before = space(here)?;
    let mut removed = Vec::new();
    let mut seen = Vec::new();
    for one in listed(&here.images, &here.blobs, filters)? {
        let id = one.record.id.clone();
        if !all && one.tag != "<none>" || seen.contains(&id) {
            continue;
        }
        seen.push(id.clone());
        // One that a container uses stays, and says so.
        match here.images.remove(&id.to_string()) {
            Ok(gone) => {
                told_removed(&one.record, &gone);
                if let Removed::Image(_, names) = &gone {
                    removed.extend(names.iter().map(|name| format!("untagged: {name}")));
                }
                removed.push(format!("deleted: {id}"));
            }
            Err(error) => kit::say!("{error:#}"),
        }
    }
    let lock = here.images.store.lock()?;
    here.blobs.collect(&here.images, &lock)?;
    drop(lock);
    Ok((removed, before.saturating_sub(space(here)?)))
}

/// The bytes of all layers and blobs.
fn space(here: &Here) -> Result<u64> {
    let mut bytes = here.blobs.space()?;
    let mut seen = Vec::new();
    for record in here.images.store.readable_records()? {
        for layer in record.layers {
            if !seen.contains(&layer.chain) {
                bytes += layer.size;
                seen.push(layer.chain);
            }
        }
    }
    Ok(bytes)
}
