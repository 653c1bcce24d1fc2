//! The build: a fold over the instructions of the stages that are wanted.
//!
//! | module | what |
//! |---|---|
//! | [`shared`] | what all stages share |
//! | [`graph`] | which stages are needed, and run side by side |
//! | [`image`] | the image so far |
//! | [`stage`] | the fold over a stage's instructions |
//! | [`run`] | `RUN`: the description of a container |
//! | [`mounting`], [`mounts`] | `RUN --mount` |
//! | [`files`] | `WORKDIR` |
//! | [`variables`] | `ARG` and `ENV` |
//! | [`cache`], [`why`] | which layer an instruction has made before, and why it is another |
//! | [`layer`] | a container's layer becomes an image's |
//! | [`order`], [`worker`], [`ask`] | containers are made by other processes |
//! | [`prune`] | removal of the cache |

pub mod ask;
pub mod cache;
pub mod error;
pub mod files;
pub mod graph;
pub mod image;
pub mod layer;
pub mod mounting;
pub mod mounts;
pub mod options;
pub mod order;
pub mod prune;
pub mod run;
pub mod shared;
pub mod stage;
pub mod variables;
pub mod why;
pub mod worker;
