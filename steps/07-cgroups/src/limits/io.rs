//! Disk limits: weights and rates (cgroup-v2.rst "IO",
//! cgroup-v1/blkio-controller.rst).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::stat::{major, minor};

use crate::cli::args::{CgroupSettings, DeviceRate};
use crate::limits::limit::{Limit, Value, value};
use crate::limits::units::Bytes;
use crate::limits::weight::io_weight;

/// Adds the disk limits that `args` ask for.
///
/// # Errors
/// Names the option whose value is invalid.
pub(crate) fn io(args: &CgroupSettings, limits: &mut Vec<Limit>) -> Result<()> {
    // With Docker 0 means no weight.
    if let Some(weight) = args.blkio_weight.filter(|weight| *weight != 0) {
        if !(10..=1000).contains(&weight) {
            bail!("--blkio-weight {weight}: give 10 to 1000");
        }
        let choices = |files: [(&'static str, u64); 2]| {
            files
                .map(|(file, weight)| (file, weight.to_string()))
                .to_vec()
        };
        limits.push(Limit {
            asked: format!("--blkio-weight {weight}"),
            implied: false,
            v1: vec![Value {
                controller: "blkio",
                choices: choices([("blkio.weight", weight), ("blkio.bfq.weight", weight)]),
            }],
            v2: vec![Value {
                controller: "io",
                choices: choices([("io.bfq.weight", weight), ("io.weight", io_weight(weight))]),
            }],
        });
    }
    for (option, rates, v1, v2) in [
        (
            "--device-read-bps",
            bps(&args.device_read_bps),
            "blkio.throttle.read_bps_device",
            "rbps",
        ),
        (
            "--device-write-bps",
            bps(&args.device_write_bps),
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            "--device-read-iops",
            args.device_read_iops.clone(),
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            "--device-write-iops",
            args.device_write_iops.clone(),
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ] {
        for DeviceRate { device, rate } in rates {
            let asked = format!("{option} {}:{rate}", device.display());
            let numbers = block_device(&device).with_context(|| asked.clone())?;
            // With Docker 0 means no limit.
            if rate == 0 {
                continue;
            }
            limits.push(Limit {
                asked,
                implied: false,
                v1: vec![value("blkio", v1, format!("{numbers} {rate}"))],
                v2: vec![value("io", "io.max", format!("{numbers} {v2}={rate}"))],
            });
        }
    }
    Ok(())
}

fn bps(rates: &[DeviceRate<Bytes>]) -> Vec<DeviceRate<u64>> {
    rates
        .iter()
        .map(|rate| DeviceRate {
            device: rate.device.clone(),
            rate: rate.rate.0,
        })
        .collect()
}

/// The numbers of a block device, in the form of the files: `8:0`.
fn block_device(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?;
    if !meta.file_type().is_block_device() {
        bail!("{} is not a block device", path.display());
    }
    let numbers = format!("{}:{}", major(meta.rdev()), minor(meta.rdev()));
    if Path::new("/sys/dev/block")
        .join(&numbers)
        .join("partition")
        .exists()
    {
        bail!(
            "{} is a partition: rates are those of whole disks",
            path.display()
        );
    }
    Ok(numbers)
}
