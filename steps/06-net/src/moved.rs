//! Devices of the host that are moved into a container (rtnetlink(7),
//! `IFLA_NET_NS_PID`).
//!
//! A device loses its addresses on the way, and is down when it arrives. The
//! child, which has a copy of what the launcher has read, restores them. At the
//! end of the network namespace the kernel returns a physical device to the
//! host, under the name that it has then, and removes a virtual one.

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use kit::say;
use nix::unistd::Pid;
use process::Isolation;

use crate::kernel::{address, link};

/// A device, and its name inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedDevice {
    /// On the host.
    pub outside: String,
    /// In the container.
    pub inside: String,
}

impl MovedDevice {
    /// Checks the names.
    ///
    /// # Errors
    /// A name that no device can have; the loopback device, which cannot be
    /// moved.
    pub fn new(outside: &str, inside: &str) -> Result<Self> {
        for name in [outside, inside] {
            let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
            ensure!(
                (1..=15).contains(&name.len())
                    && name.chars().all(fits)
                    && !matches!(name, "." | ".."),
                "{name:?} is no name of a network device"
            );
        }
        ensure!(
            outside != "lo",
            "lo cannot be moved: each namespace has its own"
        );
        Ok(MovedDevice {
            outside: outside.to_owned(),
            inside: inside.to_owned(),
        })
    }
}

/// The isolation that moves devices into the child's network namespace.
#[derive(Debug)]
pub struct MovedDevices {
    devices: Vec<MovedDevice>,
    /// The index and the addresses of each.
    found: Vec<(u32, Vec<IpNet>)>,
}

impl MovedDevices {
    /// An isolation that moves these.
    pub fn new(devices: Vec<MovedDevice>) -> Self {
        MovedDevices {
            devices,
            found: Vec::new(),
        }
    }
}

impl Isolation for MovedDevices {
    fn name(&self) -> &'static str {
        "devices"
    }

    fn prepare(&mut self) -> Result<()> {
        self.found.clear();
        if self.devices.is_empty() {
            return Ok(());
        }
        let mut route = link::route_client()?;
        for device in &self.devices {
            let name = &device.outside;
            let link = link::find(&mut route, name)?;
            let link = link.with_context(|| format!("there is no network device {name}"))?;
            let addresses = address::permanent(&mut route, link.index)?;
            self.found.push((link.index, addresses));
        }
        Ok(())
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        if self.devices.is_empty() {
            return Ok(());
        }
        let mut route = link::route_client()?;
        for (device, (index, _)) in self.devices.iter().zip(&self.found) {
            say!(
                "ip link set {} netns {child} name {}",
                device.outside,
                device.inside
            );
            link::move_to(&mut route, *index, child, &device.inside)
                .with_context(|| device.outside.clone())?;
        }
        Ok(())
    }

    fn in_container(&mut self) -> Result<()> {
        if self.devices.is_empty() {
            return Ok(());
        }
        let mut route = link::route_client()?;
        for (device, (_, addresses)) in self.devices.iter().zip(&self.found) {
            let name = &device.inside;
            let link = link::find(&mut route, name)?;
            let link = link.with_context(|| format!("the device {name} has not arrived"))?;
            for address in addresses {
                address::add(&mut route, link.index, *address)?;
            }
            link::set_up(&mut route, name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_name() {
        MovedDevice::new("eth0", "in").unwrap();
        for (outside, inside) in [
            ("lo", "x"),
            ("", "x"),
            ("a/b", "x"),
            ("x", ".."),
            ("x", "sixteen_letters_"),
            ("x y", "x"),
        ] {
            assert!(MovedDevice::new(outside, inside).is_err(), "{outside:?}");
        }
    }
}
