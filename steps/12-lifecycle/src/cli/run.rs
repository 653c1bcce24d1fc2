//! `run`, `create` and `start`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use engine::cli::container::Processes;
use engine::cli::options::RunArgs;
use engine::cli::places::Places;
use engine::cli::run::spec;
use engine::container::keeper::create;
use engine::container::{Record, Records};
use kit::lock::{is_at, open_directory, try_alone};
use kit::own::make;
use kit::sys::{close_others_on_exec, inherited};
use nix::sys::prctl;
use process::{Exit, Failure, LAUNCHER_FAILED};

use crate::cli::networks::NetworkArgs;
use crate::cli::swept;
use crate::client::{Attach, ask, attach, keys};
use crate::config::Config;
use crate::events::tell;
use crate::health::HealthArgs;
use crate::monitor;
use crate::monitor::detach::{Caller, Passed, Started, again, detach};
use crate::settings::{LogDriver, LogSettings, Restart, Stay};

/// The keys that detach, unless others are given.
pub(super) const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// The commands that start containers.
#[derive(Subcommand)]
pub enum Tool {
    /// Create and run a new container from an image
    Run(Box<Run>),
    /// Create a new container
    Create(Box<Create>),
    /// Start one or more stopped containers
    Start(Start),
}

/// The options of a container that stays.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Life (step 12)")]
pub struct StayArgs {
    /// Restart policy when the container exits: no, on-failure[:N], always or
    /// unless-stopped [default: no]
    #[arg(long, value_name = "POLICY")]
    restart: Option<Restart>,

    /// Logging driver: json-file or none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<LogDriver>,

    /// Option of the logging driver: max-size=10m, max-file=3. Repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
}

/// The options of attaching.
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// Keys that detach from the container
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    pub(super) detach_keys: String,

    /// Do not pass the signals of this process on to the container
    #[arg(long = "no-sig-proxy")]
    pub(super) no_proxy: bool,
}

/// The options of `run`.
#[derive(Args)]
#[command(override_usage = "drydock run [OPTIONS] IMAGE [COMMAND] [ARG]...")]
#[command(mut_arg("network", |arg| aside(arg, "step-06-network")), mut_arg("publish", |arg| aside(arg, "step-06-publish")))]
pub struct Run {
    /// Run the container in the background and print its ID
    #[arg(short, long, help_heading = "Life (step 12)")]
    detach: bool,
    #[command(flatten)]
    stay: StayArgs,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// The options of step 09.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The options of `create`.
#[derive(Args)]
#[command(override_usage = "drydock create [OPTIONS] IMAGE [COMMAND] [ARG]...")]
#[command(mut_arg("network", |arg| aside(arg, "step-06-network")), mut_arg("publish", |arg| aside(arg, "step-06-publish")))]
pub struct Create {
    #[command(flatten)]
    stay: StayArgs,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// The options of step 09.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Takes an option of step 06 off the command line: one of [`NetworkArgs`] has
/// its name.
fn aside(arg: clap::Arg, name: &'static str) -> clap::Arg {
    arg.long(name).short(None).hide(true)
}

/// The options of `start`.
#[derive(Args)]
pub struct Start {
    /// Attach to its output, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input as well
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    how: AttachArgs,
    /// Names or IDs of containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
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
    match tool {
        Tool::Run(mut args) => {
            config.fill(&mut args.run)?;
            run_new(places, config, *args)
        }
        Tool::Create(mut args) => {
            config.fill(&mut args.run)?;
            create_only(places, config, *args)
        }
        Tool::Start(args) => start(places, &args),
    }
}

impl StayArgs {
    fn is_given(&self) -> bool {
        self.restart.is_some() || self.log_driver.is_some() || !self.log_opt.is_empty()
    }

