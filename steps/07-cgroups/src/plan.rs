//! The hierarchies in which a container needs a group, and the checks that they
//! can enforce its limits, before anything is made.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use kit::{say, warn};
use nix::unistd::geteuid;

use crate::group::file;
use crate::group::v1::ALWAYS;
use crate::host::hierarchy::{Hierarchy, Version};
use crate::host::layout::Layout;
use crate::limits::limit::{Limit, Value};

/// The groups to make.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// v1 hierarchies, and whether a limit depends on each.
    pub(crate) v1: Vec<(&'a Hierarchy, bool)>,
    /// The v2 hierarchy, if a group in it is needed.
    pub(crate) v2: Option<&'a Hierarchy>,
    /// The controllers that the v2 group must have, each with the limit that
    /// needs it.
    pub(crate) controllers: Vec<(&'static str, String)>,
}

impl<'a> Plan<'a> {
    /// Plans the groups for these limits. A controller is either in a v1
    /// hierarchy or in v2, never in both; v1 is tried first.
    ///
    /// # Errors
    /// Names the limit whose controller is in neither.
    pub(crate) fn new(layout: &'a Layout, limits: &[Limit]) -> Result<Self> {
        let mut plan = Plan::default();
        let mut on_v1: Vec<&str> = Vec::new();
        for limit in limits {
            match version(layout, limit)? {
                Version::V1 => on_v1.extend(limit.v1.iter().map(|value| value.controller)),
                Version::V2 => plan
                    .controllers
                    .extend(limit.v2.iter().map(|v| (v.controller, limit.asked.clone()))),
            }
        }
        for hierarchy in layout
            .hierarchies
            .iter()
            .filter(|h| h.version == Version::V1)
        {
            let needed = hierarchy.has(&on_v1);
            if needed || hierarchy.has(&ALWAYS) {
                plan.v1.push((hierarchy, needed));
            }
        }
        // Beside the v1 groups, a v2 group would have no effect of its own.
        let devices_on_v1 = layout.find("devices").is_some();
        if !plan.controllers.is_empty() || !devices_on_v1 {
            plan.v2 = layout.v2();
        }
        Ok(plan)
    }
}

/// The version of the hierarchy in which a limit is set.
///
/// # Errors
/// Names the limit whose controller is in no mounted hierarchy.
pub(crate) fn version(layout: &Layout, limit: &Limit) -> Result<Version> {
    let on_v1 = |value: &Value| {
        layout
            .find(value.controller)
            .is_some_and(|hierarchy| hierarchy.version == Version::V1)
    };
    if limit.v1.iter().all(on_v1) {
        return Ok(Version::V1);
    }
    match layout.v2() {
        Some(_) => Ok(Version::V2),
        None => {
            let controller = limit.v1.first().map_or("", |value| value.controller);
            Err(missing(&limit.asked, controller, None))
        }
    }
}

/// Checks that a v2 group can have the controllers it needs.
///
/// # Errors
/// Names the limit, the controller and the remedy.
pub(crate) fn require(
    needed: &[(&'static str, String)],
    available: &[String],
    base: &Path,
) -> Result<()> {
    match needed
        .iter()
        .find(|(controller, _)| !available.iter().any(|c| c == controller))
    {
        Some((controller, asked)) => Err(missing(asked, controller, Some(base))),
        None => Ok(()),
    }
}

/// The error for an unavailable controller, with the cause that /proc/cgroups
/// (cgroups(7)) shows.
fn missing(asked: &str, controller: &str, base: Option<&Path>) -> anyhow::Error {
    // That file has v1's name for it.
    let listed = if controller == "io" {
        "blkio"
    } else {
        controller
    };
    let text = file::read(Path::new("/proc/cgroups")).unwrap_or_default();
    let line = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&listed));
    let hierarchy = line.as_ref().and_then(|fields| fields.get(1)).copied();
    let enabled = line.as_ref().and_then(|fields| fields.get(3)).copied();
    let why = match (hierarchy, enabled, base) {
        (Some(_), Some("0"), _) => format!(
            "the kernel was started without the {controller} controller (cgroup_disable={listed} on \
             its command line)"
        ),
        (Some(id), _, Some(base)) if id != "0" => format!(
            "the {controller} controller is not in {}: it belongs to a v1 hierarchy, which is not \
             mounted here",
            base.display()
        ),
        (_, _, Some(base)) if base.join("cgroup.type").exists() => format!(
            "the {controller} controller is not in {}/cgroup.controllers: it was not delegated; \
             enable it in cgroup.subtree_control of the parent group, or with systemd: systemctl \
             edit user@.service, [Service] Delegate=yes",
            base.display()
        ),
        (Some(_), _, None) => format!(
            "no hierarchy with the {controller} controller is mounted: mount -t cgroup -o {listed} \
             cgroup /sys/fs/cgroup/{listed}, or if that says EINVAL mount cgroup2, because this \
             kernel has it there only"
        ),
        _ => format!("this kernel has no {controller} controller"),
    };
    anyhow!("{asked} cannot be enforced: {why}")
}

/// Returns why a hierarchy cannot be used, if no limit depends on it.
///
/// # Errors
/// Names the limit that depends on it.
pub(crate) fn do_without(why: anyhow::Error, asked: Option<&str>) -> Result<String> {
    match asked {
        Some(asked) => bail!("{asked} cannot be enforced: {why:#}"),
        None => Ok(format!("{why:#}")),
    }
}

/// Reports, in one line, the hierarchies without a group. An ordinary user
/// usually has none, and sees the line with `-v` only.
pub(crate) fn say_without(places: &[String]) {
    if places.is_empty() {
        return;
    }
    let why = places.join("; ");
    match geteuid().is_root() {
        true => warn!("cgroups: no control group here: {why}"),
        false => say!("warning: no control group: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::CgroupSettings;
    use crate::limits::limits;
    use crate::limits::units::Bytes;

    fn hierarchy(version: Version, controllers: &[&str]) -> Hierarchy {
        Hierarchy {
            version,
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            name: None,
            mount_point: "/x".into(),
            own: "/x".into(),
            read_only: false,
        }
    }

    fn memory_and_pids() -> Vec<Limit> {
        limits(&CgroupSettings {
            memory: Some(Bytes(64 << 20)),
            pids_limit: Some(9),
            ..CgroupSettings::default()
        })
        .unwrap()
    }

    #[test]
    fn hybrid_takes_each_controller_where_it_is() {
        let layout = Layout {
            hierarchies: vec![
                hierarchy(Version::V1, &["devices"]),
                hierarchy(Version::V1, &["memory"]),
                hierarchy(Version::V1, &["net_cls"]),
                hierarchy(Version::V2, &["pids"]),
            ],
        };
        let plan = Plan::new(&layout, &memory_and_pids()).unwrap();
        let v1: Vec<_> = plan
            .v1
            .iter()
            .map(|(h, needed)| (&h.controllers[0][..], *needed))
            .collect();
        assert_eq!(v1, [("devices", false), ("memory", true)]);
        assert!(plan.v2.is_some());
        assert_eq!(plan.controllers, [("pids", "--pids-limit 9".to_owned())]);
    }

    #[test]
    fn hybrid_leaves_v2_alone_when_nothing_is_needed_from_it() {
        let layout = Layout {
            hierarchies: vec![
                hierarchy(Version::V1, &["devices", "memory", "pids"]),
                hierarchy(Version::V2, &[]),
            ],
        };
        assert!(Plan::new(&layout, &memory_and_pids()).unwrap().v2.is_none());
    }

    #[test]
    fn what_is_nowhere_is_named() {
        let layout = Layout {
            hierarchies: vec![hierarchy(Version::V1, &["memory"])],
        };
        let error = Plan::new(&layout, &memory_and_pids()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--pids-limit 9 cannot be enforced")
        );
        let needed = [("memory", "--memory 64m".to_owned())];
        let error = require(&needed, &["pids".to_owned()], Path::new("/x")).unwrap_err();
        assert!(
            error.to_string().contains("--memory 64m")
                && error.to_string().contains("memory controller")
        );
    }
}
