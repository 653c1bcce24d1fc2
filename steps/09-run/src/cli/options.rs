//! The options of `drydock run`: those of this step, together with those of the
//! steps before.

use std::ffi::OsString;
use std::path::PathBuf;

use cgroups::CgroupSettings;
use clap::{ArgAction, Args, ValueEnum};
use ipc::IpcSettings;
use net::NetSettings;
use pid::PidSettings;
use union::Kind;
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
    /// What it is kept from.
    #[command(flatten)]
    pub safety: SafetyArgs,
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

    /// The image: a name, a directory, an archive; then the command and its
    /// arguments, instead of the image's own
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
    /// Keep standard input open; without it the command reads nothing
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the command a terminal of its own
    #[arg(short, long)]
    pub tty: bool,

    /// Remove the container and its anonymous volumes when it ends
    #[arg(long)]
    pub rm: bool,

    /// Name of the container [default: one at random]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Write the container's id into a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,

    /// A label, for people and programs; may be given several times
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,

    /// Whether to fetch the image; only never is supported
    #[arg(long, value_name = "POLICY", value_parser = ["never"], default_value = "never")]
    pub pull: String,

    /// The signal by which drydock stop asks the command to end [default: the
    /// image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,

    /// How many seconds drydock stop waits before it kills [default: 10]
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
    /// Run this instead of the image's entrypoint; "" for none
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<OsString>,

    /// Set a variable of the environment, or pass the caller's on; may be given
    /// several times
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,

    /// Read such variables from a file, a line each; may be given several times
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,

    /// Directory to start in, made where it is missing [default: the image's,
    /// else /]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,

    /// Limit of setrlimit(2), as nofile=1024:2048; may be given several times
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<Ulimit>,
}

/// The options that lift restrictions.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Safety (step 09)")]
pub struct SafetyArgs {
    /// Give up what keeps the container from the host: all capabilities, all
    /// devices, nothing of /proc and /sys hidden or read-only
    #[arg(long)]
    pub privileged: bool,

    /// seccomp=unconfined: allow every system call, such as to make a user
    /// namespace; no-new-privileges, which is the default
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<SecurityOpt>,

    /// Leave the container the caller's session keyring (keyrings(7))
    #[arg(long)]
    pub no_new_keyring: bool,
}

/// A value of `--security-opt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SecurityOpt {
    /// Without the filter of system calls.
    #[value(name = "seccomp=unconfined")]
    NoFilter,
    /// What every container has that is not privileged.
    #[value(name = "no-new-privileges", alias = "no-new-privileges=true")]
    NoNewPrivileges,
}

/// The options of mounts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Mount namespace (step 04)")]
pub struct FilesArgs {
    /// Mount a directory of the host (SRC has a slash), a named volume, or with
    /// DST alone a new anonymous volume; OPTIONS: ro, nocopy. May be given
    /// several times
    #[arg(short, long, value_name = "[SRC:]DST[:OPTIONS]")]
    pub volume: Vec<String>,

    /// The same, spelled out: type=bind|volume|tmpfs,src=SRC,dst=DST,readonly.
    /// May be given several times
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub mount: Vec<String>,

    /// Mount an empty file system in memory; OPTIONS as in size=64m,mode=755. May
    /// be given several times
    #[arg(long, value_name = "DST[:OPTIONS]")]
    pub tmpfs: Vec<String>,

    /// Make the container's root read-only, but not what is mounted in it
    #[arg(long)]
    pub read_only: bool,
}

/// The options of the image's layers.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Union file system (step 08)")]
pub struct LayersArgs {
    /// How layers are kept [default: overlay2 where it works, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub storage_driver: Option<Kind>,
}
