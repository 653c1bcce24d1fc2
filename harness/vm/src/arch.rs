//! Everything that depends on the processor architecture.

/// An architecture's names in QEMU and Debian, and its settings.
pub struct Arch {
    /// Name of QEMU's program.
    pub qemu: &'static str,
    /// QEMU's machine type. `microvm` would boot 0.15 s sooner, but has no
    /// clock against which a kernel under TCG could calibrate its own: one boot
    /// in twenty hung.
    pub machine: &'static str,
    /// The processor that QEMU emulates under TCG.
    pub processor: &'static str,
    /// Name of the first serial port in the guest.
    pub console: &'static str,
    /// Flavour of Debian's kernels for virtual machines, as in the packages
    /// `linux-image-cloud-amd64` and `linux-image-6.12-cloud-amd64`.
    pub flavour: &'static str,
    /// Additional arguments of the guest's kernel.
    pub kernel_arguments: &'static str,
}

/// The architecture of this program.
#[cfg(target_arch = "x86_64")]
pub const ARCH: Arch = Arch {
    qemu: "qemu-system-x86_64",
    machine: "q35",
    // A plain one, plus the features of x86-64-v2, for which some distributions
    // build. QEMU could emulate more (`max`), but kernel and programs would
    // then use vectors, protection keys and the like, which take half as long
    // again to translate.
    processor: "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt",
    console: "ttyS0",
    flavour: "cloud-amd64",
    // The clock is read through a device. The processor's counter would be
    // faster, but on a busy host the guest has been seen to run ahead of it,
    // and then every time limit ends too early. The test of the timer
    // interrupts also fails if the host lets the guest wait.
    //
    // No random addresses: QEMU reuses its translation of a program only at the
    // same address, and the second start then takes a seventh of the time. No
    // retpolines, which cost time and protect nobody here.
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
compile_error!("harness/vm/src/arch.rs has to learn this architecture's names");
