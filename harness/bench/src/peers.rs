//! Other engines: removing the bench's image, and what crun says about this
//! host.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::bundle;
use super::tools::{complaint, named};

/// The name of the image at engines that have images.
pub const IMAGE: &str = "drydock-bench";

/// Removes the image from docker, whose daemon keeps it outside the scratch
/// place.
pub fn forget() {
    let Ok(docker) = named("docker") else { return };
    if docker.find().is_some() {
        let removed = Command::new("docker")
            .args(["image", "rm", "--force", IMAGE])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(error) = removed {
            eprintln!("docker image rm {IMAGE}: {error}");
        }
    }
}

/// crun's complaint about this host's cgroups as they are; `None` if it has
/// none, or is not installed.
pub fn words_of_crun(dir: &Path, root: &Path) -> Result<Option<String>> {
    if named("crun")?.find().is_none() {
        return Ok(None);
    }
    let dir = bundle::write(dir.to_owned(), root, "/drydock-bench-none", &["/bin/true"])?;
    let (state, dir) = (dir.join("state"), dir.display().to_string());
    let state = state.display().to_string();
    complaint(&["crun", "--root", &state, "run", "--bundle", &dir, "bench-0"])
}
