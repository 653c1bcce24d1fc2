//! `build`.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::stdin;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Error, Result, bail, ensure};
use cgroups::{Bytes, IdList, Swap};
use clap::Args;
use engine::cli::options::RunArgs;
use engine::cli::places::Places;
use engine::command::ulimit::Ulimit;
use engine::image::digest::Digest;
use engine::image::name::Name;
use kit::SignalSet;
use kit::sys::signals::{block, read_signal, signalfd};
use lifecycle::cli::swept;
use lifecycle::config::Config;
use net::HostEntry;
use nix::sys::signal::Signal;
use process::{Exit, Failure};
use registry::blobs::BlobStore;
use registry::cli::Here;
use registry::cli::container::to_file;
use registry::cli::run::Policy;
use registry::image::archive::whole;
use registry::manifest::Platform;
use union::archive::Marks;
use union::archive::apply::apply;
use union::tree::Tree;
use union::{Kind, detect};

use crate::build::ask::Workers;
use crate::build::error::{Lines, words};
use crate::build::image::Image;
use crate::build::options::{Network, Options, SecretSource};
use crate::build::shared::Build;
use crate::build::stage;
use crate::build::why::Why;
use crate::cli::check;
use crate::context::Context;
use crate::dockerfile;
use crate::dockerfile::instruction::Dockerfile;
use crate::progress::{Display, Ended, Failed, How, Reporter, safe};

/// The options of `build`.
#[derive(Args)]
pub struct BuildArgs {
    /// Name and optionally a tag (format: name:tag). Repeatable
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Name>,
    /// Name of the Dockerfile [default: PATH/Dockerfile]; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<OsString>,
    /// Set the target build stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set build-time variables; without =VALUE, to the caller's value. Repeatable
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Set metadata for an image. Repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Do not cache specified stages. Repeatable
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Images to consider as cache sources. Repeatable
    #[arg(long, value_name = "IMAGE")]
    cache_from: Vec<String>,
    /// Always attempt to pull all referenced images
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pull: bool,
    /// Set target platform for build
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Check the Dockerfile, and build nothing
    #[arg(long)]
    check: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Output destination: DIR, -, type=local,dest=DIR or type=tar,dest=FILE
    #[arg(short, long, value_name = "DEST")]
    output: Option<String>,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write build result metadata to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Set type of progress output
    #[arg(long, value_enum, value_name = "TYPE", default_value = "auto")]
    progress: How,
    /// Set the networking mode for the "RUN" instructions during build
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Secret to expose to the build: id=ID[,src=FILE|,env=VARIABLE]. Repeatable
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Add a custom host-to-IP mapping (format: "host:ip"). Repeatable
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<HostEntry>,
    /// Shared memory size for build containers
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<Bytes>,
    /// Ulimit options. Repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<Swap>,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<IdList>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<IdList>,
    /// Set the parent cgroup for the "RUN" instructions during build
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<PathBuf>,
    /// Speak plain HTTP, or TLS without certificates, with this registry.
    /// Repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    storage_driver: Option<Kind>,
    /// Remove intermediate containers: there are none here
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    /// Always remove intermediate containers: there are none here
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_rm: Option<bool>,
    /// Load the result: it always is
    #[arg(long, hide = true)]
    load: bool,
    /// The context: a directory, or - for an archive or a Dockerfile on standard
    /// input
    #[arg(value_name = "PATH|-")]
    context: OsString,
}

