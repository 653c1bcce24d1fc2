//! `container prune`, `system prune` and `df`, `info`, `version`, and the commands
//! that are grouped by what they are about.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use engine::cli::image::{self as image_tool, ImageTool};
use engine::cli::places::Places;
use engine::container::{Record, Records, Status};
use engine::image::Images;
use engine::image::config::architecture;
use engine::volume::Volumes;
use nix::sys::utsname::uname;
use process::{Exit, LAUNCHER_FAILED};
use serde::Serialize;
use union::tree::Tree;
use union::tree::size::size;

use crate::cli::control;
use crate::cli::copy::{self, CopyArgs};
use crate::cli::filter::Filters;
use crate::cli::format::{Listing, Row, documents};
use crate::cli::join;
use crate::cli::look;
use crate::cli::network;
use crate::cli::run::{self, claim};
use crate::cli::stats::{self, StatsArgs};
use crate::cli::words::{binary, decimal, shortened, since, table};
use crate::cli::{is_paused, is_sure, swept};
use crate::events::tell_all;
use crate::inspect::{created, sizes_of, status};
use crate::log::point_in_time;

/// `container …`: the commands about containers.
#[derive(Subcommand)]
pub enum ContainerTool {
    /// Those that start.
    #[command(flatten)]
    Run(run::Tool),
    /// All others.
    #[command(flatten)]
    Other(ContainerOther),
}

/// The commands about containers that a later step has, too, as they are.
#[derive(Subcommand)]
pub enum ContainerOther {
    /// Those that change.
    #[command(flatten)]
    Control(control::Tool),
    /// Those that join.
    #[command(flatten)]
    Join(join::Tool),
    /// Those that look.
    #[command(flatten)]
    Look(look::Tool),
    /// Copy files/folders between a container and the local filesystem
    Cp(CopyArgs),
    /// Display a live stream of container(s) resource usage statistics
    Stats(StatsArgs),
    /// List containers
    #[command(visible_alias = "list", disable_help_flag = true)]
    Ls(Words),
    /// Remove all stopped containers
    Prune(PruneArgs),
}

/// `image …`: the commands about images.
#[derive(Subcommand)]
pub enum ImageGroup {
    /// Those without a group.
    #[command(flatten)]
    Tool(ImageTool),
    /// List images
    #[command(visible_alias = "list", disable_help_flag = true)]
    Ls(Words),
    /// Remove one or more images
    #[command(disable_help_flag = true)]
    Rm(Words),
}

/// `system …`: what the engine takes and is.
#[derive(Subcommand)]
pub enum SystemTool {
    /// Show disk usage
    Df(DfArgs),
    /// Get real time events of containers
    Events(crate::cli::events::EventsArgs),
    /// Display system-wide information
    Info(InfoArgs),
    /// Remove unused data
    Prune(SystemPruneArgs),
}

/// The words of a command that has another name as well.
#[derive(Args, Clone, Debug)]
pub struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

impl Words {
    /// Reads them as those of `command`.
    fn of<T: Subcommand>(self, command: &str) -> T {
        /// A program whose commands are those of `T`.
        #[derive(Parser)]
        #[command(name = "drydock", bin_name = "drydock")]
        struct Whole<T: Subcommand> {
            #[command(subcommand)]
            command: T,
        }
        let before = [OsString::from("drydock"), command.into()];
        Whole::parse_from(before.into_iter().chain(self.words)).command
    }
}

/// The options of `container prune`.
#[derive(Args, Clone, Debug)]
pub struct PruneArgs {
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Only containers that fit: until=TIME, label=NAME[=VALUE],
    /// label!=NAME[=VALUE]. Repeatable
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

/// The options of `system prune`.
#[derive(Args, Clone, Debug)]
pub struct SystemPruneArgs {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
    /// Only what fits: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE].
    /// Repeatable
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

/// The options of `system df`.
#[derive(Args, Clone, Debug)]
pub struct DfArgs {
    /// Show detailed information on space usage
    #[arg(short = 'v', conflicts_with = "format")]
    detailed: bool,
    /// Format output: table, 'table TEMPLATE', json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The options of `info` and `version`.
#[derive(Args, Clone, Debug)]
pub struct InfoArgs {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl ContainerOther {
    /// The exit status of an error, as that of the command without a group.
    pub fn failed(&self) -> u8 {
        match self {
            ContainerOther::Join(join::Tool::Exec(_)) => LAUNCHER_FAILED,
            _ => 1,
        }
    }

