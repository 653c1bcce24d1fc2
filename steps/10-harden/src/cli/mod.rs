//! The tools of `step-10`.

pub mod tool;