    fn settings(&self, config: &Config, run: &RunArgs, stdin_once: bool) -> Result<Stay> {
        let restart = self.restart.unwrap_or_default();
        ensure!(
            restart == Restart::No || !run.container.rm,
            "conflicting options: cannot specify both --restart and --rm"
        );
        Ok(Stay {
            restart,
            log: self.log(config)?,
            stdin_once,
            ..Stay::default()
        })
    }
}

impl StayArgs {
    /// Where the output goes. Options of the file's are for the file's driver.
    fn log(&self, config: &Config) -> Result<LogSettings> {
        let driver = self.log_driver.or(config.log_driver);
        let mut options = Vec::new();
        if driver == config.log_driver
            || config.log_driver.is_none() && driver == Some(LogDriver::JsonFile)
        {
            let given = |name: &str| {
                self.log_opt
                    .iter()
                    .any(|one| one.split('=').next() == Some(name))
            };
            let of_file = config.log_opts.iter().filter(|(name, _)| !given(name));
            options.extend(of_file.map(|(name, value)| format!("{name}={value}")));
        }
        options.extend(self.log_opt.iter().cloned());
        LogSettings::new(driver, &options)
    }
}

fn run_new(places: &Places, config: &Config, mut args: Run) -> Result<Exit> {
    let network = args.network.apply(places, &mut args.run)?;
    let image = args.run.image_and_command.first().cloned();
    let mut stay = args.stay.settings(config, &args.run, !args.detach)?;
    let cidfile = args.run.container.cidfile.take();
    let (interactive, terminal) = (args.run.container.interactive, args.run.container.tty);
    let mut spec = spec(places, args.run)?;
    stay.health = args.health.check(spec.healthcheck.as_ref())?;
    stay.exposed = network.exposed();
    if !args.detach && !args.stay.is_given() && stay.health.is_none() && network.is_plain() {
        // The launcher stays in the caller's terminal: nothing is copied, and
        // nothing logged.
        return engine::cli::run::launch(places, spec, cidfile);
    }
    network.finish(places, &image.unwrap_or_default(), &mut spec)?;
    let mut record = Record::new(spec)?;
    network.attachments.put(&mut record)?;
    stay.put(&mut record)?;
    let how = Attach {
        input: interactive,
        terminal,
        detach_keys: keys(DETACH_KEYS)?,
        proxy: true,
    };
    let record = new(places, record, cidfile.as_deref())?;
    match args.detach {
        true => {
            let started = launch(places, &record, None);
            // It exists, whether it runs or not.
            kit::outln!("{}", record.spec.id)?;
            started?;
            Ok(Exit::Code(0))
        }
        false => attached(places, &record, &how),
    }
}

/// Makes a container that does not run, and writes its id into the file of
/// `--cidfile`.
fn new(places: &Places, record: Record, cidfile: Option<&Path>) -> Result<Record> {
    let file = cidfile.map(begin_cidfile).transpose()?;
    let record = create(&Records::new(places), record)?;
    if let Some((mut file, path)) = file {
        file.write_all(record.spec.id.as_bytes())
            .with_context(|| format!("write {path:?}"))?;
    }
    Ok(record)
}

/// Creates the file of `--cidfile`, before anything else is made.
fn begin_cidfile(path: &Path) -> Result<(File, PathBuf)> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("--cidfile {path:?}"))?;
    Ok((file, path.to_owned()))
}

fn create_only(places: &Places, config: &Config, mut args: Create) -> Result<Exit> {
    let mut stay = args.stay.settings(config, &args.run, false)?;
    let cidfile = args.run.container.cidfile.take();
    let network = args.network.apply(places, &mut args.run)?;
    let image = args.run.image_and_command.first().cloned();
    let mut spec = spec(places, args.run)?;
    stay.health = args.health.check(spec.healthcheck.as_ref())?;
    stay.exposed = network.exposed();
    network.finish(places, &image.unwrap_or_default(), &mut spec)?;
    let mut record = Record::new(spec)?;
    network.attachments.put(&mut record)?;
    stay.put(&mut record)?;
    let record = new(places, record, cidfile.as_deref())?;
    kit::outln!("{}", record.spec.id)?;
    Ok(Exit::Code(0))
}

