//! The command line of `drydock`.
//!
//! | module | what |
//! |---|---|
//! | [`options`] | `drydock run` |
//! | [`image`] | `load`, `import`, `images`, `rmi` |
//! | [`container`] | `ps`, `inspect`, `stop`, `rm` |
//! | [`volume`] | `volume create`, `ls`, `inspect`, `rm` |
//! | [`places`] | `--root` and `--state`, which every command has |

pub mod container;
pub mod image;
pub mod options;
pub mod places;
pub mod volume;
