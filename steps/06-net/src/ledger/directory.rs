//! The location of the state.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// The environment variable that moves all of Drydock's state to another
/// directory.
pub(crate) const VARIABLE: &str = "DRYDOCK_STATE";

/// The directory of the state: below `$DRYDOCK_STATE` unless that is empty, or
/// /run/drydock for root, or the user's runtime directory.
pub(crate) fn directory() -> PathBuf {
    let base = match std::env::var_os(VARIABLE).filter(|directory| !directory.is_empty()) {
        Some(directory) => directory.into(),
        None if geteuid().is_root() => "/run/drydock".into(),
        // An empty one counts as unset, and a relative one is invalid (XDG Base
        // Directory Specification).
        None => {
            match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
                Some(runtime) => Path::new(&runtime).join("drydock"),
                None => std::env::temp_dir().join(format!("drydock-{}", geteuid())),
            }
        }
    };
    base.join("net")
}
