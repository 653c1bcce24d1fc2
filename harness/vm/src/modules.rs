//! The kernel modules for the VM: those that the course needs, and their
//! dependencies. modules.dep(5), depmod(8).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The modules to include. The kernel runs modprobe(8) for most of them at
/// their first use (`mount -t overlay`, a bridge, an nft expression). A name
/// without a module is built into the kernel, or missing.
pub const WANTED: &str = "
    virtio_pci virtio_mmio virtio_console virtio_blk virtio_net virtio_rng virtiofs
    overlay fuse squashfs ext4 quota_v2 btrfs loop dm_mod dm_thin_pool dm_snapshot bfq
    crc32c_generic crc32c_intel crc32c_cryptoapi xxhash_generic blake2b_generic sha256_generic
    veth bridge br_netfilter dummy macvlan ipvlan tun
    nf_tables nf_nat nf_conntrack nf_conntrack_netlink nf_log_syslog
    nft_chain_nat nft_nat nft_masq nft_redir nft_ct nft_limit nft_log nft_objref nft_compat
    nft_reject nft_reject_inet nft_reject_ipv4 nft_reject_ipv6
    xt_addrtype xt_comment xt_conntrack xt_mark xt_multiport xt_nat xt_tcpudp xt_MASQUERADE
    nft_fib nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 nft_numgen nft_hash
";

/// The modules of one kernel: `/lib/modules/RELEASE`.
pub struct Modules {
    dir: PathBuf,
    /// Path of each module below `dir`, and the paths of its dependencies.
    depends: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Reads `modules.dep`. Packages lack it, so a kernel that was unpacked but
    /// not installed needs [`depmod`] first.
    pub fn read(dir: &Path) -> Result<Modules> {
        let path = dir.join("modules.dep");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let depends = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(module, needs)| {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                (module.to_owned(), needs)
            })
            .collect();
        Ok(Modules {
            dir: dir.to_owned(),
            depends,
        })
    }

    /// The paths, below the directory, of the modules for the VM.
    pub fn needed(&self) -> BTreeSet<&str> {
        let wanted: BTreeSet<&str> = WANTED.split_whitespace().collect();
        self.depends
            .iter()
            .filter(|(path, _)| wanted.contains(name(path).as_str()))
            .flat_map(|(path, needs)| [path].into_iter().chain(needs))
            .map(String::as_str)
            .collect()
    }

    /// The content of a module, decompressed: some distributions compress
    /// modules, and the kernel may be unable to read them.
    pub fn content(&self, module: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(module);
        let tool = match path.extension().and_then(|e| e.to_str()) {
            Some("xz") => "xz",
            Some("gz") => "gzip",
            Some("zst") => "zstd",
            _ => return fs::read(&path).with_context(|| format!("read {}", path.display())),
        };
        let output = Command::new(tool)
            .arg("-dc")
            .arg(&path)
            .output()
            .with_context(|| format!("run {tool}"))?;
        if !output.status.success() {
            bail!("{tool} cannot decompress {}", path.display());
        }
        Ok(output.stdout)
    }

    /// `modules.dep`, `modules.alias` and so on, reduced to `modules` and with
    /// their [`plain`] names: modprobe reads these files at every call.
    pub fn indexes(&self, modules: &BTreeSet<&str>) -> Result<Vec<(&'static str, String)>> {
        let mut dep = String::new();
        for module in modules {
            let needs = self.depends.get(*module).map_or(&[][..], Vec::as_slice);
            let needs: Vec<&str> = needs.iter().map(|n| plain(n)).collect();
            dep += &format!("{}: {}\n", plain(module), needs.join(" "));
        }
        let names: BTreeSet<String> = modules.iter().map(|m| name(m)).collect();
        let alias: String = self
            .index("modules.alias")?
            .lines()
            .filter(|line| {
                let module = line.split_whitespace().last().unwrap_or_default();
                names.contains(&module.replace('-', "_"))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        Ok(vec![
            ("modules.dep", dep),
            ("modules.alias", alias),
            ("modules.builtin", self.index("modules.builtin")?),
        ])
    }

    fn index(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
            text => text.with_context(|| format!("read {}", path.display())),
        }
    }
}

/// The path of a module without the extension of its compression.
pub fn plain(path: &str) -> &str {
    [".xz", ".gz", ".zst"]
        .into_iter()
        .find_map(|ending| path.strip_suffix(ending))
        .unwrap_or(path)
}

/// The name of a module, as lsmod(8) shows it: `kernel/fs/x-y.ko.xz` is `x_y`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    stem.replace('-', "_")
}

/// Writes `modules.dep` and `modules.alias` of the kernel that was unpacked
/// into `root`, with busybox's depmod.
pub fn depmod(busybox: &Path, root: &Path, release: &str) -> Result<()> {
    let output = Command::new(busybox)
        .args(["depmod", "-b"])
        .args([root.as_os_str(), release.as_ref()])
        .output()
        .with_context(|| format!("run {} depmod", busybox.display()))?;
    if !output.status.success() {
        bail!("depmod: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_brings_what_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let dep = "kernel/fs/overlayfs/overlay.ko.xz:\n\
                   kernel/drivers/md/dm-thin-pool.ko.xz: kernel/drivers/md/dm-mod.ko.xz\n\
                   kernel/drivers/md/dm-mod.ko.xz:\nkernel/fs/xfs/xfs.ko.xz:\n";
        fs::write(dir.path().join("modules.dep"), dep).unwrap();
        fs::write(
            dir.path().join("modules.alias"),
            "alias fs-xfs xfs\nalias fs-overlay overlay\n",
        )
        .unwrap();
        let modules = Modules::read(dir.path()).unwrap();
        let needed = modules.needed();
        assert!(needed.contains("kernel/drivers/md/dm-mod.ko.xz"));
        assert!(!needed.contains("kernel/fs/xfs/xfs.ko.xz"));
        let indexes = modules.indexes(&needed).unwrap();
        assert!(
            indexes[0]
                .1
                .contains("kernel/drivers/md/dm-thin-pool.ko: kernel/drivers/md/dm-mod.ko\n")
        );
        assert_eq!(indexes[1].1, "alias fs-overlay overlay\n");
    }
}
