//! Step 14: build.
//!
//! A Dockerfile is a list of instructions, and an image is what a fold over them
//! gives: each takes the image so far and returns the next one. `RUN` is a
//! container, started through the engine's list; `COPY` is a copy into a
//! container that never starts; the others change the configuration.
//!
//! Read these, in this order:
//!
//! 1. [`dockerfile`]: a text becomes stages and instructions; variables
//! 2. [`context`]: the files that an instruction may see
//! 3. [`copy`]: `COPY` and `ADD`
//! 4. [`build`](mod@build): the fold, its cache, the graph of stages
//! 5. [`check`]: what is allowed, and probably not meant
//! 6. [`progress`], [`cli`]: what is shown meanwhile, and the command
//!
//! What makes it safe:
//!
//! - [`context`]: nothing outside of the context is read, whatever its links say
//! - The process that reads the Dockerfile and runs stages side by side has
//!   threads, and never clones: it executes this program for every container.

pub mod build;
pub mod check;
pub mod cli;
pub mod context;
pub mod copy;
pub mod dockerfile;
pub mod progress;