    /// Runs the command.
    pub fn run(self, places: &Places) -> Result<Exit> {
        match self {
            ContainerOther::Control(tool) => control::run(places, tool),
            ContainerOther::Join(tool) => join::run(places, tool),
            ContainerOther::Look(tool) => look::run(places, tool),
            ContainerOther::Cp(args) => copy::run(places, &args),
            ContainerOther::Stats(args) => stats::run(places, &args),
            ContainerOther::Ls(words) => look::run(places, words.of("ps")),
            ContainerOther::Prune(args) => prune(places, &args),
        }
    }
}

/// Runs a command about images.
pub(super) fn image(places: &Places, tool: ImageGroup) -> Result<Exit> {
    match tool {
        ImageGroup::Tool(tool) => image_tool::run(places, tool),
        ImageGroup::Ls(words) => image_tool::run(places, words.of("images")),
        ImageGroup::Rm(words) => image_tool::run(places, words.of("rmi")),
    }
}

/// Runs a command about the engine.
pub(super) fn system(places: &Places, tool: SystemTool) -> Result<Exit> {
    match tool {
        SystemTool::Df(args) => df(places, &args, &()),
        SystemTool::Events(args) => crate::cli::events::run(places, &args),
        SystemTool::Info(args) => info(places, &args),
        SystemTool::Prune(args) => prune_all(places, &args, &()),
    }
}

/// Whether a container that has ended is to go.
fn is_pruned(record: &Record, filters: &Filters, until: Option<SystemTime>) -> bool {
    let labels = &record.spec.labels;
    let is_old = until.is_none_or(|until| {
        humantime::parse_rfc3339(created(record)).is_ok_and(|created| created < until)
    });
    let has = |wanted: &str| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|there| there == value),
        None => labels.contains_key(wanted),
    };
    !record.is_running()
        && is_old
        && filters.labels(labels)
        && !filters.values("label!").iter().any(|label| has(label))
}

fn prune(places: &Places, args: &PruneArgs) -> Result<Exit> {
    // `label!=a` divides at its first `=`, after which the key is `label!`.
    let filters = Filters::new(&args.filter, &["until", "label", "label!"])?;
    let until = filters.values("until").last();
    let until = until
        .map(|text| point_in_time(text).context("--filter until"))
        .transpose()?;
    if !args.force && !is_sure("WARNING! This will remove all stopped containers.")? {
        return Ok(Exit::Code(0));
    }
    let mut pruned = Pruned::default();
    let failed = prune_containers(places, &filters, until, &mut pruned)?;
    pruned.show()?;
    Ok(Exit::Code(u8::from(failed)))
}

/// Removes the containers that have ended and fit. Returns whether one could not
/// be removed.
fn prune_containers(
    places: &Places,
    filters: &Filters,
    until: Option<SystemTime>,
    pruned: &mut Pruned,
) -> Result<bool> {
    let records = swept(places)?;
    let (mut removed, mut bytes, mut failed) = (Vec::new(), 0, false);
    for record in records.all()? {
        if !is_pruned(&record, filters, until) {
            continue;
        }
        match remove(places, &records, &record) {
            Ok(Some(size)) => {
                removed.push(record.spec.id);
                bytes += size;
            }
            Ok(None) => {}
            Err(error) => {
                kit::errln!("drydock: {}", kit::say::printable(&format!("{error:#}")));
                failed = true;
            }
        }
    }
    tell_all(places, "prune", &[("reclaimed", &bytes.to_string())]);
    pruned.add("Deleted Containers:", removed, bytes);
    Ok(failed)
}

/// Removes anonymous volumes that no container has. A volume has no labels.
fn prune_volumes(places: &Places, filters: &Filters, pruned: &mut Pruned) -> Result<()> {
    if !filters.values("label").is_empty() {
        return Ok(());
    }
    let records = swept(places)?.all()?;
    let volumes = Volumes::new(&places.root);
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in volumes.all()? {
        let is_used = |record: &Record| record.spec.volumes().any(|one| one.name == volume.name);
        if !volume.anonymous || records.iter().any(is_used) {
            continue;
        }
        let takes = Tree::open(&volume.mountpoint).and_then(|tree| size(&tree))?;
        // One that a container takes at this moment stays.
        if volumes.remove(&volume.name)? {
            removed.push(volume.name);
            bytes += takes;
        }
    }
    pruned.add("Deleted Volumes:", removed, bytes);
    Ok(())
}

/// `system prune`. `besides` is what a later step keeps.
pub fn prune_all(places: &Places, args: &SystemPruneArgs, besides: &dyn Besides) -> Result<Exit> {
    let filters = Filters::new(&args.filter, &["until", "label", "label!"])?;
    let until = filters.values("until").last();
    let until = until
        .map(|text| point_in_time(text).context("--filter until"))
        .transpose()?;
    ensure!(
        !args.volumes || until.is_none(),
        "ERROR: The \"until\" filter is not supported with \"--volumes\""
    );
    if !args.force {
        let mut question = String::from("WARNING! This will remove:\n");
        let mut what = vec![
            "all stopped containers",
            "all networks not used by at least one container",
        ];
        if args.volumes {
            what.push("all anonymous volumes not used by at least one container");
        }
        what.extend(besides.prunes(args.all));
        for what in what {
            question += &format!("  - {what}\n");
        }
        if !args.filter.is_empty() {
            question += "\n  Items to be pruned will be filtered with:\n";
            let mut filters = args.filter.clone();
            filters.sort();
            for filter in filters {
                question += &format!("  - {}\n", kit::say::printable(&filter));
            }
        }
        if !is_sure(&question)? {
            return Ok(Exit::Code(0));
        }
    }
    let mut pruned = Pruned::default();
    let failed = prune_containers(places, &filters, until, &mut pruned)?;
    // Those of the containers that are gone are free now.
    let networks = network::prune(places, &args.filter)?;
    pruned.add("Deleted Networks:", networks, 0);
    if args.volumes {
        prune_volumes(places, &filters, &mut pruned)?;
    }
    besides.prune(args.all, &args.filter, until, &mut pruned)?;
    pruned.show()?;
    Ok(Exit::Code(u8::from(failed)))
}

/// What a `prune` has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    lists: Vec<(&'static str, Vec<String>)>,
    bytes: u64,
}

impl Pruned {
    /// Adds a list below a title, and the bytes that its objects took.
    pub fn add(&mut self, title: &'static str, objects: Vec<String>, bytes: u64) {
        self.bytes += bytes;
        if !objects.is_empty() {
            self.lists.push((title, objects));
        }
    }

