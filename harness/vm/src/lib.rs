//! The virtual machine in which the checks run. It protects the host, and needs
//! neither root nor KVM.
//!
//! | module | what |
//! |---|---|
//! | [`kernel`], [`suites`], [`apt`], [`modules`] | the distribution's kernels, unpacked into the cache |
//! | [`busybox`], [`archive`], [`initramfs`] | what it boots into, with `vm/init` as its first process |
//! | [`qemu`], [`arch`] | the machine and its channels |
//! | [`programs`] | programs of the host that checks require |
//! | [`kvm`] | whether KVM works here, found out by trying |
//! | [`saved`] | machines that have booted, to be resumed |
//! | [`cached`] | directories that are there whole or not at all |
//! | [`guest`], [`pool`], [`times`], [`matrix`] | checks in machines, side by side |
//! | [`checking`], [`repeat`] | checks here or there, once or many times over |

pub mod apt;
pub mod arch;
pub mod archive;
pub mod busybox;
pub mod cached;
pub mod checking;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod kvm;
pub mod matrix;
pub mod modules;
pub mod pool;
pub mod programs;
pub mod qemu;
pub mod repeat;
pub mod saved;
pub mod suites;
pub mod times;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use kernel::Image;
pub use kernel::Kernel;
use qemu::{Guest, Terminal, Way};
use saved::Saved;

use check::workspace;

/// A machine to boot and the command to run in it.
#[derive(Clone, Debug)]
pub struct Vm {
    /// The kernel to boot.
    pub kernel: Kernel,
    /// Layout of the cgroup file systems.
    pub cgroup: CgroupLayout,
    /// Memory in MiB. The files take part of it.
    pub memory_mib: u32,
    /// Number of processors.
    pub cpus: u32,
    /// How QEMU runs the guest's code.
    pub accel: Accel,
    /// Files or directories of this host, each with its absolute path inside.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The image of a disk, with an ext4 file system from which the machine
    /// runs. It is not changed. Without one, the machine runs from its initramfs.
    /// A machine with a disk boots and is never resumed.
    pub disk: Option<PathBuf>,
    /// The command and its arguments. It runs as root, in /root.
    pub command: Vec<String>,
    /// Variables added to the command's environment.
    pub env: Vec<(String, String)>,
    /// Time after which the VM is ended, boot included.
    pub time_limit: Duration,
    /// Whether to resume a machine that has booted before, and to save one if
    /// there is none. Ignored with KVM, which boots in less than a second.
    pub resume: bool,
}

/// How cgroups are mounted at /sys/fs/cgroup: cgroups(7).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum CgroupLayout {
    /// Version 2 with all controllers
    #[default]
    V2,
    /// Version 1, a hierarchy a controller
    V1,
    /// Version 1 for the controllers, version 2 without any at `unified`
    Hybrid,
}

impl std::fmt::Display for CgroupLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CgroupLayout::V2 => "v2",
            CgroupLayout::V1 => "v1",
            CgroupLayout::Hybrid => "hybrid",
        })
    }
}

/// How QEMU runs the guest's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where it works, which is tried once a boot of the host
    #[default]
    Auto,
    /// On the processor itself
    Kvm,
    /// Translated by QEMU; needs nothing of the host
    Tcg,
}

/// The durations of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Packing the initramfs.
    pub packing: Duration,
    /// From QEMU's start to the command's start.
    pub boot: Duration,
    /// Whether the machine was resumed in that time, and not booted.
    pub resumed: bool,
    /// The command.
    pub command: Duration,
}

/// The result of a command in the VM.
#[derive(Debug)]
pub struct VmResult {
    /// Exit status of the command.
    pub status: i32,
    /// Durations.
    pub timings: Timings,
    /// Description of the machine: `Debian 6.1 · cgroup v2 · QEMU/TCG`.
    pub description: String,
    /// Console output of the kernel and `vm/init`.
    pub console: String,
}

/// The VM ended after the start of the command and before its end, so that the
/// command may be the cause.
#[derive(Debug)]
pub struct BrokenOff(pub String);

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokenOff {}

impl Default for Vm {
    fn default() -> Self {
        Vm {
            kernel: Kernel::default(),
            cgroup: CgroupLayout::default(),
            memory_mib: 1024,
            cpus: 2,
            accel: Accel::default(),
            files: Vec::new(),
            disk: None,
            command: vec!["sh".to_owned()],
            env: Vec::new(),
            time_limit: Duration::from_secs(600),
            resume: false,
        }
    }
}

impl Vm {
    /// Boots the VM, runs the command and passes each line of its standard
    /// output to `on_line` as it arrives, without the newline. Its standard
    /// error goes to ours. An interrupted VM leaves nothing behind.
    ///
    /// # Errors
    /// [`BrokenOff`] if the VM ends after the start of the command and before
    /// its end. The console is then kept in a file that the error names.
    pub fn run(&self, on_line: &mut dyn FnMut(&str)) -> Result<VmResult> {
        let (image, accel) = self.machine()?;
        let begun = Instant::now();
        let wanted = self.resume
            && self.disk.is_none()
            && accel == Accel::Tcg
            && initramfs::wake().is_file();
        if wanted && let Some(result) = self.resume(&image, accel, on_line)? {
            return Ok(result);
        }
        let rest = Vm {
            time_limit: self.time_limit.saturating_sub(begun.elapsed()),
            ..self.clone()
        };
        rest.boot(&image, accel, Terminal::None, on_line)
    }

