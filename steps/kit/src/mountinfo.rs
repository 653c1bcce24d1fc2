//! Parsing of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount: one line of the file. Paths may contain any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount ID.
    pub id: u64,
    /// The ID of the parent mount.
    pub parent: u64,
    /// The directory of the file system that is the root of this mount.
    pub root: PathBuf,
    /// The mount point, from the root of the process.
    pub mount_point: PathBuf,
    /// The options of the mount, such as `ro` and `nosuid`.
    pub options: Vec<String>,
    /// The type of the file system, such as `tmpfs`.
    pub file_system: String,
    /// The options of the file system, such as `rw` and `memory`.
    pub file_system_options: Vec<String>,
}

/// Parses the content of a mountinfo file. Malformed lines are skipped.
pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let list = |field: &[u8]| text(field).split(',').map(str::to_owned).collect();
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let root = unescape(fields.nth(1)?);
    let mount_point = unescape(fields.next()?);
    let options = list(fields.next()?);
    // Skip the optional fields and their separator.
    fields.find(|field| *field == b"-")?;
    let file_system = text(fields.next()?);
    let file_system_options = list(fields.nth(1)?);
    Some(Mount {
        id,
        parent,
        root,
        mount_point,
        options,
        file_system,
        file_system_options,
    })
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
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        let [group, tmpfs] = &mounts[..] else {
            panic!("two mounts")
        };
        assert_eq!((group.id, group.parent), (41, 31));
        assert_eq!(group.mount_point, Path::new("/sys/fs/my groups"));
        assert_eq!(group.options, ["rw", "nosuid"]);
        assert_eq!(group.file_system, "cgroup2");
        assert_eq!(group.file_system_options, ["rw", "x"]);
        assert_eq!(tmpfs.root, Path::new("/sub"));
        assert_eq!(tmpfs.mount_point, Path::new("/a\\b\nc"));
    }
}
