//! A Dockerfile: stages, each a list of instructions.
//!
//! | module | what |
//! |---|---|
//! | [`instruction`] | what an instruction says, before variables are expanded |

pub mod instruction;
