//! Parsing of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount: a line of the file. Names are decoded when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    /// The mount's ID.
    pub id: u64,
    /// The ID of the mount that this one is on.
    pub parent: u64,
    root: &'a [u8],
    mount_point: &'a [u8],
    options: &'a [u8],
    /// Optional fields, `-`, and the fields of the file system.
    rest: &'a [u8],
}

/// The mounts in the content of such a file, in its order. Skips lines that are
/// not mounts.
pub fn parse(mountinfo: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(Mount::of)
}

/// The `wanted` mounts in the content of such a file to which a path leads.
/// Omits those that are hidden by a mount over their mount point, or over a
/// directory above it.
pub fn reachable<'a>(
    mountinfo: &'a [u8],
    wanted: impl Fn(&Mount<'a>) -> bool,
) -> impl Iterator<Item = Mount<'a>> {
    let mounts: Vec<Mount<'a>> = parse(mountinfo).collect();
    let ids: HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
    // By parent and mount point, escaped as it is. Of a process in a chroot(2),
    // neither the root nor the parents of some mounts need be listed: they are
    // on `None`.
    let mut children = HashMap::new();
    for mount in &mounts {
        let on = Some(mount.parent).filter(|id| *id != mount.id && ids.contains(id));
        children.insert((on, mount.mount_point), mount.id);
    }
    let leads_to = move |path: &'a [u8]| {
        way(path).fold(None, |mut on, place| {
            // Several may be stacked on one place.
            while let Some(id) = children.get(&(on, place)) {
                on = Some(*id);
            }
            on
        })
    };
    let is_reachable = move |mount: &Mount<'a>| leads_to(mount.mount_point) == Some(mount.id);
    mounts
        .into_iter()
        .filter(move |mount| wanted(mount) && is_reachable(mount))
}

/// The directories on the way to a path, from the root to the path itself.
fn way(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let above = slashes.map(|(place, _)| &path[..place.max(1)]);
    above.chain((path != b"/").then_some(path))
}

impl<'a> Mount<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(7, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        Some(Mount {
            id: number()?,
            parent: number()?,
            root: fields.nth(1)?,
            mount_point: fields.next()?,
            options: fields.next()?,
            rest: fields.next().unwrap_or_default(),
        })
    }

    /// The directory of the file system that is the root of this mount.
    pub fn root(&self) -> PathBuf {
        unescape(self.root)
    }

    /// The mount point, from the root of the process.
    pub fn mount_point(&self) -> PathBuf {
        unescape(self.mount_point)
    }

    /// The options of the mount: `ro`, `nosuid`.
    pub fn options(&self) -> impl Iterator<Item = &'a str> {
        list(self.options)
    }

    /// The type of the file system.
    pub fn file_system(&self) -> &'a str {
        text(self.behind_dash(0))
    }

    /// The options of the file system: `rw`, `memory`.
    pub fn file_system_options(&self) -> impl Iterator<Item = &'a str> {
        list(self.behind_dash(2))
    }

    fn behind_dash(&self, number: usize) -> &'a [u8] {
        let mut fields = self.rest.split(|byte| *byte == b' ');
        fields.find(|field| *field == b"-");
        fields.nth(number).unwrap_or_default()
    }
}

fn list(field: &[u8]) -> impl Iterator<Item = &str> {
    text(field).split(',')
}

/// A field without names of files; empty if it is not UTF-8.
fn text(field: &[u8]) -> &str {
    std::str::from_utf8(field).unwrap_or_default()
}

/// Decodes the escapes of spaces, tabs, newlines and backslashes in a path,
/// such as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => {
                path.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                path.push(*byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_line_has_optional_fields_and_escapes() {
        let text =
            b"41 31 0:38 / /sys/fs/my\\040groups rw,nosuid shared:9 master:1 - cgroup2 none rw,x\n\
                     nonsense\n\
                     7 6 0:1 /sub /a\\134b\\012c ro - tmpfs none ro\n";
        let mounts: Vec<Mount<'_>> = parse(text).collect();
        assert_eq!(mounts.len(), 2);
        let [group, tmpfs] = &mounts[..] else {
            panic!("two mounts")
        };
        assert_eq!((group.id, group.parent), (41, 31));
        assert_eq!(group.mount_point(), Path::new("/sys/fs/my groups"));
        assert!(group.options().eq(["rw", "nosuid"]));
        assert_eq!(group.file_system(), "cgroup2");
        assert!(group.file_system_options().eq(["rw", "x"]));
        assert_eq!(tmpfs.root(), Path::new("/sub"));
        assert_eq!(tmpfs.mount_point(), Path::new("/a\\b\nc"));
    }

    #[test]
    fn a_mount_below_another_is_hidden() {
        let ids = |text: &str| -> Vec<u64> {
            let mounts = reachable(text.as_bytes(), |_| true);
            mounts.map(|mount| mount.id).collect()
        };
        let root = "1 0 8:1 / / rw - ext4 none rw\n";
        let tree = "\
2 1 0:2 / /sys rw - sysfs none rw
3 2 0:3 / /sys/fs/cgroup rw - cgroup2 none rw
";
        assert_eq!(ids(&format!("{root}{tree}")), [1, 2, 3]);
        // Over the mount point itself.
        let over = "4 3 0:4 / /sys/fs/cgroup rw - tmpfs none rw\n";
        assert_eq!(ids(&format!("{root}{tree}{over}")), [1, 2, 4]);
        // Over a directory above it.
        let over = "5 2 0:5 / /sys rw - tmpfs none rw\n";
        assert_eq!(ids(&format!("{root}{tree}{over}")), [1, 5]);
        // Over the root.
        let over = "6 1 0:6 / / rw - tmpfs none rw\n";
        assert_eq!(ids(&format!("{root}{tree}{over}")), [6]);
        // A process in a chroot sees neither root nor parents.
        assert_eq!(ids(tree), [2, 3]);
    }
}
