//! A union in a temporary directory, unmounted when dropped.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};
use tempfile::TempDir;

/// The program under test.
pub const STEP: &str = env!("CARGO_BIN_EXE_step-08");

/// Whether a union can be mounted here. Says why not.
pub fn possible() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let fuse = Path::new("/dev/fuse").exists();
    if !(root && fuse) {
        eprintln!("left out: needs root and /dev/fuse");
    }
    root && fuse
}

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Moves this thread, and what it starts, to a mount namespace of its own:
/// elsewhere nobody sees, copies or unmounts what is mounted here.
fn a_mount_namespace_of_our_own() {
    if ALONE.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).unwrap();
}

/// Directories, and a union of them on `mnt`.
pub struct Mounted {
    home: TempDir,
    mounted: bool,
}

impl Mounted {
    /// Directories of these names, and `mnt`, with nothing mounted.
    pub fn prepare(directories: &[&str]) -> Self {
        a_mount_namespace_of_our_own();
        let home = tempfile::tempdir().unwrap();
        for name in directories.iter().chain(&["mnt"]) {
            fs::create_dir(home.path().join(name)).unwrap();
        }
        Mounted {
            home,
            mounted: false,
        }
    }

    /// A union of `rw` above `ro2` above `ro1`, filled by `fill` first.
    pub fn three(fill: impl FnOnce(&Self)) -> Self {
        let mut union = Mounted::prepare(&["rw", "ro2", "ro1"]);
        fill(&union);
        union.mount("dirs=./rw:./ro2=ro+wh:./ro1");
        union
    }

    /// Mounts with these options, relative to the directories.
    pub fn mount(&mut self, options: &str) {
        let output = self.try_mount(options);
        assert!(output.status.success(), "{output:?}");
        self.mounted = true;
    }

    /// As `mount`, for what shall fail.
    pub fn try_mount(&self, options: &str) -> Output {
        Command::new(STEP)
            .args(["mount", "-t", "aufs", "-o", options, "none", "./mnt"])
            .current_dir(self.home.path())
            .output()
            .unwrap()
    }

    /// Unmounts, for a test that mounts again. A child of another test's, between
    /// fork and exec, may still have a copy of a descriptor.
    pub fn umount(&mut self) {
        let mut output = self.run(&["umount", "mnt"]);
        for _ in 0..50 {
            if !String::from_utf8_lossy(&output.stderr).contains("in use") {
                break;
            }
            sleep(Duration::from_millis(20));
            output = self.run(&["umount", "mnt"]);
        }
        assert!(output.status.success(), "{output:?}");
        self.mounted = false;
    }

    /// Runs the program in the directory.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(STEP)
            .args(arguments)
            .current_dir(self.home.path())
            .output()
            .unwrap()
    }

    /// Runs a shell line in the directory, and returns what it prints.
    pub fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a shell line in the directory.
    pub fn try_sh(&self, line: &str) -> Output {
        Command::new("sh")
            .args(["-c", line])
            .current_dir(self.home.path())
            .output()
            .unwrap()
    }

    /// A path in the temporary directory.
    pub fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// A path in the union.
    pub fn mnt(&self, path: &str) -> PathBuf {
        self.home.path().join("mnt").join(path)
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file's text.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The names in a directory, sorted.
    pub fn names(&self, path: &str) -> Vec<String> {
        let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(self.path(path)).unwrap().map(name).collect();
        names.sort();
        names
    }

    /// Whether there is something by that name, be it a dangling link.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            let output = self.run(&["umount", "--lazy", "mnt"]);
            if !output.status.success() {
                eprintln!("{output:?}");
            }
        }
    }
}