impl BuildArgs {
    fn options(&self) -> Result<Options> {
        let mut build_args = BTreeMap::new();
        for text in &self.build_arg {
            match text.split_once('=') {
                Some((name, value)) => {
                    build_args.insert(name.to_owned(), value.to_owned());
                }
                None => {
                    if let Ok(value) = env::var(text) {
                        build_args.insert(text.clone(), value);
                    }
                }
            }
        }
        let labels = self.label.iter().map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            (name.to_owned(), value.to_owned())
        });
        let mut secrets = BTreeMap::new();
        for text in &self.secret {
            let (id, source) = secret(text).with_context(|| format!("--secret {text}"))?;
            secrets.insert(id, source);
        }
        let epoch = match build_args.get("SOURCE_DATE_EPOCH").cloned() {
            Some(epoch) => Some(epoch),
            None => env::var("SOURCE_DATE_EPOCH").ok(),
        };
        let epoch = epoch.filter(|epoch| !epoch.is_empty()).map(|epoch| {
            let seconds = epoch.parse().ok();
            seconds
                .filter(|seconds| (0..=253_402_300_799).contains(seconds))
                .with_context(|| {
                    format!("invalid SOURCE_DATE_EPOCH: {epoch:?}: give seconds since 1970")
                })
        });
        Ok(Options {
            tags: self.tag.clone(),
            target: self.target.clone().filter(|target| !target.is_empty()),
            build_args,
            labels: labels.collect(),
            no_cache: self.no_cache,
            no_cache_filter: self.no_cache_filter.clone(),
            cache_from: self.cache_from.clone(),
            pull: match self.pull {
                true => Policy::Always,
                false => Policy::Missing,
            },
            platform: self.platform.clone(),
            insecure: self.insecure_registry.clone(),
            network: Network::of(&self.network).with_context(|| {
                format!("network mode {:?} not supported by buildkit", self.network)
            })?,
            secrets,
            epoch: epoch.transpose()?,
        })
    }

    /// The options of every container: those of the file, under those given here.
    fn defaults(&self, config: &Config) -> Result<RunArgs> {
        let mut run = RunArgs::default();
        run.layers.storage_driver = self.storage_driver;
        run.net.add_host.clone_from(&self.add_host);
        run.files.shm_size = self.shm_size;
        run.process.ulimit.clone_from(&self.ulimit);
        run.cgroups.memory = self.memory;
        run.cgroups.memory_swap = self.memory_swap;
        run.cgroups.cpu_shares = self.cpu_shares;
        run.cgroups.cpu_period = self.cpu_period;
        run.cgroups.cpu_quota = self.cpu_quota;
        run.cgroups.cpuset_cpus.clone_from(&self.cpuset_cpus);
        run.cgroups.cpuset_mems.clone_from(&self.cpuset_mems);
        run.cgroups.cgroup_parent.clone_from(&self.cgroup_parent);
        ensure!(
            run.files.shm_size != Some(Bytes(0)),
            "--shm-size 0: use at least 1"
        );
        config.fill(&mut run)?;
        // An init would be one process more for every RUN.
        run.pid.init = false;
        run.harden = run.harden.with_absolute_paths()?;
        Ok(run)
    }
}

/// `--secret id=ID[,src=FILE|,env=VARIABLE]`: without the second, a file of that
/// name.
fn secret(text: &str) -> Result<(String, SecretSource)> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for word in text.split(',') {
        let (key, value) = word
            .split_once('=')
            .with_context(|| format!("invalid field '{word}' must be a key=value pair"))?;
        match key {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(PathBuf::from(value)),
            "env" => variable = Some(value.to_owned()),
            "type" => kind = Some(value.to_owned()),
            _ => bail!("unexpected key '{key}' in '{word}'"),
        }
    }
    let id = id.filter(|id| !id.is_empty()).context("id must be given")?;
    let source = match (file, variable, kind.as_deref()) {
        (Some(file), None, None | Some("file")) => match file.is_absolute() {
            true => SecretSource::File(file),
            false => SecretSource::File(std::path::absolute(file)?),
        },
        (None, Some(variable), None | Some("env")) => SecretSource::Variable(variable),
        (Some(variable), None, Some("env")) => {
            SecretSource::Variable(variable.to_string_lossy().into_owned())
        }
        (None, None, None | Some("file")) if env::var_os(&id).is_none() => {
            SecretSource::File(std::path::absolute(&id)?)
        }
        (None, None, None | Some("env")) => SecretSource::Variable(id.clone()),
        (Some(_), Some(_), _) => bail!("src and env both say where it is"),
        _ => bail!("the type of a secret is file or env"),
    };
    Ok((id, source))
}

/// Where the files of the image go, besides.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Output {
    Directory(PathBuf),
    /// An archive; `None` for standard output.
    Archive(Option<PathBuf>),
}

