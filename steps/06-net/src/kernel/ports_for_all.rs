//! Two sysctls of a container's own network: with them all its users may bind a
//! port below 1024 and send ICMP echo requests (`ip_unprivileged_port_start`,
//! `ping_group_range`, ip-sysctl.rst). On the host only root may, so that no
//! user can impersonate a service; in a network of one container there is no
//! such risk. Docker has the same defaults.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use kit::say;

/// The highest GID that the kernel takes in `ping_group_range`.
const HIGHEST: u32 = i32::MAX as u32;

/// Sets both in the network namespace of this process.
///
/// On a kernel without them, or with a read-only /proc/sys, they stay as they
/// are, and `-v` says so.
pub(crate) fn allow() -> Result<()> {
    set("ip_unprivileged_port_start", "0")?;
    let map = fs::read_to_string("/proc/self/gid_map").context("read /proc/self/gid_map")?;
    match last_group(&map) {
        Some(last) => set("ping_group_range", &format!("0 {last}")),
        None => Ok(()),
    }
}

/// The last GID of the mapped ones that are contiguous from 0 on. The kernel
/// refuses an unmapped GID with `EINVAL`.
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
