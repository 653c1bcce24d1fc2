//! The options of `drydock run`: those of this step, together with those of the
//! steps before.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use cgroups::{Bytes, CgroupSettings};
use clap::{ArgAction, Args};
use harden::HardenSettings;
use ipc::IpcSettings;
use net::NetSettings;
use pid::PidSettings;
use union::{Kind, SizeOption};
use user::UserSettings;
use uts::UtsSettings;

use crate::command::ulimit::Ulimit;

/// The options of `drydock run`: Docker's, grouped by the step that implements
/// them.
#[derive(Args, Clone, Debug, Default)]
#[command(disable_help_flag = true, mut_arg("hostname", |arg| arg.short('h')))]
#[command(override_usage = "drydock run [OPTIONS] IMAGE [COMMAND] [ARG]...")]
pub struct RunArgs {
    /// The container itself.
    #[command(flatten)]
    pub container: ContainerArgs,
    /// The command's surroundings.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Step 01.
    #[command(flatten)]
    pub uts: UtsSettings,
    /// Step 02.
    #[command(flatten)]
    pub ipc: IpcSettings,
    /// Step 03.
    #[command(flatten)]
    pub pid: PidSettings,
    /// Step 04.
    #[command(flatten)]
    pub files: FilesArgs,
    /// Step 05.
    #[command(flatten)]
    pub user: UserSettings,
    /// Step 06.
    #[command(flatten)]
    pub net: NetSettings,
    /// Step 07.
    #[command(flatten)]
    pub cgroups: CgroupSettings,
    /// Step 08.
    #[command(flatten)]
    pub layers: LayersArgs,
    /// Step 10.
    #[command(flatten)]
    pub harden: HardenSettings,

    /// Image: a name, an ID, a directory or an archive; then the command and
    /// its arguments, which override those of the image
    #[arg(
        value_name = "IMAGE [COMMAND] [ARG]",
        required = true,
        trailing_var_arg = true
    )]
    pub image_and_command: Vec<OsString>,
}

/// The options of the container itself.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Container (step 09)")]
pub struct ContainerArgs {
    /// Keep STDIN open; without this option it is empty
    #[arg(short, long)]
    pub interactive: bool,

    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,

    /// Automatically remove the container and its anonymous volumes when it
    /// exits
    #[arg(long)]
    pub rm: bool,

    /// Assign a name to the container [default: random]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Write the container ID to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,

    /// Set metadata on the container. Repeatable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,

    /// Pull the image before running; only never is supported
    #[arg(long, value_name = "POLICY", value_parser = ["never"], default_value = "never")]
    pub pull: String,

    /// Signal to stop the container [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,

    /// Timeout (in seconds) to stop the container before it is killed [default:
    /// 10]
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u64>,

    /// Print help
    #[arg(long, action = ArgAction::HelpLong)]
    help: Option<bool>,
}

/// The options of the command: environment, working directory, limits.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Process (step 00)")]
pub struct ProcessArgs {
    /// Overwrite the entrypoint of the image; "" for none
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<OsString>,

    /// Set an environment variable; without =VALUE, to the caller's value.
    /// Repeatable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,

    /// Read environment variables from a file, one per line. Repeatable
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,

    /// Working directory inside the container, created if missing [default: the
    /// image's, else /]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,

    /// Set a resource limit (setrlimit(2)), as in nofile=1024:2048. Repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<Ulimit>,

    /// Share the caller's session keyring with the container (keyrings(7))
    #[arg(long)]
    pub no_new_keyring: bool,
}

/// The options of mounts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Mount namespace (step 04)")]
pub struct FilesArgs {
    /// Bind mount a host path (if SRC has a slash), or mount a named volume, or
    /// without SRC an anonymous volume. OPTIONS: ro, nocopy. Repeatable
    #[arg(short, long, value_name = "[SRC:]DST[:OPTIONS]")]
    pub volume: Vec<String>,

    /// Attach a file system mount to the container:
    /// type=bind|volume|tmpfs,src=SRC,dst=DST,readonly. Repeatable
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub mount: Vec<String>,

    /// Mount a tmpfs directory; OPTIONS as in size=64m,mode=755. Repeatable
    #[arg(long, value_name = "DST[:OPTIONS]")]
    pub tmpfs: Vec<String>,

    /// Mount the container's root file system as read-only; mounts in it stay
    /// writable
    #[arg(long)]
    pub read_only: bool,

    /// Size of /dev/shm, as in 256m [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<Bytes>,
}

/// The options of the image's layers.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Union file system (step 08)")]
pub struct LayersArgs {
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub storage_driver: Option<Kind>,

    /// Limit the container's layer: size=10g. Drivers: overlay2 on a file system
    /// with project quotas, btrfs, devicemapper
    #[arg(long = "storage-opt", value_name = "size=BYTES", value_parser = SizeOption::only)]
    pub size: Option<Bytes>,

    /// What the size is without an option: that of the driver, or of any.
    #[arg(skip)]
    pub default_sizes: Vec<SizeOption>,
}

impl LayersArgs {
    /// The size of a container's layer.
    ///
    /// # Errors
    /// If the driver cannot limit a layer.
    pub(crate) fn size(&self, driver: Kind) -> Result<Option<Bytes>> {
        let defaults = self.default_sizes.iter().rev();
        let mut defaults = defaults.filter(|one| one.driver.is_none_or(|of| of == driver));
        let size = self.size.or_else(|| Some(defaults.next()?.size));
        if size.is_some() {
            driver.expect_sizes()?;
        }
        Ok(size)
    }
}