impl Output {
    /// Reads `--output`.
    fn parse(text: &str) -> Result<Self> {
        let archive = |place: &str| match place {
            "-" => Output::Archive(None),
            place => Output::Archive(Some(place.into())),
        };
        if !text.contains('=') {
            return Ok(match text {
                "-" => archive(text),
                place => Output::Directory(place.into()),
            });
        }
        let (mut kind, mut place) = (None, None);
        for word in text.split(',') {
            match word.split_once('=') {
                Some(("type", value)) => kind = Some(value),
                Some(("dest", value)) => place = Some(value),
                _ => bail!("--output {text}: unexpected {word:?}"),
            }
        }
        match (kind, place) {
            (Some("local"), Some(place)) => Ok(Output::Directory(place.into())),
            (Some("tar"), Some(place)) => Ok(archive(place)),
            (Some("tar"), None) => Ok(Output::Archive(None)),
            (Some("local"), None) => bail!("--output {text}: dest=DIR is missing"),
            (kind, _) => bail!(
                "--output {text}: type {} is not supported: use local or tar",
                kind.unwrap_or("without a name")
            ),
        }
    }

    /// Writes the files of an image. This process has no threads.
    fn write(&self, here: &Here, kind: Kind, id: &Digest) -> Result<()> {
        let images = &here.images;
        let top = images.ready(&id.to_string(), kind)?.top;
        let driver = detect::open(kind, images.root())?;
        let path = match self {
            Output::Archive(path) => {
                return to_file(path.as_deref(), &mut |to| whole(&*driver, &top, to));
            }
            Output::Directory(path) => path,
        };
        std::fs::create_dir_all(path).with_context(|| format!("mkdir({path:?})"))?;
        // The whole archive before any of it is used.
        let blobs = BlobStore::new(images.root());
        let _held = blobs.hold()?;
        let mut tar = blobs.new_tar()?;
        whole(&*driver, &top, &mut tar)?;
        let (_, blob) = tar.finish()?;
        apply(&Tree::open(path)?, Marks::Whole, &[], &mut blob.reader())
            .with_context(|| format!("--output {path:?}"))
    }
}

/// Builds.
pub(super) fn run(places: &Places, config: &Config, args: BuildArgs) -> Result<Exit> {
    let options = args.options()?;
    let output = args.output.as_deref().map(Output::parse).transpose()?;
    let defaults = args.defaults(config)?;
    let here = Here::open(places, config.storage_driver)?;
    let kind = here.kind(args.storage_driver)?;
    // What killed builds have left.
    swept(places)?;
    let context = Context::open(
        places,
        &args.context,
        args.file.as_deref(),
        &mut stdin().lock(),
    )?;
    let how = match args.quiet {
        true => How::Quiet,
        false => args.progress,
    };
    let dockerfile = match dockerfile::parse(&context.dockerfile) {
        Ok(dockerfile) => dockerfile,
        Err(error) => return Err(shown(&error, &context, None)),
    };
    let found = || check::found(&here, &options, &context, &dockerfile);
    if args.check {
        return check::show(&found()?, &context);
    }
    if let Some(error) = found()?.error() {
        check::summary(&found()?);
        return Err(shown(
            &Error::msg(error).context(Lines(1..2)),
            &context,
            None,
        ));
    }
    // Blocked in all threads, of which this is the first: a signal is read, and
    // ends nobody.
    let stopping: SignalSet = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]
    .into_iter()
    .collect();
    let signals = signalfd(stopping)?;
    block(stopping)?;
    let (reporter, display) = Display::start(how);
    let vertex = reporter.begin(
        &format!("[internal] load build definition from {}", context.name),
        "",
    );
    vertex.note(&format!(
        "transferring dockerfile: {}B done",
        context.dockerfile.len()
    ));
    vertex.end(None);
    drop(vertex);
    let name = context
        .files
        .as_ref()
        .map(|files| files.directory.display());
    let name = name.map_or_else(String::new, |name| format!("{name}"));
    let why = Why::read(&places.root, &format!("{name}\n{}", context.name));
    let built = build(
        places,
        &here,
        kind,
        (&options, defaults),
        (&context, &dockerfile),
        (reporter, &why, signals),
    );
    let Ended { failed, warnings } = display.finish()?;
    for warning in warnings.iter().filter(|_| how != How::Rawjson) {
        kit::warn!("{warning}");
    }
    why.write()?;
    if matches!(how, How::Auto | How::Plain | How::Tty) {
        // Now the images are here, and their variables known.
        check::summary(&found()?);
    }
    match built {
        Ok(id) => {
            if let Some(output) = &output {
                output.write(&here, kind, &id)?;
            }
            if let Some(path) = &args.iidfile {
                std::fs::write(path, id.to_string())
                    .with_context(|| format!("--iidfile {path:?}"))?;
            }
            if let Some(path) = &args.metadata_file {
                let metadata = metadata(&id, &options)?;
                std::fs::write(path, metadata)
                    .with_context(|| format!("--metadata-file {path:?}"))?;
            }
            if args.quiet {
                kit::outln!("{id}")?;
            }
            Ok(Exit::Code(0))
        }
        Err(error) => Err(shown(&error, &context, failed)),
    }
}