    /// Runs the command in a saved machine. If there is none or it does not
    /// resume, prints the reason and returns `None`.
    fn resume(
        &self,
        image: &Image,
        accel: Accel,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Option<VmResult>> {
        let saved = match Saved::get(self, image) {
            Ok(saved) => saved,
            Err(error) => {
                eprintln!("There is no saved machine to resume ({error:#}). Booting one …");
                return Ok(None);
            }
        };
        let begun = Instant::now();
        let files = initramfs::pack_files(self, qemu::empty_disk()?)?;
        let packing = begun.elapsed();
        let place = saved.place.clone();
        let ended = Guest::start(self, image, accel, saved.way(files), Terminal::None)
            .and_then(|guest| guest.wait(self.time_limit, on_line));
        let why = match ended {
            Ok(ended) => match ended.status {
                Ok(status) => {
                    return Ok(Some(VmResult {
                        status,
                        timings: Timings {
                            packing,
                            boot: ended.boot,
                            resumed: true,
                            command: ended.command,
                        },
                        description: self.description(image, accel),
                        console: ended.console,
                    }));
                }
                Err(why) if ended.started => {
                    let why = format!("{why}{}", keep_console(&ended.console)?);
                    return Err(BrokenOff(why).into());
                }
                Err(why) => format!("{why}{}", keep_console(&ended.console)?),
            },
            Err(error) => format!("{error:#}"),
        };
        eprintln!("The saved machine could not be resumed ({why}). Booting one …");
        saved::forget(&place)?;
        Ok(None)
    }

    /// Boots the VM, runs the command at this terminal and returns its exit
    /// status. There is no time limit. Ctrl-] and then x ends a VM that hangs.
    pub fn shell(&self) -> Result<i32> {
        let (image, accel) = self.machine()?;
        let mut vm = self.clone();
        vm.time_limit = Duration::MAX;
        vm.command = qemu::at_terminal(&self.command);
        eprintln!(
            "Booting {}. `exit` leaves; Ctrl-] x ends it if it hangs.",
            self.description(&image, accel)
        );
        let result = vm.boot(&image, accel, Terminal::Own, &mut |_| {})?;
        Ok(result.status)
    }

    /// Describes a machine in a few words: `Debian 6.1 · cgroup v2 · QEMU/TCG`.
    pub fn description(&self, image: &Image, accel: Accel) -> String {
        let accel = match accel {
            Accel::Kvm => "KVM",
            Accel::Auto | Accel::Tcg => "TCG",
        };
        format!("{} · cgroup {} · QEMU/{accel}", image.name, self.cgroup)
    }

    /// Describes the machine that [`run`](Self::run) will boot. Fetches the
    /// kernel and tests KVM, if necessary.
    pub fn machine_description(&self) -> Result<String> {
        let (image, accel) = self.machine()?;
        Ok(self.description(&image, accel))
    }

    fn machine(&self) -> Result<(Image, Accel)> {
        qemu::find()?;
        let image = self.kernel.image()?;
        let accel = match self.accel {
            Accel::Auto => kvm::choose(&image)?,
            chosen => chosen,
        };
        Ok((image, accel))
    }

    fn boot(
        &self,
        image: &Image,
        accel: Accel,
        terminal: Terminal,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<VmResult> {
        let mut tries = 0;
        loop {
            tries += 1;
            let begun = Instant::now();
            let initrd = initramfs::pack(self, image)?;
            let packing = begun.elapsed();
            let guest = Guest::start(self, image, accel, Way::Boot { initrd }, terminal)?;
            let ended = guest.wait(self.time_limit, on_line)?;
            let why = match ended.status {
                Ok(status) => {
                    return Ok(VmResult {
                        status,
                        timings: Timings {
                            packing,
                            boot: ended.boot,
                            resumed: false,
                            command: ended.command,
                        },
                        description: self.description(image, accel),
                        console: ended.console,
                    });
                }
                Err(why) => format!("{why}{}", keep_console(&ended.console)?),
            };
            if ended.started {
                return Err(BrokenOff(why).into());
            }
            if tries > 1 || !ended.died_booting {
                bail!(why);
            }
            eprintln!("{why}. Booting once more …");
        }
    }
}

/// Saves the console of a failed VM in a file and returns words that name it.
fn keep_console(console: &str) -> Result<String> {
    if console.trim().is_empty() {
        return Ok(String::new());
    }
    let path = workspace::cache().join("vm-console.log");
    std::fs::write(&path, console).with_context(|| format!("write {}", path.display()))?;
    let telling = |line: &&str| line.contains("init: ") || line.contains("Kernel panic");
    let last = console
        .lines()
        .find(telling)
        .or_else(|| console.lines().rfind(|line| !line.trim().is_empty()));
    Ok(format!(
        "; its console, kept in {}, says: {}",
        path.display(),
        last.unwrap_or_default().trim()
    ))
}
