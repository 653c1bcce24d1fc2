//! The harness's command line.
//!
//! | module | what |
//! |---|---|
//! | [`commands`] | the subcommands of `harness` |
//! | [`doctor`] | what this host can do |
//! | [`changed`] | what is worth running again after a change |
//!
//! What they command is in crates of their own beside this one: `check`, `vm`,
//! `course`, `inject`, `bench`, `book`.

pub mod changed;
pub mod commands;
pub mod doctor;