    /// Prints the lists, and how many bytes there are more now.
    fn show(&self) -> Result<()> {
        for (title, objects) in &self.lists {
            kit::outln!("{title}")?;
            for object in objects {
                kit::outln!("{object}")?;
            }
            kit::outln!()?;
        }
        kit::outln!("Total reclaimed space: {}", decimal(self.bytes as f64, 4))
    }
}

/// Removes a container, unless it has been started meanwhile. Returns how many
/// bytes it took.
fn remove(places: &Places, records: &Records, record: &Record) -> Result<Option<u64>> {
    let _claim = claim(records, record)?;
    let Some(record) = records.read(&record.spec.id)? else {
        return Ok(None);
    };
    if record.is_running() {
        return Ok(None);
    }
    let (size, _) = sizes_of(places, &record)?;
    records.remove(&record)?;
    Ok(Some(size))
}

/// What an image takes.
struct ImageSize {
    name: String,
    id: String,
    created: String,
    /// Its layers and their sizes.
    layers: BTreeMap<String, u64>,
    containers: usize,
}

/// What a volume takes.
struct VolumeSize {
    name: String,
    links: usize,
    bytes: u64,
}

/// What images take besides their layers: a later step keeps more of them.
pub trait Besides {
    /// The bytes of everything, garbage too.
    fn all(&self) -> Result<u64>;
    /// The bytes that the images of these IDs need.
    fn of(&self, ids: &[&str]) -> Result<u64>;
    /// What builds keep.
    fn cached(&self) -> Result<Cached> {
        Ok(Cached::default())
    }
    /// What `system prune` removes of it, as its question says; with `--all`,
    /// more.
    fn prunes(&self, _all: bool) -> Vec<&'static str> {
        Vec::new()
    }
    /// Removes what nothing uses that fits the filters: images, and what builds
    /// keep. `until` is the point in time of the filter of that name.
    fn prune(
        &self,
        _all: bool,
        _filters: &[String],
        _until: Option<SystemTime>,
        _pruned: &mut Pruned,
    ) -> Result<()> {
        Ok(())
    }
}

