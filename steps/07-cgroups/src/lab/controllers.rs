//! The kernel's controllers: /proc/cgroups (cgroups(7)).

use std::path::Path;

use anyhow::Result;

use crate::group::file;

/// A controller in /proc/cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controller {
    /// The name, such as `memory`.
    pub name: String,
    /// The number of its v1 hierarchy; 0 if it has none or is on v2.
    pub hierarchy: u32,
    /// Whether the kernel was started with it: `cgroup_disable=` switches it
    /// off.
    pub enabled: bool,
}

/// Reads the kernel's controllers.
pub(crate) fn controllers() -> Result<Vec<Controller>> {
    let text = file::read(Path::new("/proc/cgroups"))?;
    Ok(parse_controllers(&text))
}

fn parse_controllers(text: &str) -> Vec<Controller> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(Controller {
                name: fields.next()?.to_owned(),
                hierarchy: fields.next()?.parse().ok()?,
                enabled: fields.nth(1)? == "1",
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_read_from_proc() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\nhugetlb\t0\t1\t0";
        let all = parse_controllers(text);
        assert_eq!(
            (all[0].name.as_str(), all[0].hierarchy, all[0].enabled),
            ("cpu", 1, true)
        );
        assert_eq!((all[1].hierarchy, all[1].enabled), (0, false));
    }
}