/// Builds, and keeps the image.
fn build(
    places: &Places,
    here: &Here,
    kind: Kind,
    (options, defaults): (&Options, RunArgs),
    (context, dockerfile): (&Context, &Dockerfile),
    (reporter, why, signals): (Reporter, &Why, OwnedFd),
) -> Result<Digest> {
    let workers = Workers::default();
    let (over, told) = std::io::pipe().context("pipe")?;
    thread::scope(|scope| {
        let workers = &workers;
        let watching = scope.spawn(move || watch(&signals, &over, workers));
        let built = Build::new(
            places,
            here,
            kind,
            options,
            defaults,
            context,
            dockerfile,
            (reporter.clone(), workers, why),
        )
        .and_then(|build| build.run());
        let built = built.and_then(|image| keep(here, options, image, &reporter));
        drop(told);
        match watching.join() {
            Ok(Ok(())) => built,
            Ok(Err(error)) => built.and(Err(error)),
            Err(_) => bail!("the thread that waits for signals has panicked"),
        }
    })
}

/// Breaks the build off when a signal says so.
fn watch(signals: &OwnedFd, over: &std::io::PipeReader, workers: &Workers) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut fds = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(over, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("poll"),
        }
        if !fds[0].revents().is_empty() {
            read_signal(signals)?;
            workers.cancel();
        }
        if !fds[1].revents().is_empty() {
            return Ok(());
        }
    }
}

/// Keeps the image, and names it.
fn keep(here: &Here, options: &Options, mut image: Image, reporter: &Reporter) -> Result<Digest> {
    let vertex = reporter.begin("exporting to image", "");
    for (name, value) in &options.labels {
        image.add("Labels", name, serde_json::json!(value))?;
    }
    if let Some(platform) = &options.platform {
        image.set_architecture(&platform.architecture, &platform.variant);
    }
    let inline = options.build_args.get("BUILDKIT_INLINE_CACHE");
    if inline.is_some_and(|value| matches!(&**value, "1" | "true")) {
        image.write_keys();
    }
    let epoch = options.epoch.map(stage::time_of);
    let (record, config) = image.finish(&kit::time::now(), epoch.as_deref())?;
    let kept = (|| -> Result<()> {
        let store = &here.images.store;
        let lock = store.lock()?;
        if store.record(&record.id)?.is_none() {
            store.keep(&record, &config, &lock)?;
        }
        vertex.note(&format!("writing image {} done", record.id));
        for name in &options.tags {
            store.name(name, &record.id, &lock)?;
            vertex.note(&format!("naming to {name} done"));
        }
        Ok(())
    })();
    vertex.end(kept.as_ref().err());
    kept.map(|()| record.id)
}

/// What `--metadata-file` says.
fn metadata(id: &Digest, options: &Options) -> Result<String> {
    let names: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
    let mut metadata = serde_json::json!({
        "containerimage.config.digest": id,
        "containerimage.digest": id,
    });
    if !names.is_empty() {
        metadata["image.name"] = serde_json::json!(names.join(","));
    }
    serde_json::to_string_pretty(&metadata).context("write JSON")
}

/// An error as Docker shows it: what the step printed last, the lines of the
/// Dockerfile, the words.
fn shown(error: &Error, context: &Context, failed: Option<Failed>) -> Error {
    if let Some(failed) = failed {
        kit::errln!("------\n > {}:", failed.title);
        for line in &failed.last {
            kit::errln!("{line}");
        }
        kit::errln!("------");
    }
    let lines = error.downcast_ref::<Lines>().map(|lines| lines.0.clone());
    if let Some(lines) = lines.or_else(|| dockerfile::lines_of(error)) {
        let mark = dockerfile::mark(&context.name, &context.dockerfile, &lines);
        for line in mark.lines() {
            kit::errln!("{}", safe(line));
        }
    }
    Failure::new(
        1,
        format!("failed to build: failed to solve: {}", words(error)),
    )
    .into()
}
