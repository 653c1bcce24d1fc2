//! Command lines: QEMU's, the guest kernel's, and the command's at a terminal.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Terminal;
use crate::arch::ARCH;
use crate::{Accel, CgroupLayout, Vm};

/// The path of QEMU's program.
pub fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(ARCH.qemu))
        .find(|program| program.is_file())
        .with_context(|| format!("{} is not installed: run vm/setup.sh", ARCH.qemu))
}

/// The machine itself. A saved machine resumes only in the same one.
pub fn machine(vm: &Vm, accel: Accel) -> Vec<String> {
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Auto | Accel::Tcg => ("tcg,thread=multi", ARCH.processor),
    };
    let memory = vm.memory_mib.to_string();
    let cpus = vm.cpus.to_string();
    [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        ARCH.machine,
        "-accel",
        accel,
        "-cpu",
        cpu,
        "-m",
        &memory,
        "-smp",
        &cpus,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Kernel argument: `vm/init` waits for orders after the boot, so that the
/// machine can be saved.
pub const WAITS: &str = "drydock.orders=wait";

/// The command line of the guest's kernel.
pub fn kernel_arguments(vm: &Vm, terminal: Terminal) -> String {
    let layout = match vm.cgroup {
        CgroupLayout::V2 => "v2",
        CgroupLayout::V1 => "v1",
        CgroupLayout::Hybrid => "hybrid",
    };
    // The self-tests of the kernel's ciphers take an eighth of the boot.
    format!(
        "console={} quiet panic=-1 cryptomgr.notests drydock.cgroup={layout}{}{} {}",
        ARCH.console,
        match vm.disk {
            Some(_) => " drydock.root=disk",
            None => "",
        },
        match terminal {
            Terminal::None => "",
            Terminal::Own => " drydock.terminal=hvc0",
        },
        ARCH.kernel_arguments
    )
}

/// A virtio disk that the machine only reads, from a descriptor.
pub(super) fn disk(name: &str, fd: i32) -> [String; 4] {
    let options = "if=none,format=raw,read-only=on,file.locking=off";
    [
        "-drive".to_owned(),
        format!("{options},id={name},file={}", path(&fd)),
        "-device".to_owned(),
        format!("virtio-blk-pci,drive={name}"),
    ]
}

pub(super) fn chardev(name: &str, fd: i32) -> [String; 2] {
    [
        "-chardev".to_owned(),
        format!("file,id={name},path={}", path(&fd)),
    ]
}

/// The machine's memory, in a file. If `shared`, the machine changes the file;
/// else it writes to a copy, page by page.
pub(super) fn memory(vm: &Vm, fd: i32, shared: bool) -> [String; 4] {
    let shared = if shared { "on" } else { "off" };
    [
        "-machine".to_owned(),
        "memory-backend=ram".to_owned(),
        "-object".to_owned(),
        format!(
            "memory-backend-file,id=ram,size={}M,mem-path={},share={shared}",
            vm.memory_mib,
            path(&fd)
        ),
    ]
}

/// The path under which QEMU finds a descriptor that it inherits.
pub(super) fn path(fd: &i32) -> String {
    format!("/proc/self/fd/{fd}")
}

/// The command, started by a shell that sets the size and the type of this
/// terminal.
pub fn at_terminal(command: &[String]) -> Vec<String> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let kind = std::env::var("TERM").unwrap_or_else(|_| "vt100".to_owned());
    let script = format!("stty rows {rows} columns {columns}; export TERM=\"$0\"; exec \"$@\"");
    let shell = ["sh".to_owned(), "-c".to_owned(), script, kind];
    shell.into_iter().chain(command.iter().cloned()).collect()
}
