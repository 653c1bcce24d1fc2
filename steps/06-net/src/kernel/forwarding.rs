//! `net.ipv4.ip_forward`: forwarding of packets from one device to another
//! (ip(7), ip-sysctl.rst of the kernel). Containers need it; it is off on a
//! host that is no router.
//!
//! A write has side effects: the kernel sets the `forwarding` of every device
//! to the same value, and `conf/all/accept_redirects` to the opposite. So these
//! are recorded and restored as well.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kit::say;

const IP_FORWARD: &str = "ip_forward";
const ACCEPT_REDIRECTS: &str = "conf/all/accept_redirects";

/// Previous values in `/proc/sys/net/ipv4`, by their path below it. Empty if
/// the host already forwarded packets: then there is nothing to restore.
pub(crate) type Before = BTreeMap<String, String>;

/// Reads the values that [`enable`] is going to change.
pub(crate) fn remember() -> Result<Before> {
    let mut before = Before::new();
    if read(IP_FORWARD)?.as_deref() != Some("0") {
        return Ok(before);
    }
    for device in fs::read_dir(path("conf")).context("read /proc/sys/net/ipv4/conf")? {
        let device = device.context("read /proc/sys/net/ipv4/conf")?.file_name();
        let name = format!("conf/{}/forwarding", device.to_string_lossy());
        // The others are off, and the restored ip_forward switches them off
        // again.
        if let Some(on) = read(&name)?.filter(|value| value != "0") {
            before.insert(name, on);
        }
    }
    if let Some(value) = read(ACCEPT_REDIRECTS)? {
        before.insert(ACCEPT_REDIRECTS.to_owned(), value);
    }
    before.insert(IP_FORWARD.to_owned(), "0".to_owned());
    Ok(before)
}

/// Switches forwarding on.
///
/// # Errors
/// `EROFS` or `EPERM` if the launcher may not write to /proc/sys.
pub(crate) fn enable() -> Result<()> {
    if read(IP_FORWARD)?.as_deref() == Some("1") {
        return Ok(());
    }
    write(IP_FORWARD, "1")
}

/// Restores the previous values. Those of a removed device are skipped.
pub(crate) fn restore(before: &Before) -> Result<()> {
    // Restored first, because it overwrites the others.
    if let Some(value) = before.get(IP_FORWARD)
        && read(IP_FORWARD)?.as_ref() != Some(value)
    {
        write(IP_FORWARD, value)?;
    }
    for (name, value) in before {
        if read(name)?.is_some_and(|now| now != *value) {
            write(name, value)?;
        }
    }
    Ok(())
}

/// Allows packets with loopback addresses to leave by `device`: a packet from
/// the host to a published port of its own 127.0.0.1 has such a source until it
/// is masqueraded. The rules of [`nat`](crate::nat) prevent containers from
/// using it.
pub(crate) fn route_localnet(device: &str) -> Result<()> {
    write(&format!("conf/{device}/route_localnet"), "1")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net/ipv4").join(name)
}

fn read(name: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(name)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {:?}", path(name))),
    }
}

fn write(name: &str, value: &str) -> Result<()> {
    say!("sysctl net.ipv4.{}={value}", name.replace('/', "."));
    fs::write(path(name), value).with_context(|| format!("write {value} to {:?}", path(name)))
}
