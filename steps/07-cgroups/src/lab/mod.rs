//! Hierarchies for experiments with the rules of cgroups: `step-07 hierarchy`.
//! No container needs this.
//!
//! | module | what |
//! |---|---|
//! | [`hierarchy`], [`controllers`] | such a hierarchy, and the kernel's controllers |
//! | [`rules`], [`family`] | the four rules of hierarchies, tried with two processes |
//! | [`tool`] | the commands |

pub(crate) mod controllers;
mod family;
pub(crate) mod hierarchy;
pub(crate) mod rules;
pub(crate) mod tool;
