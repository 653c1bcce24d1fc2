//! The command line of `drydock`.
//!
//! | module | what |
//! |---|---|
//! | [`options`], [`run`], [`defaults`] | `drydock run`: its options, and what they and the image make together |
//! | [`image`] | `load`, `import`, `images`, `rmi` |
//! | [`container`] | `ps`, `inspect`, `stop`, `rm` |
//! | [`volume`] | `volume create`, `ls`, `inspect`, `rm` |
//! | [`places`] | `--root` and `--state`, which every command has |

pub mod container;
mod defaults;
pub mod image;
pub mod options;
pub mod places;
pub mod run;
pub mod volume;
