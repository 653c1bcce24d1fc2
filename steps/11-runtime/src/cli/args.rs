//! The command line: runc's commands and options, for callers that know runc.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Error, Result};
use cgroups::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::log::Format;

/// Open Container Initiative runtime
///
/// Creates, starts, ends and looks at containers that others describe: podman,
/// containerd, dockerd. Its commands and options are runc's.
#[derive(Debug, Parser)]
#[command(name = "drydock-runtime", disable_version_flag = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub globals: Globals,

    #[command(subcommand)]
    pub command: Option<Verb>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// Directory of the containers' states [default: /run/drydock-runtime, or a
    /// directory in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// File to append errors and warnings to
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// Format of that file
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: Format,

    /// Print each step of the launch on standard error
    #[arg(long)]
    pub debug: bool,

    /// Have systemd make the groups
    #[arg(long)]
    pub systemd_cgroup: bool,

    /// Who makes the groups
    #[arg(long, value_enum, value_name = "NAME")]
    pub cgroup_manager: Option<CgroupManager>,

    /// Whether to do without what needs root: true, false or auto
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub rootless: Rootless,

    /// Print the version, and the version of the specification
    #[arg(short, long)]
    pub version: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CgroupManager {
    /// The runtime itself
    Cgroupfs,
    /// systemd
    Systemd,
    /// Nobody: without limits
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rootless {
    /// Do without
    True,
    /// Fail instead
    False,
    /// Do without if the caller is not root of the host
    Auto,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a container, which then waits for its start
    Create(Create),
    /// Start a created container
    Start { id: String },
    /// Create and start a container
    Run(Run),
    /// Print the state of a container
    State { id: String },
    /// Send a signal to a container
    Kill(Kill),
    /// Remove a stopped container
    Delete(Delete),
    /// Run a further process in a container
    Exec(Exec),
    /// List the processes of a container
    Ps(Ps),
    /// List the containers
    List(List),
    /// Stop all processes of a container
    Pause { id: String },
    /// Let them go on
    Resume { id: String },
    /// Change the limits of a container
    Update(Update),
    /// Print statistics of a container
    Events(Events),
    /// Write an example of a configuration
    Spec(SpecArgs),
    /// Print what is supported
    Features,
    /// Print what a bundle asks for, in the words of the course
    Explain(Explain),
    /// Not supported: save a container to disk
    #[command(hide = true)]
    Checkpoint(Unsupported),
    /// Not supported: start a container that was saved
    #[command(hide = true)]
    Restore(Unsupported),
}

/// Arguments of a command of runc's that this runtime has not.
#[derive(Args, Debug)]
pub(crate) struct Unsupported {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    #[allow(
        dead_code,
        reason = "they are read so that the command can say why it fails"
    )]
    pub words: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Create {
    /// Name of the container
    pub id: String,

    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,

    /// Socket to send the terminal to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,

    /// File to write the PID of the first process to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Do not use pivot_root(2): the present root is the initial RAM file system
    #[arg(long)]
    pub no_pivot: bool,

    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,

    /// Pass this many descriptors on, from 3
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub create: Create,

    /// Return when the command runs
    #[arg(short, long)]
    pub detach: bool,

    /// Keep the stopped container
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Kill {
    pub id: String,

    /// Number or name
    #[arg(default_value = "SIGTERM")]
    pub signal: String,

    /// To all processes instead of the first
    #[arg(short, long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    pub id: String,

    /// Kill it first; a container that does not exist is no error
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Exec {
    pub id: String,

    /// The command, and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,

    /// File with the properties of the process
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,

    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Return when the command runs
    #[arg(short, long)]
    pub detach: bool,

    /// Socket to send the terminal to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,

    /// File to write the PID to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,

    /// Environment variable. Repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,

    /// UID and GID
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,

    /// Further group. Repeatable
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,

    /// Further capability. Repeatable
    #[arg(short, long, value_name = "CAPABILITY")]
    pub cap: Vec<String>,

    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,

    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,

    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,

    /// Pass this many descriptors on, from 3
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,

    /// Group below the container's, of these controllers or of all. Repeatable
    #[arg(long, value_name = "[CONTROLLER,…:]PATH")]
    pub cgroup: Vec<String>,

    /// Start it in a paused container, where it waits
    #[arg(long)]
    pub ignore_paused: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Ps {
    pub id: String,

    /// table or json
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Listing,

    /// Options for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// table or json
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Listing,

    /// Names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// A number of bytes with a unit, or -1 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount(pub i64);

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "-1" => Ok(Amount(-1)),
            // Below 2^63, as `Bytes` makes sure.
            text => Ok(Amount(text.parse::<Bytes>()?.0 as i64)),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    pub id: String,

    /// File with limits, - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,

    /// Limit of memory, as in 64m; -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<Amount>,
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<Amount>,
    /// Limit of memory and swap together
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<Amount>,
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    #[arg(long, visible_alias = "cpu-shares", value_name = "NUMBER")]
    pub cpu_share: Option<u64>,
    #[arg(long, value_name = "NUMBER")]
    pub cpu_idle: Option<i64>,
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    #[arg(long, value_name = "NUMBER")]
    pub blkio_weight: Option<u16>,
    /// Schema of caches of the third level, as in L3:0=f
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the bandwidth of memory, as in MB:0=50
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    // A part of all memory since Linux 5.16: there is nothing to set.
    #[arg(long, hide = true)]
    pub kernel_memory: Option<String>,
    #[arg(long, hide = true)]
    pub kernel_memory_tcp: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    pub id: String,

    /// Print them once
    #[arg(long)]
    pub stats: bool,

    /// Seconds from one to the next, as in 5s
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub interval: humantime::Duration,
}

#[derive(Args, Debug)]
pub(crate) struct SpecArgs {
    /// Directory to write config.json to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,

    /// For a caller who is not root
    #[arg(long)]
    pub rootless: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Directory with config.json
    #[arg(value_name = "BUNDLE", default_value = ".")]
    pub bundle: PathBuf,
}
