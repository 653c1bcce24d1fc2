//! The harness: checks of every step on a real kernel.
//!
//! | module | what |
//! |---|---|
//! | [`check`](mod@check), [`mod@expect`], [`step`], [`seen`], [`host`], [`tree`](mod@tree), [`disk`], [`lan`], [`rtnl`], [`firewall`] | what a check in `tests/` is written with |
//! | [`inject`] | a launcher stopped, killed or failed at any of its calls |
//! | [`fsops`] | operations on files, and pictures of trees, for the checks of file systems |
//! | [`guard`], [`nft`] | the host as it was before and after |
//! | [`registry`], [`requirement`] | titles, points, needs, requirements, hints |
//! | [`outcome`], [`plan`], [`runner`], [`report`], [`wrap`] | running checks one by one, and printing what came of them |
//! | [`repeat`] | the same many times over |
//! | [`fence`] | what keeps a hostile program from the checks after it |
//! | [`wrong`] | wrong solutions, which prove that the checks can fail |
//! | [`hostile`] | hostile submissions, which prove that nobody is marked for more than they did |
//! | [`guest`], [`vm`], [`times`], [`pool`] | the same in virtual machines, side by side |
//! | [`book`] | the book's transcripts, includes, links and pages |
//! | [`bench`](mod@bench) | what containers cost here, beside what others take for them |
//! | [`changed`] | what is worth running again after a change |
//! | [`build`], [`workspace`], [`toml_dir`] | building with cargo; where things are; what is described in a file each |
//! | [`doctor`], [`restore`] | what this host can do, and what a run left on it |
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

/// What every file of checks begins with.
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
