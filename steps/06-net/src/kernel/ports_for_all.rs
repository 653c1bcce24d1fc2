//! Sysctls of a container's own network, by which all of its users may do what
//! on the host only root may: bind a port below 1024, and send ICMP echo
//! requests (`ip_unprivileged_port_start`, `ping_group_range`, ip-sysctl.rst).
//! On the host these keep a user from passing for a service; in a network that
//! belongs to one container there is nobody to keep. Docker's defaults too.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use kit::say;

/// The highest GID that the kernel takes here.
const HIGHEST: u32 = i32::MAX as u32;

/// Sets both in the network namespace of this process.
///
/// A kernel without them, or a /proc/sys that is read-only, leaves these users
/// with less, which is said with `-v`.
///
/// # Errors
/// Those of reading /proc/self/gid_map and of writing to /proc/sys/net.
pub(crate) fn allow() -> Result<()> {
    set("ip_unprivileged_port_start", "0")?;
    let map = fs::read_to_string("/proc/self/gid_map").context("read /proc/self/gid_map")?;
    match last_group(&map) {
        Some(last) => set("ping_group_range", &format!("0 {last}")),
        None => Ok(()),
    }
}

/// The last of the groups from 0 on that are mapped: the kernel takes no others
/// (`EINVAL`).
fn last_group(gid_map: &str) -> Option<u32> {
    let mut ranges: Vec<(u32, u32)> = gid_map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace();
            let first = numbers.next()?.parse().ok()?;
            Some((first, numbers.nth(1)?.parse().ok()?))
        })
        .collect();
    ranges.sort_unstable();
    let mut next = 0u32;
    for (first, count) in ranges {
        if first == next {
            next = next.saturating_add(count);
        }
    }
    Some(next.checked_sub(1)?.min(HIGHEST))
}

fn set(name: &str, value: &str) -> Result<()> {
    let file = Path::new("/proc/sys/net/ipv4").join(name);
    say!("write {value:?} to {}", file.display());
    match fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()))
    {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            say!("without {name}: {error}");
            Ok(())
        }
        written => written.with_context(|| format!("write {value:?} to {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_ends_where_the_map_does() {
        assert_eq!(last_group("0 0 4294967295\n"), Some(HIGHEST));
        assert_eq!(last_group("0 1000 1\n"), Some(0));
        assert_eq!(last_group("1 100000 65536\n0 1000 1\n"), Some(65_536));
        assert_eq!(last_group("0 0 10\n20 20 5\n"), Some(9));
        assert_eq!(last_group("5 5 1\n"), None);
        assert_eq!(last_group(""), None);
    }
}
