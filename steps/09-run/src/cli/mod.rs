//! The command line of `drydock`.
//!
//! | module | what |
//! |---|---|
//! | [`options`], [`run`], [`defaults`] | `drydock run`: its options, their defaults, and the spec that they make with the image |
//! | [`image`] | `load`, `import`, `images`, `rmi` |
//! | [`container`] | `ps`, `inspect`, `stop`, `rm` |
//! | [`volume`] | `volume create`, `ls`, `inspect`, `rm` |
//! | [`places`] | `--root` and `--state`, options of every command |

pub mod container;
pub mod defaults;
pub mod image;
pub mod options;
pub mod places;
pub mod run;
pub mod volume;