/// What builds keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// The number of records.
    pub count: usize,
    /// Of those whose layer an image has, too.
    pub active: usize,
    /// The bytes of all others.
    pub bytes: u64,
    /// The bytes that removing it would free.
    pub free: u64,
}

/// Nothing else is kept.
impl Besides for () {
    fn all(&self) -> Result<u64> {
        Ok(0)
    }

    fn of(&self, _ids: &[&str]) -> Result<u64> {
        Ok(0)
    }
}

/// What everything takes.
struct Sizes {
    images: Vec<ImageSize>,
    /// The bytes besides the layers: of all images, and of those in use.
    besides: (u64, u64),
    containers: Vec<(Record, u64)>,
    volumes: Vec<VolumeSize>,
    cached: Cached,
}

impl Sizes {
    fn look(places: &Places, besides: &dyn Besides) -> Result<Self> {
        let records = swept(places)?.all()?;
        let store = Images::open(&places.root)?.store;
        let names = store.names()?;
        let mut images = Vec::new();
        for image in store.readable_records()? {
            let id = image.id.to_string();
            let name = names.iter().find(|(_, of)| *of == image.id);
            images.push(ImageSize {
                name: name.map_or("<none>:<none>".into(), |(name, _)| name.as_str().to_owned()),
                created: image.created.clone().unwrap_or_default(),
                layers: image
                    .layers
                    .iter()
                    .map(|layer| (layer.chain.hex().to_owned(), layer.size))
                    .collect(),
                containers: records
                    .iter()
                    .filter(|record| record.spec.image_id == id)
                    .count(),
                id,
            });
        }
        let used = images.iter().filter(|image| image.containers > 0);
        let used: Vec<&str> = used.map(|image| &*image.id).collect();
        let cached = besides.cached()?;
        let besides = (besides.all()?, besides.of(&used)?);
        let mut containers = Vec::new();
        for record in records {
            let (own, _) = sizes_of(places, &record)?;
            containers.push((record, own));
        }
        let all = Volumes::new(&places.root);
        let mut volumes = Vec::new();
        for volume in all.all()? {
            let links = containers
                .iter()
                .filter(|(record, _)| record.spec.volumes().any(|used| used.name == volume.name))
                .count();
            // Files of other users may be closed to this one.
            let bytes = match Tree::open(&volume.mountpoint).and_then(|tree| size(&tree)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    kit::warn!("the size of the volume {}: {error:#}", volume.name);
                    0
                }
            };
            volumes.push(VolumeSize {
                name: volume.name,
                links,
                bytes,
            });
        }
        Ok(Sizes {
            images,
            besides,
            containers,
            volumes,
            cached,
        })
    }

    /// The bytes of images: of all, or of those in use.
    fn of_images(&self, used_only: bool) -> u64 {
        let mut layers = BTreeMap::new();
        for image in &self.images {
            if !used_only || image.containers > 0 {
                layers.extend(image.layers.iter());
            }
        }
        let besides = match used_only {
            true => self.besides.1,
            false => self.besides.0,
        };
        layers.into_values().sum::<u64>() + besides
    }
}

