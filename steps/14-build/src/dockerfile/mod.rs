//! A Dockerfile: stages, each a list of instructions.
//!
//! | module | what |
//! |---|---|
//! | [`instruction`] | what an instruction says, before variables are expanded |
//! | [`lines`] | a text becomes logical lines, with their heredocs |
//! | [`words`] | options, lists in JSON, quoted words, pairs |
//! | [`read`] | a logical line becomes an instruction |
//! | [`expand`] | variables and quotes; [`wildcard`] has the patterns in them |
//! | [`mount`] | `RUN --mount` |
//! | [`wrong`] | what is wrong, and in which lines |
//! | [`mark`](mod@mark) | the lines of a file, with the wrong ones marked |
//!
//! BuildKit is the reference, down to the words of its errors. The crates that
//! parse Dockerfiles disagree with it where it matters: `parse-dockerfile`
//! knows one heredoc a `RUN`, at its beginning only, so that the text of
//! `RUN cat <<EOF > /file` becomes instructions; it leaves the comments of a
//! continued line in it, and pairs and quoted words are not split.

pub mod expand;
pub mod instruction;
mod lines;
mod mark;
pub mod mount;
mod read;
#[cfg(test)]
mod tests;
mod wildcard;
pub(crate) mod words;
mod wrong;

use anyhow::Result;

pub use expand::Expander;
pub use instruction::{Dockerfile, Heredoc, Instruction, What};
pub use mark::{lines_of, mark};
pub use wrong::Wrong;

/// Reads a Dockerfile.
///
/// # Errors
/// [`Wrong`], with the words of Docker, for the first line that is.
pub fn parse(text: &str) -> Result<Dockerfile> {
    Ok(read::dockerfile(text)?)
}

/// Reads one instruction, as `ONBUILD` and images hold it.
///
/// # Errors
/// [`Wrong`] without lines.
pub fn one(text: &str, escape: char) -> Result<Instruction> {
    let line = lines::one(text, escape)?;
    Ok(read::instruction(&line, escape)?)
}
