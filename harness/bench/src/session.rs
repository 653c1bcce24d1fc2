//! A session: the scratch place, the image that all contenders start, the
//! machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::machine::Machine;
use super::peers::{self, IMAGE, words_of_crun};
use super::scratch::Scratch;
use super::tools::{HELPERS, PEERS, output};
use check::{build, registry, workspace};

/// The state that all benches of a session share.
pub struct Session {
    /// The scratch place on this host.
    pub scratch: Scratch,
    /// The root file system of every contender: busybox, with the programs of
    /// the bench in /bin.
    pub root: PathBuf,
    /// The machine that the benches run on.
    pub machine: Machine,
    /// The number of measurements of a short command.
    pub runs: u32,
    /// crun's complaint about a host with both versions of cgroups, if version
    /// 2 was hidden here. It is hidden from all contenders.
    pub hidden: Option<String>,
}

/// Programs of the image: name and script. None takes arguments, because the
/// floor passes none on.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "look",
        "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done\n\
         grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status\n\
         cat /proc/self/mountinfo\n\
         sleep 1\n:",
    ),
    ("stay", "echo here\nexec sleep 1000000"),
    // It ends when it is asked to, as process 1 does only if it says so.
    (
        "obey",
        "trap 'exit 0' TERM\necho here\nsleep 1000000 &\nwait",
    ),
];

/// Builds the programs that are measured from the current sources, and requires
/// the root file system busybox.
pub fn built() -> Result<()> {
    let mut steps = registry::numbers(&workspace::checks())?;
    // A handout may end with the engine.
    steps.retain(|step| matches!(step.as_str(), "08" | "09" | "11" | "12" | "13" | "14"));
    build::programs(&steps)?;
    workspace::need_rootfs("busybox")
}

impl Session {
    /// Makes the scratch place and imports the image. Requires root.
    pub fn begin(runs: u32) -> Result<Session> {
        let scratch = Scratch::enter()?;
        let root = scratch.path("root");
        let busybox = workspace::rootfs("busybox").display().to_string();
        output(&["cp", "-a", &busybox, &root.display().to_string()]).context("cp")?;
        let bin = root.join("bin");
        let load = workspace::bin().join("bench-load");
        fs::copy(&load, bin.join("bench-load"))
            .with_context(|| format!("copy {}", load.display()))?;
        for (name, script) in SCRIPTS {
            let file = bin.join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n"))
                .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o755)))
                .with_context(|| format!("write {}", file.display()))?;
        }
        let mut machine = Machine::look(&root);
        for tool in HELPERS.iter().chain(&PEERS) {
            if let Some(version) = tool.version() {
                machine.versions.push((tool.program.to_owned(), version));
            }
        }
        let words = words_of_crun(&scratch.make("crun-first")?, &root)?;
        let hidden = scratch.hide_second_version()?.then_some(words).flatten();
        let session = Session {
            scratch,
            root,
            machine,
            runs,
            hidden,
        };
        session.import("lib", &[])?;
        Ok(session)
    }

    /// A command line of drydock, on the state that holds the image.
    pub fn drydock(&self, args: &[&str]) -> Vec<String> {
        self.drydock_at("lib", args)
    }

    /// A command line of drydock, on the state in this directory of the scratch
    /// place.
    pub fn drydock_at(&self, root: &str, args: &[&str]) -> Vec<String> {
        let program = workspace::bin().join("drydock").display().to_string();
        let mut words = vec![program, "--root".to_owned(), self.scratch.word(root)];
        words.extend(args.iter().map(|&arg| arg.to_owned()));
        words
    }

    /// Imports the root file system as an image into this state, with further
    /// `options`.
    pub fn import(&self, state: &str, options: &[&str]) -> Result<()> {
        let root = self.root.display().to_string();
        let mut argv = self.drydock_at(state, &["import", &root, IMAGE]);
        argv.extend(options.iter().map(|&word| word.to_owned()));
        output(&argv).map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        peers::forget();
    }
}
