//! The harness: checks of every step on a real kernel.
//!
//! | module | what |
//! |---|---|
//! | [`check`](mod@check), [`mod@expect`], [`step`], [`seen`], [`host`], [`tree`](mod@tree), [`disk`], [`lan`], [`rtnl`], [`firewall`] | the tools of the checks in `tests/` |
//! | [`inject`] | a launcher stopped, killed or failed at any of its calls |
//! | [`fsops`] | operations on files, and pictures of trees, for the checks of file systems |
//! | [`own_host`] | namespaces of a run's own on this host |
//! | [`guard`], [`nft`] | comparison of the host before and after a check |
//! | [`registry`], [`requirement`] | titles, points, needs, requirements, hints |
//! | [`outcome`], [`plan`], [`runner`], [`report`], [`wrap`] | running checks one by one, and printing the results |
//! | [`repeat`] | running checks in many rounds |
//! | [`fence`] | protection of later checks from a hostile program |
//! | [`wrong`] | wrong solutions, which prove that the checks can fail |
//! | [`hostile`] | hostile submissions, which must gain no unearned marks |
//! | [`guest`], [`vm`], [`times`], [`pool`] | running checks in virtual machines, side by side |
//! | [`book`] | the book's transcripts, includes, links and pages |
//! | [`bench`](mod@bench) | the cost of containers here, compared with others |
//! | [`changed`] | selection of what to run again after a change |
//! | [`build`], [`workspace`], [`toml_dir`] | building with cargo; paths; directories of TOML files |
//! | [`doctor`], [`restore`] | examining this host, and removing what a run left on it |
//! | [`commands`] | the subcommands of `harness` |
//! | [`sys`] | the only `unsafe` |

pub mod bench;
pub mod book;
pub mod build;
pub mod cgroup;
pub mod changed;
pub mod check;
pub mod checking;
pub mod commands;
pub mod disk;
pub mod doctor;
pub mod draws;
pub mod exercise;
pub mod expect;
pub mod fence;
pub mod firewall;
pub mod fsops;
pub mod grade;
pub mod guard;
pub mod guest;
pub mod host;
pub mod hostile;
pub mod inject;
pub mod lan;
pub mod matrix;
pub mod nft;
pub mod outcome;
pub mod own_host;
pub mod plan;
pub mod pool;
pub mod registry;
pub mod repeat;
pub mod report;
pub mod requirement;
pub mod restore;
pub mod rtnl;
pub mod runner;
pub mod seen;
pub mod share;
pub mod step;
pub mod sys;
pub mod times;
pub mod toml_dir;
pub mod tree;
pub mod vm;
pub mod workspace;
pub mod wrap;
pub mod wrong;

/// The imports of every file of checks.
pub mod prelude {
    pub use crate::check::{Check, check, wait_for};
    pub use crate::disk::Disk;
    pub use crate::expect::{expect, expect_eq, failed, unsupported};
    pub use crate::host;
    pub use crate::inject::window::{Point, Stopped};
    pub use crate::lan::{Lan, Remote};
    pub use crate::seen::{Attempt, Network, Seen};
    pub use crate::step::{Held, Ran, Step};
    pub use crate::tree::Tree;
    pub use anyhow::{Context, Result};
    pub use nix::sys::signal::Signal;
}
