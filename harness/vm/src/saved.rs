//! Machines that have booted and wait for orders. They can be resumed any
//! number of times: a boot under TCG takes seconds of processor time, a
//! resumption tenths of one.
//!
//! ```text
//! machines/KEY/.lock              held while the image is made; its time is the last use
//! machines/KEY/image/memory       the machine's memory, sparse
//! machines/KEY/image/state        its processors and devices, as QEMU's migration sends them
//! machines/KEY/image/manifest.json
//! ```
//!
//! An image contains neither files of the caller nor secrets: a resumed machine
//! gets them on a disk (`vm/init`). It writes to a copy of the memory, page by
//! page, so that any number of machines run from one image.
//!
//! An image is trusted if it is complete and only its owner may write it:
//! another user could change the kernel in it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Whence, geteuid, lseek};
use serde::{Deserialize, Serialize};

use super::kernel::Image;
use super::qemu::{self, Guest, Terminal, Way, kernel_arguments};
use super::{Accel, Vm, cached, initramfs};
use check::workspace;

/// Most space of all images, in bytes. One takes 100 to 200 MB.
const MOST: u64 = 2 << 30;

/// Age of the last use at which an image is removed.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Space in bytes that must be free before an image is made.
const ROOM: u64 = 1 << 30;

/// Size of a page in bytes. Pages of zeros are not written.
const PAGE: usize = 4096;

/// A machine that can be resumed.
pub struct Saved {
    /// Directory of the image.
    pub place: PathBuf,
    initrd: File,
    memory: File,
    state: Vec<u8>,
}

/// The manifest of an image.
#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Everything that it was made from.
    key: String,
    memory: Sum,
    state: Sum,
}

/// Length and checksum of a file, which show damage.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    length: u64,
    crc32: u32,
}

impl Saved {
    /// The machine that `vm` asks for, made now if there is none. On an error
    /// the caller boots instead.
    pub fn get(vm: &Vm, image: &Image) -> Result<Saved> {
        let base = initramfs::base(image)?;
        let key = key(vm, image, &base)?;
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let all = workspace::cache().join("machines");
        let place = all.join(format!("{:016x}", hasher.finish()));
        for dir in [&all, &place] {
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        // Whoever may write to a directory can replace what is in it.
        let cache = workspace::cache();
        let metas = [
            (&cache, fs::metadata(&cache)), // where a link leads, perhaps
            (&all, fs::symlink_metadata(&all)),
            (&place, fs::symlink_metadata(&place)),
        ];
        for (dir, meta) in metas {
            only_ours(&meta.with_context(|| format!("stat {}", dir.display()))?)
                .with_context(|| dir.display().to_string())?;
        }
        let dir = place.join("image");
        if dir.exists() {
            match Self::open(&place, &key, &base) {
                Ok(saved) => return Ok(saved),
                Err(error) => {
                    eprintln!("A saved machine is not used ({error:#}). Saving another …");
                    forget(&place)?;
                    fs::create_dir_all(&place).context("mkdir")?;
                }
            }
        }
        forget_old(&all, &place, MOST)?;
        cached::publish_quietly(&dir, |dir| make(vm, image, &base, &key, dir))?;
        Self::open(&place, &key, &base)
    }

    fn open(place: &Path, key: &str, base: &Path) -> Result<Saved> {
        let dir = place.join("image");
        only_ours(&fs::symlink_metadata(&dir).context("stat image")?)
            .with_context(|| dir.display().to_string())?;
        let manifest: Manifest =
            serde_json::from_slice(&read(&dir.join("manifest.json"))?).context("manifest.json")?;
        ensure!(manifest.key == key, "it is another one");
        let state = read(&dir.join("state"))?;
        let found = Sum {
            length: state.len() as u64,
            crc32: crc32fast::hash(&state),
        };
        ensure!(manifest.state == found, "its state is damaged");
        let memory = open(&dir.join("memory"))?;
        let found = sum_of_pages(&memory, |_, _| Ok(())).context("read its memory")?;
        ensure!(manifest.memory == found, "its memory is damaged");
        // The time of the last use, for `forget_old`.
        File::create(place.join(".lock"))
            .and_then(|lock| lock.set_modified(SystemTime::now()))
            .context("set the time of .lock")?;
        Ok(Saved {
            place: place.to_owned(),
            initrd: File::open(base).with_context(|| format!("open {}", base.display()))?,
            memory,
            state,
        })
    }

    /// The [`Way`] to resume it, with these files.
    pub fn way(self, files: File) -> Way {
        Way::Resume {
            initrd: self.initrd,
            memory: self.memory,
            state: self.state,
            files,
        }
    }
}

/// Removes a machine. Machines that run from it continue.
pub fn forget(place: &Path) -> Result<()> {
    match fs::remove_dir_all(place) {
        // Another run may remove it too.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", place.display()))
        }
        _ => Ok(()),
    }
}

