//! A further process in a running container: a launch whose list only joins.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cgroups::NamedGroup;
use engine::command::inherited::{Inherited, SessionKeyring};
use engine::command::ulimit::Ulimits;
use engine::container::Record;
use engine::terminal::Streams;
use harden::Harden;
use kit::ProcessIdentity;
use nix::unistd::Pid;
use process::{Command, Container};
use runtime::further::{Beside, Enter, join};
use serde::{Deserialize, Serialize};
use user::{Credentials, UserSettings, UserSpec};
use uts::NamespaceMode;

/// What a further process is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Further {
    /// The program and its arguments.
    #[serde(with = "kit::text")]
    pub command: Vec<OsString>,
    /// The environment.
    #[serde(with = "kit::text")]
    pub env: Vec<OsString>,
    /// The user; `None` for the container's.
    pub user: Option<UserSpec>,
    /// The directory; `None` for the container's.
    #[serde(with = "kit::text")]
    pub workdir: Option<PathBuf>,
    /// Whether it has the caller's input.
    pub interactive: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has all capabilities, and no filter.
    pub privileged: bool,
}

/// The host name that the processes of a running container see.
///
/// # Errors
/// As [`hostname_inside`](uts::UtsSettings::hostname_inside).
pub fn hostname(record: &Record) -> Result<OsString> {
    let mut uts = record.spec.uts.clone();
    if let NamespaceMode::Container(_) = uts.uts {
        // The process whose namespace it has joined may have ended.
        uts.uts = NamespaceMode::Container(Pid::from_raw(record.pid));
    }
    uts.hostname_inside()
}

/// Builds a further process of a running container.
///
/// # Errors
/// If the container's first process has ended meanwhile.
pub fn exec(record: &Record, programs: PathBuf, further: Further) -> Result<Container> {
    let spec = &record.spec;
    let first = ProcessIdentity::of(record.pid).context("the container is not running")?;
    ensure!(
        record.launcher.is_parent_of(record.pid),
        "the container is not running"
    );
    let pid = Pid::from_raw(first.pid);
    let mut harden = spec.harden.clone();
    // Its score is the container's already, and lowering it needs a right.
    harden.oom_score_adj = None;
    if further.privileged {
        harden.privileged = true;
    }
    let user = match further.user {
        None => spec.user.clone(),
        Some(user) => UserSettings {
            user: Some(user),
            ..spec.user.clone()
        },
    };
    let credentials = Credentials::new(&user);
    let streams = Streams::further(further.interactive, further.tty, credentials.owner())?;
    let mut env = further.env;
    if further.tty
        && !env
            .iter()
            .any(|pair| pair.as_encoded_bytes().starts_with(b"TERM="))
    {
        env.push("TERM=xterm".into());
    }
    let command = Command {
        argv: further.command,
        env,
    };
    // ANCHOR: list
    // ANCHOR: exercise_exec
    let container = Container::new(command).keep_terminal();
    // The user namespace first, which gives the right to enter the others.
    let (container, view) = join(container, pid)?;
    let group = NamedGroup::of_process(pid)?;
    // Namespaces and groups are open now: they are those of this process, and
    // not of another one with its PID.
    ensure!(first.is_alive(), "the container is not running");
    Ok(container
        .with(Beside::new(group, pid, view))
        .with(Ulimits::new(spec.ulimits.clone()))
        .with(Inherited::new(SessionKeyring::New))
        .with(Harden::new(harden).cached_in(programs))
        // From here on paths are the container's.
        .with(Enter(
            further.workdir.unwrap_or_else(|| spec.workdir.clone()),
        ))
        .with(streams)
        .with(credentials))
    // ANCHOR_END: exercise_exec
    // ANCHOR_END: list
}
