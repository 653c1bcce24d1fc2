//! What images are good for, besides being run.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | an image's configuration as it came, changed in places |
//! | [`commit`] | an image of a container |
//! | [`archive`] | images and containers as archives: `save`, `export` |
//! | [`history`] | how an image was made |
//! | [`list`] | the images that are here |
//! | [`inspect`] | all that is known about one |

pub mod archive;
pub mod commit;
pub mod config;
pub mod history;
pub mod inspect;
pub mod list;
