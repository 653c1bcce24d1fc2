//! What images are good for, besides being run.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | an image's configuration as it came, changed in places |
//! | [`fields`] | its JSON, read as Go reads it |
//! | [`change`] | instructions that change its defaults: `--change` |
//! | [`commit`] | an image of a container |
//! | [`archive`] | images and containers as archives: `save`, `export` |
//! | [`history`] | how an image was made |
//! | [`list`] | the images that are here |
//! | [`inspect`] | all that is known about one |

pub mod archive;
pub mod change;
pub mod commit;
pub mod config;
pub mod fields;
pub mod history;
pub mod inspect;
pub mod list;
