//! Examines the programs, and the virtual machine that they make.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::Finding;
use check::report::seconds;
use vm::{Accel, Kernel, Vm, busybox, kvm, qemu};

/// The examinations, in order.
pub const LOOKS: &[fn() -> Finding] = &[rust, linker, qemu_itself, userland, packages];

/// The examinations that boot a virtual machine.
pub const VM_LOOKS: &[fn() -> Finding] = &[kvm_really, boot];

/// The remedy for a missing program.
const SETUP: &str = "vm/setup.sh installs it";

fn rust() -> Finding {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    match first_line(&cargo, &["--version"]) {
        Some(version) => Finding::good("cargo", version),
        None => Finding::bad("cargo", "not on the PATH")
            .means("nothing can be built")
            .mend("install Rust with rustup"),
    }
}

/// A C compiler, which Rust uses as its linker, and the static C library.
fn linker() -> Finding {
    match first_line("cc", &["-print-file-name=libc.a"]) {
        Some(path) if path.starts_with('/') => Finding::good("linker", format!("cc, and {path}")),
        Some(_) => Finding::bad("linker", "cc, but no libc.a")
            .means("static programs cannot be linked")
            .mend("install libc6-dev, or what your distribution calls the static C library"),
        None => Finding::bad("linker", "cc is not on the PATH")
            .means("nothing can be linked")
            .mend(SETUP),
    }
}

fn qemu_itself() -> Finding {
    let found = qemu::find()
        .ok()
        .and_then(|program| first_line(&program.display().to_string(), &["--version"]));
    match found {
        Some(version) => Finding::good("QEMU", version),
        None => Finding::bad("QEMU", "not on the PATH")
            .means("no virtual machine: checks run with --here only, as root")
            .mend(SETUP),
    }
}

fn userland() -> Finding {
    match busybox::find() {
        Ok(path) => Finding::good("busybox", format!("{}, static", path.display())),
        Err(error) => Finding::bad("busybox", format!("{error:#}"))
            .means("nothing to boot into")
            .mend(SETUP),
    }
}

/// The tools that fetch kernels and root file systems.
fn packages() -> Finding {
    let missing: Vec<&str> = ["apt-get", "dpkg-deb", "mmdebstrap"]
        .into_iter()
        .filter(|program| on_path(program).is_none())
        .collect();
    match missing.as_slice() {
        [] => Finding::good("packages", "apt-get, dpkg-deb, mmdebstrap"),
        ["mmdebstrap"] => Finding::limited("packages", "no mmdebstrap")
            .means("no `rootfs debian`, and the checks that use it are skipped")
            .mend(SETUP),
        _ => Finding::limited("packages", format!("no {}", missing.join(", ")))
            .means("the kernel cannot be fetched: this is not Debian or a relative of it")
            .mend("give --kernel host or --kernel FILE"),
    }
}

fn kvm_really() -> Finding {
    let tried = Kernel::default()
        .image()
        .and_then(|image| kvm::why_not(&image));
    match tried {
        Ok(None) => Finding::good("KVM", "works: a virtual machine has been booted with it"),
        Ok(Some(why)) => Finding::limited("KVM", why)
            .means("QEMU translates instead (TCG): a boot takes 2 s, and checks some times as long")
            .mend("usermod -aG kvm USER for permission; inside a virtual machine, its host must allow nesting"),
        Err(error) => Finding::limited("KVM", format!("could not be tried: {error:#}")),
    }
}

fn boot() -> Finding {
    let vm = Vm {
        command: vec!["uname".to_owned(), "-r".to_owned()],
        accel: Accel::Auto,
        time_limit: Duration::from_secs(60),
        ..Vm::default()
    };
    let mut release = String::new();
    match vm.run(&mut |line| release = line.to_owned()) {
        Ok(result) => Finding::good(
            "virtual machine",
            format!(
                "{} boots in {} ({release})",
                result.description,
                seconds(result.timings.boot)
            ),
        ),
        Err(error) => Finding::bad("virtual machine", format!("{error:#}"))
            .means("checks run with --here only, as root")
            .mend("mend what is marked above"),
    }
}

/// The first line of a program's output; `None` if it fails.
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