const DF: Listing = Listing {
    usual: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    heads: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

/// Shows what images, containers and volumes take.
pub fn df(places: &Places, args: &DfArgs, besides: &dyn Besides) -> Result<Exit> {
    let sizes = Sizes::look(places, besides)?;
    // `--verbose` is an option of every command.
    let text = match args.detailed || kit::say::verbose() {
        true => df_verbose(&sizes),
        false => DF.print(args.format.as_deref(), &df_rows(&sizes))?,
    };
    kit::out!("{text}")?;
    Ok(Exit::Code(0))
}

fn df_rows(sizes: &Sizes) -> Vec<Row> {
    let row = |kind: &str, total: usize, active: usize, bytes: u64, free: u64| {
        let free = match bytes {
            0 => decimal(free as f64, 4),
            bytes => format!("{} ({}%)", decimal(free as f64, 4), free * 100 / bytes),
        };
        Row {
            cells: BTreeMap::from([
                ("Type", kind.to_owned()),
                ("TotalCount", total.to_string()),
                ("Active", active.to_string()),
                ("Size", decimal(bytes as f64, 4)),
                ("Reclaimable", free),
            ]),
            labels: BTreeMap::new(),
        }
    };
    let images = sizes.of_images(false);
    let runs = |record: &Record| record.is_running();
    let own = |all: bool| -> u64 {
        let counted = sizes.containers.iter();
        counted
            .filter(|(record, _)| all || !runs(record))
            .map(|(_, own)| own)
            .sum()
    };
    let volumes = |all: bool| -> u64 {
        let counted = sizes.volumes.iter();
        counted
            .filter(|volume| all || volume.links == 0)
            .map(|volume| volume.bytes)
            .sum()
    };
    vec![
        row(
            "Images",
            sizes.images.len(),
            sizes.images.iter().filter(|i| i.containers > 0).count(),
            images,
            images.saturating_sub(sizes.of_images(true)),
        ),
        row(
            "Containers",
            sizes.containers.len(),
            sizes.containers.iter().filter(|(r, _)| runs(r)).count(),
            own(true),
            own(false),
        ),
        row(
            "Local Volumes",
            sizes.volumes.len(),
            sizes.volumes.iter().filter(|v| v.links > 0).count(),
            volumes(true),
            volumes(false),
        ),
        row(
            "Build Cache",
            sizes.cached.count,
            sizes.cached.active,
            sizes.cached.bytes,
            sizes.cached.free,
        ),
    ]
}

fn head(cells: &[&str]) -> Vec<Vec<String>> {
    vec![cells.iter().map(|cell| (*cell).to_owned()).collect()]
}

fn df_verbose(sizes: &Sizes) -> String {
    let size = |bytes: u64| decimal(bytes as f64, 4);
    let mut images = head(&[
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    ]);
    for image in &sizes.images {
        let (repository, tag) = image.name.rsplit_once(':').unwrap_or((&image.name, ""));
        let others: BTreeSet<&String> = sizes
            .images
            .iter()
            .filter(|other| other.id != image.id)
            .flat_map(|other| other.layers.keys())
            .collect();
        let total: u64 = image.layers.values().sum();
        let shared: u64 = image
            .layers
            .iter()
            .filter(|(layer, _)| others.contains(layer))
            .map(|(_, bytes)| bytes)
            .sum();
        let id = image.id.trim_start_matches("sha256:");
        images.push(vec![
            repository.to_owned(),
            tag.to_owned(),
            id.get(..12).unwrap_or(id).to_owned(),
            format!("{} ago", since(&image.created)),
            decimal(total as f64, 3),
            size(shared),
            size(total - shared),
            image.containers.to_string(),
        ]);
    }
    let mut containers = head(&[
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "LOCAL VOLUMES",
        "SIZE",
        "CREATED",
        "STATUS",
        "NAMES",
    ]);
    for (record, own) in &sizes.containers {
        let command = record.spec.command.join(OsStr::new(" "));
        let command = command.to_string_lossy().escape_default().to_string();
        containers.push(vec![
            record.short_id().to_owned(),
            record.spec.image.clone(),
            format!("\"{}\"", shortened(&command, 20)),
            record.spec.volumes().count().to_string(),
            size(*own),
            format!("{} ago", since(created(record))),
            status(record).to_owned(),
            record.spec.name.clone(),
        ]);
    }
    let mut volumes = head(&["VOLUME NAME", "LINKS", "SIZE"]);
    for volume in &sizes.volumes {
        volumes.push(vec![
            volume.name.clone(),
            volume.links.to_string(),
            size(volume.bytes),
        ]);
    }
    let besides = match sizes.besides.0 {
        0 => String::new(),
        bytes => format!("\nCompressed layers and manifests: {}\n", size(bytes)),
    };
    format!(
        "Images space usage:\n\n{}{besides}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n",
        table(&images),
        table(&containers),
        table(&volumes),
        size(sizes.cached.bytes)
    )
}

/// What `info` shows, in the names of Docker's API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    containers: usize,
    containers_running: usize,
    containers_paused: usize,
    containers_stopped: usize,
    images: usize,
    driver: String,
    logging_driver: &'static str,
    cgroup_driver: &'static str,
    cgroup_version: &'static str,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: String,
    #[serde(rename = "NCPU")]
    ncpu: usize,
    mem_total: u64,
    name: String,
    docker_root_dir: String,
    server_version: &'static str,
}