/// Has a monitor start a container that exists. `attached` is somebody who is
/// connected from the beginning.
fn launch(places: &Places, record: &Record, attached: Option<&UnixStream>) -> Result<Started> {
    let mut args = again(places);
    args.extend(["monitor".into(), record.spec.id.clone().into()]);
    let passed = attached.map(|stream| Passed {
        option: "--attached",
        fd: stream.as_fd(),
    });
    detach(&args, passed.as_slice())
}

/// What a monitor is executed with.
#[derive(Args)]
pub struct Monitor {
    /// ID of the container
    id: String,
    /// The descriptor that leads to the caller
    #[arg(long)]
    caller: i32,
    /// The descriptor of somebody who is attached
    #[arg(long)]
    attached: Option<i32>,
}

/// The monitor of a container.
pub(super) fn monitor(places: &Places, args: &Monitor) -> Result<Exit> {
    let mut caller = Caller::of(inherited(args.caller)?);
    let attached = args.attached.map(inherited).transpose()?;
    close_others_on_exec()?;
    prctl::set_name(c"drydock").context("prctl(PR_SET_NAME)")?;
    let run = || {
        let records = Records::new(places);
        let record = records.find(&args.id)?;
        let claim = claim(&records, &record)?;
        let mut started = |record: &Record| caller.started(&record.spec.id, &record.spec.name);
        monitor::run(
            places,
            record,
            claim,
            attached.map(UnixStream::from),
            &mut started,
        )
    };
    match run() {
        Ok(()) => Ok(Exit::Code(0)),
        Err(error) => {
            // The caller prints it.
            caller.failed(&error);
            Ok(Exit::Code(Failure::status_of(&error)))
        }
    }
}

/// Starts a container by a monitor, and attaches to it from its first byte.
fn attached(places: &Places, record: &Record, how: &Attach) -> Result<Exit> {
    let (ours, theirs) = UnixStream::pair().context("socketpair")?;
    // Before the start: the first words of the command are not lost.
    ask(&ours, how)?;
    tell(places, record, "attach", &[]);
    let started = launch(places, record, Some(&theirs))?;
    drop(theirs);
    let records = Records::new(places);
    let end = attach(ours, how, &mut |signal| {
        // A container that has been removed meanwhile gets no signal.
        let Some(record) = records.read(&started.id)? else {
            return Ok(());
        };
        match Processes::of(&records, &record)? {
            Some(processes) => processes.send(signal),
            None => Ok(()),
        }
    })?;
    end.exit()
}

/// Makes this process the only one that starts, or removes, a container. It is
/// until the file is closed.
///
/// # Errors
/// If another process is.
pub(super) fn claim(records: &Records, record: &Record) -> Result<File> {
    let directory = records.directory(&record.spec.id);
    let name = &record.spec.name;
    make(&directory, 0o700)?;
    let gone = || format!("the container {name} has been removed");
    let open = open_directory(&directory)?.with_context(gone)?;
    if !try_alone(&open, &directory)? {
        bail!("the container {name} is being started, or removed, by another process");
    }
    ensure!(is_at(&open, &directory)?, gone());
    Ok(open)
}

fn start(places: &Places, args: &Start) -> Result<Exit> {
    let records = swept(places)?;
    let attaches = args.attach || args.interactive;
    if attaches {
        let [name] = &args.containers[..] else {
            bail!("you cannot start and attach multiple containers at once");
        };
        let record = records.find(name)?;
        if record.is_running() {
            bail!("the container {name} runs already: see drydock attach {name}");
        }
        let how = Attach {
            input: args.interactive && record.spec.interactive,
            terminal: record.spec.tty,
            detach_keys: keys(&args.how.detach_keys)?,
            proxy: !args.how.no_proxy && !record.spec.tty,
        };
        return attached(places, &record, &how)
            .map_err(|error| Failure::new(1, format!("{error:#}")).into());
    }
    crate::cli::each(&records, &args.containers, &mut |record| {
        if record.is_running() {
            return Ok(());
        }
        start_one(places, &record)
    })
}

/// Starts a container that exists and does not run.
pub(super) fn start_one(places: &Places, record: &Record) -> Result<()> {
    launch(places, record, None)
        .with_context(|| format!("failed to start container {}", record.spec.name))
        .map(drop)
}
