//! The subcommands of `harness`, a file each.

pub mod book;
pub mod build;
pub mod doctor;
pub mod kernel;
pub mod restore;
pub mod run;
pub mod test_step;
pub mod test_wrong;
pub mod vm;