/// The version of this engine.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shows what the engine is, and on what machine.
pub(super) fn info(places: &Places, args: &InfoArgs) -> Result<Exit> {
    let records = swept(places)?.all()?;
    let machine = uname().context("uname")?;
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    let paused = records.iter().filter(|record| is_paused(record)).count();
    let running = records.iter().filter(|record| record.is_running()).count();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("Linux".to_owned(), |name| name.trim_matches('"').to_owned());
    let v1 = std::fs::read_to_string("/proc/self/cgroup")
        .unwrap_or_default()
        .lines()
        .any(|line| !line.starts_with("0::") && !line.contains(":name="));
    let info = Info {
        containers: records.len(),
        containers_running: running - paused,
        containers_paused: paused,
        containers_stopped: records
            .iter()
            .filter(|record| record.status == Status::Created || !record.is_running())
            .count(),
        images: Images::open(&places.root)?.store.records()?.len(),
        driver: match union::detect::preferred(&places.root) {
            Ok(kind) => kind.to_string(),
            Err(error) => {
                kit::warn!("{error:#}");
                String::new()
            }
        },
        logging_driver: "json-file",
        cgroup_driver: "cgroupfs",
        cgroup_version: if v1 { "1" } else { "2" },
        kernel_version: text(machine.release()),
        operating_system: system,
        os_type: "linux",
        architecture: text(machine.machine()),
        ncpu: std::thread::available_parallelism().map_or(1, usize::from),
        mem_total: stats::of_machine()?,
        name: text(machine.nodename()),
        docker_root_dir: places.root.display().to_string(),
        server_version: VERSION,
    };
    if let Some(format) = &args.format {
        match &**format {
            "json" | "{{json .}}" => {
                kit::outln!("{}", serde_json::to_string(&info).context("write JSON")?)?;
            }
            template => kit::out!("{}", documents(Some(template), &[info])?)?,
        }
        return Ok(Exit::Code(0));
    }
    for (name, value) in [
        ("Containers", info.containers.to_string()),
        (" Running", info.containers_running.to_string()),
        (" Paused", info.containers_paused.to_string()),
        (" Stopped", info.containers_stopped.to_string()),
        ("Images", info.images.to_string()),
        ("Server Version", info.server_version.to_owned()),
        ("Storage Driver", info.driver),
        ("Logging Driver", info.logging_driver.to_owned()),
        ("Cgroup Driver", info.cgroup_driver.to_owned()),
        ("Cgroup Version", info.cgroup_version.to_owned()),
        ("Kernel Version", info.kernel_version),
        ("Operating System", info.operating_system),
        ("OSType", info.os_type.to_owned()),
        ("Architecture", info.architecture),
        ("CPUs", info.ncpu.to_string()),
        ("Total Memory", binary(info.mem_total as f64)),
        ("Name", info.name),
        ("Docker Root Dir", info.docker_root_dir),
    ] {
        kit::outln!("{}: {}", name, kit::say::printable(&value))?;
    }
    Ok(Exit::Code(0))
}

/// What `version` shows.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    client: Part,
}

/// A program and its version.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    kernel_version: String,
}

/// Shows the version. There is no server.
pub(super) fn version(args: &InfoArgs) -> Result<Exit> {
    let machine = uname().context("uname")?;
    let version = Version {
        client: Part {
            version: VERSION,
            os: "linux",
            arch: architecture(),
            kernel_version: machine.release().to_string_lossy().into_owned(),
        },
    };
    match args.format.as_deref() {
        Some("json" | "{{json .}}") => {
            kit::outln!("{}", serde_json::to_string(&version).context("write JSON")?)?;
        }
        Some(template) => kit::out!("{}", documents(Some(template), &[version])?)?,
        None => kit::outln!(
            "Client:\n Version:           {}\n OS/Arch:           {}/{}\n Kernel:            {}",
            version.client.version,
            version.client.os,
            version.client.arch,
            version.client.kernel_version
        )?,
    }
    Ok(Exit::Code(0))
}
