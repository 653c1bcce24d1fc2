//! The initramfs of the VM: busybox, the kernel's modules, `vm/init`, and the
//! caller's files.
//!
//! It consists of two archives, one after the other, which the kernel unpacks
//! in turn. The first is the same for every run and kept in the cache. The
//! second is made for each run. Both are in memory only, so that a run that is
//! killed leaves nothing behind.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::archive::Archive;
use super::kernel::Image;
use super::modules::{self, Modules};
use super::{Vm, busybox};
use check::workspace;

/// The first program of the VM: `vm/init`.
const INIT: &str = include_str!("../../../vm/init");

/// Path of the command for `vm/init`.
const COMMAND: &str = "etc/drydock/command";

/// Paths, for `vm/init`, of the program that sets a resumed machine's clock and
/// of the random bytes that it adds.
const WAKE: &str = "etc/drydock/wake";
const SEED: &str = "etc/drydock/seed";

/// The directories of the base, except those of the modules.
const DIRS: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/drydock", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/tmp", 0o1777),
];

/// The files of the base. They include an ordinary user with subordinate IDs.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nlearner:x:1000:1000:learner:/home/learner:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    (
        "etc/group",
        "root:x:0:\nlearner:x:1000:\nnogroup:x:65534:\n",
    ),
    ("etc/subuid", "learner:100000:65536\n"),
    ("etc/subgid", "learner:100000:65536\n"),
    ("etc/hostname", "drydock-vm\n"),
    (
        "etc/hosts",
        "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 drydock-vm\n",
    ),
    ("etc/profile", "PS1='\\u@\\h \\w \\$ '\n"),
];

/// Packs the initramfs of `vm`.
///
/// # Errors
/// Names the file that cannot be read.
pub fn pack(vm: &Vm, image: &Image) -> Result<File> {
    let mut base = File::open(base(image)?).context("open the base of the initramfs")?;
    let memory = memfd_create(c"initramfs", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let mut out = File::from(memory);
    io::copy(&mut base, &mut out).context("copy the base of the initramfs")?;
    pack_onto(out, vm, |_| Ok(()))
}

/// Packs what a resumed machine needs besides its base: the command, the files,
/// the program [`wake`] and random bytes. `disk` is empty.
pub fn pack_files(vm: &Vm, disk: File) -> Result<File> {
    let mut seed = [0; 64];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("read /dev/urandom")?;
    let wake = wake();
    let program = fs::read(&wake).with_context(|| format!("read {}", wake.display()))?;
    pack_onto(disk, vm, |archive| {
        archive.file(WAKE, 0o755, &program)?;
        archive.file(SEED, 0o600, &seed)
    })
}

/// The path of the program that sets a resumed machine's clock.
pub fn wake() -> PathBuf {
    workspace::bin().join("wake")
}

fn pack_onto(
    out: File,
    vm: &Vm,
    more: impl FnOnce(&mut Archive<BufWriter<File>>) -> Result<()>,
) -> Result<File> {
    let dirs: Vec<&str> = DIRS.iter().map(|(dir, _)| *dir).collect();
    let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, out), &dirs);
    archive.file(COMMAND, 0o755, script(vm).as_bytes())?;
    more(&mut archive)?;
    for (from, inside) in &vm.files {
        archive.tree(from, inside)?;
    }
    let out = archive.finish(BufWriter::stream_position)?;
    out.into_inner().context("write the initramfs")
}

/// The command as a shell script, with its environment.
fn script(vm: &Vm) -> String {
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in &vm.env {
        script += &format!("export {name}={}\n", quoted(value));
    }
    let words: Vec<String> = vm.command.iter().map(|word| quoted(word)).collect();
    script + "exec " + &words.join(" ") + "\n"
}

/// Quotes a word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The base archive for a kernel, from the cache or newly made.
pub fn base(image: &Image) -> Result<PathBuf> {
    let busybox = busybox::find()?;
    let key = fingerprint(image, &busybox)?;
    let dir = workspace::cache().join("initramfs");
    let path = dir.join(format!("{key:016x}.cpio"));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
    forget_old(&dir)?;
    let file = tempfile::NamedTempFile::new_in(&dir)
        .with_context(|| format!("create a file in {}", dir.display()))?;
    let file = write_base(file, image, &busybox)?;
    file.as_file().sync_all().context("fsync")?;
    file.persist(&path)
        .with_context(|| format!("rename to {}", path.display()))?;
    Ok(path)
}

/// A hash of everything that the base is made of.
fn fingerprint(image: &Image, busybox: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    (
        env!("CARGO_PKG_VERSION"),
        INIT,
        DIRS,
        FILES,
        modules::WANTED,
    )
        .hash(&mut hasher);
    (&image.release, &image.modules, busybox).hash(&mut hasher);
    let dep = image.modules.as_ref().map(|dir| dir.join("modules.dep"));
    for path in dep.iter().map(PathBuf::as_path).chain([busybox]) {
        let meta = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?;
        (meta.len(), meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Removes bases that have been unused for a month, and unfinished ones.
fn forget_old(dir: &Path) -> Result<()> {
    const MONTH: u64 = 30 * 24 * 60 * 60;
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("read {}", dir.display()))?
            .path();
        let age = fs::metadata(&path)
            .and_then(|meta| meta.accessed())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        let unfinished = path.extension().is_none_or(|e| e != "cpio");
        let limit = if unfinished { 600 } else { MONTH };
        if age.is_some_and(|age| age.as_secs() > limit) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn write_base<W: Write + Seek>(out: W, image: &Image, busybox: &Path) -> Result<W> {
    let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, out), &[]);
    for (dir, mode) in DIRS {
        archive.dir(dir, *mode, (0, 0))?;
    }
    archive.dir("home/learner", 0o755, (1000, 1000))?;
    archive.device("dev/console", 0o600, (5, 1))?;
    archive.device("dev/null", 0o666, (1, 3))?;
    for (path, text) in FILES {
        archive.file(path, 0o644, text.as_bytes())?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    let program = fs::read(busybox).with_context(|| format!("read {}", busybox.display()))?;
    archive.file("bin/busybox", 0o755, &program)?;
    for link in busybox::links(busybox)? {
        if !["bin/busybox", "linuxrc", "sbin/init"].contains(&link.as_str()) {
            archive.link(&link, "/bin/busybox")?;
        }
    }
    if let Some(dir) = &image.modules {
        let modules = Modules::read(dir)?;
        let needed = modules.needed();
        let inside = format!("lib/modules/{}", image.release);
        for module in &needed {
            let path = format!("{inside}/{}", modules::plain(module));
            archive.file(&path, 0o644, &modules.content(module)?)?;
        }
        for (name, text) in modules.indexes(&needed)? {
            archive.file(&format!("{inside}/{name}"), 0o644, text.as_bytes())?;
        }
    }
    let out = archive.finish(BufWriter::stream_position)?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .context("write the initramfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_takes_words_as_they_are() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
