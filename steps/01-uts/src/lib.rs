//! Step 01: the UTS namespace (uts_namespaces(7)).
//!
//! The smallest of all namespaces holds two strings: the host name
//! (gethostname(2), `uname -n`) and the NIS domain name (getdomainname(2)). A
//! new namespace starts with a copy of its creator's.
//!
//! Read these, in this order:
//!
//! 1. this file: [`Uts`], the isolation
//! 2. [`namespace_mode`]: `private`, `host` or `container:PID`, the choice for
//!    every namespace
//! 3. [`hostname`](mod@hostname), the name inside, and in a joined namespace
//! 4. [`namespaces`], [`table`]: the namespaces of a process, from
//!    `/proc/PID/ns`, and beside the caller's
//!
//! What makes it safe: [`name`], the rules for host names, checked before the
//! kernel sees one.

mod hostname;
pub mod name;
pub mod namespace_mode;
pub mod namespaces;
pub mod table;

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use clap::Args;
use kit::say;
use nix::sched::CloneFlags;
use process::Isolation;
use rustix::system::{setdomainname, sethostname};
use serde::{Deserialize, Serialize};

pub use namespace_mode::{Namespace, NamespaceMode};

/// The options of the UTS namespace.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "UTS namespace (step 01)")]
pub struct UtsSettings {
    /// UTS namespace to use: private (a new one), host, or container:PID (that
    /// of a process)
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub uts: NamespaceMode,

    /// Container host name: at most 64 bytes, in labels of letters, digits and
    /// hyphens
    #[arg(long, value_name = "NAME")]
    #[serde(with = "kit::text")]
    pub hostname: Option<OsString>,

    /// Container NIS domain name; the same rules apply
    #[arg(long, value_name = "NAME")]
    #[serde(with = "kit::text")]
    pub domainname: Option<OsString>,
}

/// The isolation that makes or joins a UTS namespace, and sets its host name
/// and NIS domain name.
pub struct Uts {
    namespace: Namespace,
    hostname: Option<OsString>,
    domainname: Option<OsString>,
}

impl Uts {
    /// The isolation that `args` describe. They are checked in `prepare`.
    pub fn new(args: UtsSettings) -> Self {
        Uts {
            namespace: Namespace::new(CloneFlags::CLONE_NEWUTS, args.uts),
            hostname: args.hostname,
            domainname: args.domainname,
        }
    }

    /// The names to set, each with its option.
    fn names(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        [
            ("--hostname", &self.hostname),
            ("--domainname", &self.domainname),
        ]
        .into_iter()
        .filter_map(|(option, name)| Some((option, name.as_ref()?)))
    }
}

impl Isolation for Uts {
    fn name(&self) -> &'static str {
        "uts"
    }

    // ANCHOR: namespaces
    fn namespaces(&self) -> CloneFlags {
        // ANCHOR: exercise_new_namespace
        self.namespace.namespaces()
        // ANCHOR_END: exercise_new_namespace
    }
    // ANCHOR_END: namespaces

    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        self.namespace.joins()
    }

    // ANCHOR: parts
    fn prepare(&mut self) -> Result<()> {
        // ANCHOR: exercise_check_the_options
        for (option, name) in self.names() {
            name::check(name).with_context(|| format!("{option} {name:?}"))?;
            match self.namespace.mode() {
                NamespaceMode::Private => {}
                NamespaceMode::Host => {
                    bail!("{option} with --uts host would rename the host: omit --uts, or {option}")
                }
                NamespaceMode::Container(pid) => bail!(
                    "{option} with --uts container:{pid} would rename that container: omit one \
                     of the two"
                ),
            }
        }
        self.namespace.prepare()
        // ANCHOR_END: exercise_check_the_options
    }

    fn in_container(&mut self) -> Result<()> {
        // ANCHOR: exercise_set_the_names
        if let Some(name) = &self.hostname {
            say!("sethostname({name:?})");
            sethostname(name.as_bytes()).with_context(|| format!("sethostname({name:?})"))?;
        }
        if let Some(name) = &self.domainname {
            say!("setdomainname({name:?})");
            setdomainname(name.as_bytes()).with_context(|| format!("setdomainname({name:?})"))?;
        }
        Ok(())
        // ANCHOR_END: exercise_set_the_names
    }
    // ANCHOR_END: parts
}
