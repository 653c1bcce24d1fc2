//! What differs from one processor architecture to another: all of it is here.

/// The names under which an architecture is known to QEMU and to Debian.
pub struct Arch {
    /// QEMU's program.
    pub qemu: &'static str,
    /// QEMU's machine type. `microvm` would boot 0.15 s sooner, but has no
    /// clock against which a kernel under TCG could calibrate its own: one boot
    /// in twenty hung.
    pub machine: &'static str,
    /// The processor that QEMU shows the guest where it translates.
    pub processor: &'static str,
    /// The first serial port's name in the guest.
    pub console: &'static str,
    /// The flavour of Debian's kernel for virtual machines, as its packages
    /// are called: `linux-image-cloud-amd64`, `linux-image-6.12-cloud-amd64`.
    pub flavour: &'static str,
    /// What the kernel needs to be told.
    pub kernel_arguments: &'static str,
}

/// The architecture of this program.
#[cfg(target_arch = "x86_64")]
pub const ARCH: Arch = Arch {
    qemu: "qemu-system-x86_64",
    machine: "q35",
    // A plain one, with what x86-64-v2 has besides, for which some
    // distributions build. QEMU could show more (`max`), but kernel and
    // programs then do with vectors, protection keys and the like what costs
    // the translation half as much again.
    processor: "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt",
    console: "ttyS0",
    flavour: "cloud-amd64",
    // The clock is read through a device. The processor's counter would be
    // quicker, but on a busy host the guest has been seen to run ahead of it,
    // and then every time limit is over before its time. The test whether the
    // timer interrupts also fails where the host lets the guest wait.
    //
    // No random addresses: QEMU finds its translation of a program again only at
    // the same address, and the second start then takes a seventh of the time.
    // And no retpolines, which protect nobody here and cost some.
    kernel_arguments: "tsc=unstable clocksource=hpet no_timer_check norandmaps mitigations=off",
};

/// The architecture of this program.
#[cfg(target_arch = "aarch64")]
pub const ARCH: Arch = Arch {
    qemu: "qemu-system-aarch64",
    machine: "virt",
    processor: "max",
    console: "ttyAMA0",
    flavour: "cloud-arm64",
    kernel_arguments: "norandmaps mitigations=off",
};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("harness/src/vm/arch.rs has to learn this architecture's names");
