//! The subcommands of `harness`, one per file.

pub mod bench;
pub mod book;
pub mod build;
pub mod changed;
pub mod check;
pub mod claims;
pub mod doctor;
pub mod grade;
pub mod grade_all;
pub mod gradescope;
pub mod hint;
pub mod inject;
pub mod kernel;
pub mod kernels;
pub mod progress;
pub mod restore;
pub mod run;
pub mod solution;
pub mod start;
pub mod test_exercises;
pub mod test_hostile;
pub mod test_step;
pub mod test_wrong;
pub mod vm;
pub mod watch;
pub mod why;
