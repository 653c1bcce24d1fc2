//! What a check of a step is written with, and what runs it: programs called and
//! held, their containers looked at from inside and outside, the host before and
//! after.
//!
//! | module | what |
//! |---|---|
//! | [`check`](mod@check), [`mod@expect`], [`step`], [`seen`], [`host`], [`tree`](mod@tree), [`disk`], [`lan`], [`rtnl`], [`firewall`], [`cgroup`] | what a check is written with |
//! | [`agent`] | a process that decides on calls of a container |
//! | [`trace`] | a launcher that is stopped at one of its calls |
//! | [`protections`] | what protects a command, as its own report |
//! | [`fsops`] | operations on files, and pictures of trees |
//! | [`guard`], [`nft`], [`own_host`], [`restore`] | the host as it was; namespaces of a run's own; leftovers |
//! | [`registry`], [`requirement`], [`draws`] | titles, points, needs, requirements, hints; random names |
//! | [`plan`], [`runner`], [`outcome`], [`report`], [`wrap`], [`share`] | running checks one by one, and printing their results |
//! | [`fence`] | what keeps a hostile program from the checks after it |
//! | [`build`], [`workspace`], [`toml_dir`] | building with cargo; where things are; descriptions in a file each |
//! | [`sys`] | the only `unsafe` of the harness |

pub mod agent;
pub mod build;
pub mod cgroup;
pub mod check;
pub mod disk;
pub mod draws;
pub mod expect;
pub mod fence;
pub mod firewall;
pub mod fsops;
pub mod guard;
pub mod host;
pub mod lan;
pub mod nft;
pub mod outcome;
pub mod own_host;
pub mod plan;
pub mod protections;
pub mod registry;
pub mod report;
pub mod requirement;
pub mod restore;
pub mod rtnl;
pub mod runner;
pub mod seen;
pub mod share;
pub mod step;
pub mod sys;
pub mod toml_dir;
pub mod trace;
pub mod tree;
pub mod workspace;
pub mod wrap;

/// What every file of checks begins with.
pub mod prelude {
    pub use crate::check::{Check, check, wait_for, wait_or_kill};
    pub use crate::disk::Disk;
    pub use crate::expect::{expect, expect_eq, failed, unsupported};
    pub use crate::host;
    pub use crate::lan::{Lan, Remote};
    pub use crate::seen::{Attempt, Network, Seen};
    pub use crate::step::{Held, Ran, Step};
    pub use crate::trace::window::{Point, Stopped};
    pub use crate::tree::Tree;
    pub use anyhow::{Context, Result};
    pub use nix::sys::signal::Signal;
}