/// A description of everything that a saved machine consists of and that has to
/// understand it.
fn key(vm: &Vm, image: &Image, base: &Path) -> Result<String> {
    let file = |path: &Path| -> Result<String> {
        let meta = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?;
        let (size, time, nanos) = (meta.len(), meta.mtime(), meta.mtime_nsec());
        Ok(format!("{} {size} {time}.{nanos}", path.display()))
    };
    let arguments = kernel_arguments(vm, Terminal::None);
    Ok([
        env!("CARGO_PKG_VERSION").to_owned(),
        file(&qemu::find()?)?,
        file(&image.file)?,
        file(base)?,
        qemu::machine(vm, Accel::Tcg).join(" "),
        format!("{arguments} {} {}", qemu::WAITS, qemu::DISK),
    ]
    .join("\n"))
}

/// Boots a machine and saves it in `dir`.
fn make(vm: &Vm, image: &Image, base: &Path, key: &str, dir: &Path) -> Result<()> {
    let free = statvfs(dir).context("statvfs")?;
    let free = free.blocks_available() * free.fragment_size();
    ensure!(free >= ROOM, "{} MB are free on the disk", free >> 20);
    let initrd = File::open(base).with_context(|| format!("open {}", base.display()))?;
    let memory = memfd_create(c"memory", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let memory = File::from(memory);
    memory
        .set_len(u64::from(vm.memory_mib) << 20)
        .context("ftruncate")?;
    let way = Way::Save {
        initrd,
        memory: memory.try_clone().context("dup")?,
    };
    let state = Guest::start(vm, image, Accel::Tcg, way, Terminal::None)?.save()?;
    let create = |name: &str| {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let path = dir.join(name);
        let file = options.open(&path);
        file.with_context(|| format!("create {}", path.display()))
    };
    let saved = create("memory")?;
    let sum = sum_of_pages(&memory, |at, page| saved.write_all_at(page, at))
        .context("write the machine's memory")?;
    saved.set_len(sum.length).context("ftruncate")?;
    create("state")?
        .write_all(&state)
        .context("write the machine's state")?;
    let manifest = Manifest {
        key: key.to_owned(),
        memory: sum,
        state: Sum {
            length: state.len() as u64,
            crc32: crc32fast::hash(&state),
        },
    };
    let json = serde_json::to_vec_pretty(&manifest).context("write JSON")?;
    create("manifest.json")?
        .write_all(&json)
        .context("write manifest.json")
}

/// Reads the pages of a sparse file that are not all zero, passes each with its
/// offset to `on_page`, and returns their sum.
fn sum_of_pages(
    file: &File,
    mut on_page: impl FnMut(u64, &[u8]) -> std::io::Result<()>,
) -> Result<Sum> {
    let length = file.metadata().context("stat")?.len();
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let from = match lseek(file, at as i64, Whence::SeekData) {
            Ok(from) => from as u64 / PAGE as u64 * PAGE as u64,
            Err(Errno::ENXIO) => break, // no more data
            Err(errno) => return Err(errno).context("lseek(SEEK_DATA)"),
        };
        let to = lseek(file, from as i64, Whence::SeekHole).context("lseek(SEEK_HOLE)")? as u64;
        at = from;
        while at < to {
            let wanted = (length - at).min(buffer.len() as u64) as usize;
            let part = &mut buffer[..wanted];
            file.read_exact_at(part, at).context("read")?;
            for page in part.chunks(PAGE) {
                if page != &[0; PAGE][..page.len()] {
                    sum.update(&at.to_le_bytes());
                    sum.update(page);
                    on_page(at, page).context("write")?;
                }
                at += page.len() as u64;
            }
        }
    }
    Ok(Sum {
        length,
        crc32: sum.finalize(),
    })
}

