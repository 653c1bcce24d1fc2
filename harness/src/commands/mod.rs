//! The subcommands of `harness`, a file each.

pub mod run;
pub mod test_step;
pub mod test_wrong;
