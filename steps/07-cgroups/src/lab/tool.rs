//! The commands of `step-07 hierarchy`.

use std::fmt::Write as _;
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Context, Result};
use clap::Subcommand;
use kit::sys;
use nix::sys::signal::Signal;
use process::Exit;

use crate::group::file;
use crate::host::layout::Layout;
use crate::lab::controllers::Controller;
use crate::lab::hierarchy::{self, LabHierarchy};
use crate::lab::rules;

/// What `step-07 hierarchy` can do.
#[derive(Subcommand, Clone, Debug)]
pub enum HierarchyTool {
    /// List the controllers of the kernel, and the hierarchy of each
    Controllers,
    /// Create a v1 hierarchy [default: without controllers]
    Make {
        /// Name of the hierarchy; it is mounted below /run/drydock/hierarchies
        name: String,
        /// Controllers to attach, which no other hierarchy may have
        #[arg(short = 'o', long, value_delimiter = ',', value_name = "LIST")]
        controllers: Vec<String>,
    },
    /// Create a group in a hierarchy, with missing parents
    Group {
        /// Name of the hierarchy
        name: String,
        /// Path of the group from the root group
        path: String,
    },
    /// List the created hierarchies, or the groups of one with their processes
    Ls {
        /// Name of the hierarchy
        name: Option<String>,
    },
    /// Move a process into a group
    Move {
        /// Name of the hierarchy
        name: String,
        /// Path of the group; / is the root group
        path: String,
        /// PID of the process
        #[arg(value_parser = clap::value_parser!(i32).range(1..))]
        pid: i32,
        /// Move a single thread: write to tasks instead of cgroup.procs
        #[arg(long)]
        thread: bool,
    },
    /// Show the group of a process in every hierarchy, including unmounted ones
    Of {
        /// PID of the process [default: the caller]
        #[arg(value_parser = clap::value_parser!(i32).range(1..))]
        pid: Option<i32>,
    },
    /// Try the four rules of hierarchies, and show the kernel's answers
    Rules,
    /// Remove a hierarchy and its groups; their processes move to the root
    /// group
    Rm {
        /// Name of the hierarchy
        name: String,
    },
}

/// Runs a command. Status 1 means that the kernel did not keep a rule.
pub(crate) fn run(tool: HierarchyTool) -> Result<Exit> {
    // A reader that closes the pipe early (`| head`) ends this program quietly.
    sys::signals::default_action(Signal::SIGPIPE)?;
    let mut exit = Exit::Code(0);
    let text = match tool {
        HierarchyTool::Controllers => controllers()?,
        HierarchyTool::Make { name, controllers } => {
            let made = LabHierarchy::make(&name, &controllers)?;
            format!("{}\n", made.root.display())
        }
        HierarchyTool::Group { name, path } => {
            let dir = LabHierarchy::open(&name)?.group(&path)?;
            fs::create_dir_all(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
            format!("{}\n", dir.display())
        }
        HierarchyTool::Ls { name: None } => hierarchy::made()?
            .iter()
            .map(|name| format!("{name}\n"))
            .collect(),
        HierarchyTool::Ls { name: Some(name) } => groups(&LabHierarchy::open(&name)?)?,
        HierarchyTool::Move {
            name,
            path,
            pid,
            thread,
        } => {
            LabHierarchy::open(&name)?.attach(&path, pid, thread)?;
            String::new()
        }
        HierarchyTool::Of { pid } => {
            let pid = pid.map_or("self".to_owned(), |pid| pid.to_string());
            file::read(&Path::new("/proc").join(pid).join("cgroup"))? + "\n"
        }
        HierarchyTool::Rules => {
            let (text, kept) = rules::try_all()?;
            exit = Exit::Code(u8::from(!kept));
            text
        }
        HierarchyTool::Rm { name } => {
            if !LabHierarchy::open(&name)?.remove()? {
                kit::errln!(
                    "step-07: the hierarchy {name} goes with the last mount namespace that shows it"
                );
            }
            String::new()
        }
    };
    stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")?;
    Ok(exit)
}

/// A table of the controllers: those in /proc/cgroups, and those that only v2
/// has.
fn controllers() -> Result<String> {
    let layout = Layout::detect()?;
    let mut text = format!(
        "{:<14}{:<11}{:<9}WHERE\n",
        "CONTROLLER", "HIERARCHY", "ENABLED"
    );
    let mut all = crate::lab::controllers::controllers()?;
    let v2 = layout.v2().map_or(&[][..], |h| &h.controllers[..]);
    for name in v2 {
        // On v1 io is called blkio.
        let old = if name == "io" { "blkio" } else { name };
        if !all.iter().any(|c| c.name == old) {
            all.push(Controller {
                name: name.clone(),
                hierarchy: 0,
                enabled: true,
            });
        }
    }
    for controller in all {
        let name = match controller.name.as_str() {
            "blkio" if v2.iter().any(|c| c == "io") => "io",
            name => name,
        };
        let place = match layout.find(name) {
            Some(hierarchy) => hierarchy.mount_point.display().to_string(),
            None => "-".to_owned(),
        };
        let enabled = if controller.enabled { "yes" } else { "no" };
        writeln!(
            text,
            "{name:<14}{:<11}{enabled:<9}{place}",
            controller.hierarchy
        )
        .context("format the table")?;
    }
    Ok(text)
}

fn groups(hierarchy: &LabHierarchy) -> Result<String> {
    let mut text = String::new();
    for (path, pids) in hierarchy.groups()? {
        let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
        writeln!(text, "{path}: {}", list.join(" ")).context("format the list")?;
    }
    Ok(text)
}