/// Opens a file of an image.
fn open(path: &Path) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true) // as QEMU wants it, though it writes to a copy
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    only_ours(&file.metadata().context("stat")?).with_context(|| path.display().to_string())?;
    Ok(file)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {}", path.display()))?;
    Ok(bytes)
}

/// Checks that a file or directory belongs to this user and that nobody else
/// may write it.
fn only_ours(meta: &fs::Metadata) -> Result<()> {
    let own = geteuid().as_raw();
    if meta.uid() != own {
        bail!("it belongs to UID {}, and this is UID {own}", meta.uid());
    }
    ensure!(meta.mode() & 0o022 == 0, "others may write it");
    ensure!(!meta.is_symlink(), "it is a symbolic link");
    Ok(())
}

/// Removes machines that were last resumed more than a month ago, then the
/// least recently used ones until all take at most `most` bytes. `but` stays.
fn forget_old(all: &Path, but: &Path, most: u64) -> Result<()> {
    let mut places = Vec::new();
    for entry in fs::read_dir(all).with_context(|| format!("list {}", all.display()))? {
        let place = entry
            .with_context(|| format!("list {}", all.display()))?
            .path();
        if place == but {
            continue;
        }
        // Another run may remove it at the same time; then it takes no space.
        let used = fs::metadata(place.join(".lock")).and_then(|lock| lock.modified());
        let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
        let memory = fs::metadata(place.join("image/memory"));
        places.push((used, memory.map_or(0, |meta| meta.blocks() * 512), place));
    }
    places.sort();
    let mut size: u64 = places.iter().map(|(_, size, _)| size).sum();
    for (used, own, place) in places {
        let age = SystemTime::now().duration_since(used).unwrap_or_default();
        if age > MONTH || size > most {
            forget(&place)?;
            size -= own;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_changed_page_changes_the_sum_and_a_hole_does_not() -> Result<()> {
        let sparse = tempfile::tempfile()?;
        sparse.set_len(8 << 20)?;
        sparse.write_all_at(b"word", 5 << 20)?;
        let whole = tempfile::tempfile()?;
        whole.write_all_at(&vec![0; 8 << 20], 0)?;
        whole.write_all_at(b"word", 5 << 20)?;
        let sum = |file: &File| sum_of_pages(file, |_, _| Ok(()));
        assert_eq!(sum(&sparse)?, sum(&whole)?);
        let mut pages = 0;
        sum_of_pages(&whole, |_, _| {
            pages += 1;
            Ok(())
        })?;
        assert_eq!(pages, 1);
        whole.write_all_at(b"w", 7 << 20)?;
        assert_ne!(sum(&sparse)?, sum(&whole)?);
        sparse.set_len(4 << 20)?;
        assert_ne!(sum(&sparse)?, sum(&whole)?);
        Ok(())
    }

    #[test]
    fn what_others_may_write_is_not_trusted() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let set = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode));
        for (mode, trusted) in [(0o700, true), (0o755, true), (0o775, false), (0o757, false)] {
            set(mode)?;
            assert_eq!(only_ours(&fs::metadata(dir.path())?).is_ok(), trusted);
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link"))?;
        assert!(only_ours(&fs::symlink_metadata(dir.path().join("link"))?).is_err());
        Ok(())
    }

    #[test]
    fn those_not_used_for_longest_go_first() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let day = Duration::from_secs(24 * 60 * 60);
        let make = |name: &str, age: Duration| -> Result<PathBuf> {
            let place = dir.path().join(name);
            fs::create_dir_all(place.join("image"))?;
            fs::write(place.join("image/memory"), vec![1; 64 << 10])?;
            File::create(place.join(".lock"))?.set_modified(SystemTime::now() - age)?;
            Ok(place)
        };
        let (old, older, oldest) = (make("a", day)?, make("b", 2 * day)?, make("c", 40 * day)?);
        forget_old(dir.path(), Path::new("/"), 1 << 30)?;
        assert!(old.exists() && older.exists() && !oldest.exists());
        forget_old(dir.path(), Path::new("/"), 100 << 10)?;
        assert!(old.exists() && !older.exists());
        forget_old(dir.path(), &old, 0)?;
        assert!(old.exists());
        Ok(())
    }
}
