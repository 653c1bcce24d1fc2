//! Tests whether KVM works here, by booting a VM with it: inside other virtual
//! machines, for instance, `/dev/kvm` can exist and open, and yet run no guest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernel::Image;
use super::qemu::{self, Guest, Terminal, Way};
use super::{Accel, Vm, initramfs};
use check::workspace;

/// Longest boot with KVM. It takes less than a second where KVM works.
const LIMIT: Duration = Duration::from_secs(6);

/// Chooses KVM if it works here, else TCG. The answer is kept for each kernel,
/// because a guest may fail for reasons of its own, until the host reboots or
/// gets another QEMU.
pub fn choose(image: &Image) -> Result<Accel> {
    Ok(match why_not(image)? {
        None => Accel::Kvm,
        Some(_) => Accel::Tcg,
    })
}

/// Why KVM does not work here; `None` if it does.
pub fn why_not(image: &Image) -> Result<Option<String>> {
    let device = Path::new("/dev/kvm");
    if !device.exists() {
        return Ok(Some("/dev/kvm does not exist".to_owned()));
    }
    if let Err(error) = File::options().read(true).write(true).open(device) {
        return Ok(Some(format!("/dev/kvm cannot be opened: {error}")));
    }
    let memory = workspace::cache().join("kvm.json");
    let boot = boot()?;
    let key = format!("{boot} {}", image.release);
    let mut known: BTreeMap<String, Option<String>> = fs::read(&memory)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default();
    if let Some(answer) = known.get(&key) {
        return Ok(answer.clone());
    }
    eprintln!(
        "Trying whether KVM works here, for {} s at most …",
        LIMIT.as_secs()
    );
    let answer = trial(image)?;
    if let Some(why) = &answer {
        eprintln!("It does not ({why}). QEMU translates instead (TCG), which is slower.");
    }
    known.retain(|key, _| key.starts_with(&boot));
    known.insert(key, answer.clone());
    let json = serde_json::to_vec(&known).context("write JSON")?;
    // Replaced in one step: two runs may try at the same time.
    let mut file = tempfile::NamedTempFile::new_in(workspace::cache()).context("create a file")?;
    file.write_all(&json)
        .context("write what is known of KVM")?;
    file.persist(&memory)
        .with_context(|| format!("write {}", memory.display()))?;
    Ok(answer)
}

fn trial(image: &Image) -> Result<Option<String>> {
    let vm = Vm {
        command: vec!["true".to_owned()],
        memory_mib: 256,
        ..Vm::default()
    };
    let initrd = initramfs::pack(&vm, image)?;
    let guest = Guest::start(&vm, image, Accel::Kvm, Way::Boot { initrd }, Terminal::None)?;
    let ended = guest.wait(LIMIT, &mut |_| {})?;
    Ok(ended.status.err())
}

/// Identifies this boot of the host and this QEMU.
fn boot() -> Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read boot_id")?;
    let qemu = qemu::find()?;
    let meta = fs::metadata(&qemu).with_context(|| format!("stat {}", qemu.display()))?;
    Ok(format!("{} {} {}", boot.trim(), meta.len(), meta.mtime()))
}
