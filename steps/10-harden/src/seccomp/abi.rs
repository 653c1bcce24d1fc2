//! The interfaces through which programs make system calls. Every interface has
//! numbers of its own: 2 is open(2) on x86-64 and fork(2) on x86.
//!
//! A kernel serves several interfaces. A 64-bit x86 kernel runs 32-bit programs
//! too, and a 64-bit program may itself make 32-bit calls (`int $0x80`). A
//! filter that knows one table only is open to all others.

use std::fmt;
use std::sync::LazyLock;

use syscalls::{aarch64, arm, x86, x86_64};

/// An interface: a calling convention and a table of numbers.
// ANCHOR: abi
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abi {
    /// 64-bit programs on x86.
    X86_64,
    /// 64-bit programs with 32-bit pointers on x86. The kernel reports them as
    /// x86-64, and sets bit 30 of the number.
    X32,
    /// 32-bit programs on x86.
    X86,
    /// 64-bit programs on ARM.
    Aarch64,
    /// 32-bit programs on ARM.
    Arm,
}
// ANCHOR_END: abi

/// The bit of a number that marks a call of [`Abi::X32`]
/// (`__X32_SYSCALL_BIT`, asm/unistd.h).
pub const X32_BIT: u32 = 0x4000_0000;

/// The first of the numbers that only x32 has: calls whose structures hold
/// pointers. Their order is that of arch/x86/entry/syscalls/syscall_64.tbl.
const X32_OWN: (u32, [&str; 36]) = (
    512,
    [
        "rt_sigaction",
        "rt_sigreturn",
        "ioctl",
        "readv",
        "writev",
        "recvfrom",
        "sendmsg",
        "recvmsg",
        "execve",
        "ptrace",
        "rt_sigpending",
        "rt_sigtimedwait",
        "rt_sigqueueinfo",
        "sigaltstack",
        "timer_create",
        "mq_notify",
        "kexec_load",
        "waitid",
        "set_robust_list",
        "get_robust_list",
        "vmsplice",
        "move_pages",
        "preadv",
        "pwritev",
        "rt_tgsigqueueinfo",
        "recvmmsg",
        "sendmmsg",
        "process_vm_readv",
        "process_vm_writev",
        "setsockopt",
        "getsockopt",
        "io_setup",
        "io_submit",
        "execveat",
        "preadv2",
        "pwritev2",
    ],
);

/// The calls of x86-64 that x32 does not have: `64` in the same table, without
/// a number of their own.
const NOT_X32: [&str; 14] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
    "uretprobe",
    "uprobe",
    "map_shadow_stack",
];

/// The calls of an interface, sorted by name. A list, and not a map for each
/// direction: who starts a container stays with it, and so does this.
struct Table(Box<[(&'static str, u32)]>);

impl Table {
    fn new(calls: impl Iterator<Item = (u32, &'static str)>) -> Table {
        let mut calls: Vec<_> = calls.map(|(number, name)| (name, number)).collect();
        calls.sort_unstable();
        Table(calls.into())
    }
}

/// Above every number of a table, apart from ARM's private ones.
const END: usize = 1024;
/// The private calls of 32-bit ARM: `__ARM_NR_BASE` of asm/unistd.h.
const ARM_PRIVATE: [(u32, &str); 6] = [
    (0x0f_0001, "breakpoint"),
    (0x0f_0002, "cacheflush"),
    (0x0f_0003, "usr26"),
    (0x0f_0004, "usr32"),
    (0x0f_0005, "set_tls"),
    (0x0f_0006, "get_tls"),
];

macro_rules! table {
    ($library:ident) => {
        (0..END).filter_map(|number| {
            let call = $library::Sysno::new(number)?;
            let name = call.name();
            // `break` is a word of Rust.
            Some((number as u32, name.strip_prefix("r#").unwrap_or(name)))
        })
    };
}

static X86_64: LazyLock<Table> = LazyLock::new(|| Table::new(table!(x86_64)));
static X32: LazyLock<Table> = LazyLock::new(|| {
    let (first, own) = X32_OWN;
    let shared = table!(x86_64)
        .filter(|(number, name)| *number < first && !own.contains(name) && !NOT_X32.contains(name));
    let own = (first..).zip(own);
    Table::new(
        shared
            .chain(own)
            .map(|(number, name)| (number | X32_BIT, name)),
    )
});
static X86: LazyLock<Table> = LazyLock::new(|| Table::new(table!(x86)));
static AARCH64: LazyLock<Table> = LazyLock::new(|| Table::new(table!(aarch64)));
static ARM: LazyLock<Table> = LazyLock::new(|| Table::new(table!(arm).chain(ARM_PRIVATE)));

impl Abi {
    /// All interfaces that this crate knows.
    pub const ALL: [Abi; 5] = [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm];

    /// The interface of this program.
    pub const NATIVE: Abi = if cfg!(target_arch = "aarch64") {
        Abi::Aarch64
    } else {
        Abi::X86_64
    };

    /// The interfaces that a kernel serves whose own is `self`.
    pub fn served_with(self) -> &'static [Abi] {
        match self {
            Abi::X86_64 | Abi::X32 => &[Abi::X86_64, Abi::X86, Abi::X32],
            Abi::X86 => &[Abi::X86],
            Abi::Aarch64 => &[Abi::Aarch64, Abi::Arm],
            Abi::Arm => &[Abi::Arm],
        }
    }

    /// `arch` of struct seccomp_data: `AUDIT_ARCH_*` of linux/audit.h.
    pub fn audit_arch(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => 0xc000_003e,
            Abi::X86 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
        }
    }

    /// Whether an argument has 32 bits. The upper half of a condition's value
    /// then means nothing: -1 is 0xffffffff.
    pub fn is_32_bit(self) -> bool {
        !matches!(self, Abi::X86_64 | Abi::Aarch64)
    }

    /// The name in a profile: libseccomp's.
    pub fn profile_name(self) -> &'static str {
        match self {
            Abi::X86_64 => "SCMP_ARCH_X86_64",
            Abi::X32 => "SCMP_ARCH_X32",
            Abi::X86 => "SCMP_ARCH_X86",
            Abi::Aarch64 => "SCMP_ARCH_AARCH64",
            Abi::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The name in `includes` and `excludes`: the Go compiler's, as Docker has
    /// it.
    pub fn go_name(self) -> &'static str {
        match self {
            Abi::X86_64 => "amd64",
            Abi::X32 => "x32",
            Abi::X86 => "x86",
            Abi::Aarch64 => "arm64",
            Abi::Arm => "arm",
        }
    }

    fn table(self) -> &'static Table {
        match self {
            Abi::X86_64 => &X86_64,
            Abi::X32 => &X32,
            Abi::X86 => &X86,
            Abi::Aarch64 => &AARCH64,
            Abi::Arm => &ARM,
        }
    }

    /// The number of a call, as the kernel reports it: with bit 30 on x32.
    pub fn number(self, name: &str) -> Option<u32> {
        let Table(calls) = self.table();
        let found = calls.binary_search_by_key(&name, |(name, _)| name).ok()?;
        Some(calls[found].1)
    }

    /// The name of a number.
    pub fn call_name(self, number: u32) -> Option<&'static str> {
        let Table(calls) = self.table();
        let (name, _) = calls.iter().find(|(_, one)| *one == number)?;
        Some(name)
    }

    /// All calls, as numbers and names, by number.
    pub fn calls(self) -> Vec<(u32, &'static str)> {
        let Table(calls) = self.table();
        let mut calls: Vec<_> = calls
            .iter()
            .map(|(name, number)| (*number, *name))
            .collect();
        calls.sort_unstable();
        calls
    }

    /// The interface of a call as the kernel reports it.
    pub fn of_call(arch: u32, number: u32) -> Option<Abi> {
        match Abi::ALL.into_iter().find(|abi| abi.audit_arch() == arch)? {
            Abi::X86_64 if number >= X32_BIT => Some(Abi::X32),
            abi => Some(abi),
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Abi::X86_64 => "x86-64",
            Abi::X32 => "x32",
            Abi::X86 => "x86",
            Abi::Aarch64 => "AArch64",
            Abi::Arm => "ARM",
        })
    }
}

// ANCHOR: multiplexed
/// The calls that 32-bit x86 also has behind one number each: socketcall(2) and
/// ipc(2). The first argument says which call it is, and the call's own
/// arguments are behind a pointer, where no filter can look.
pub struct Multiplexer {
    /// The call that takes the others: `socketcall`.
    pub name: &'static str,
    /// The first argument for each of them (linux/net.h, linux/ipc.h).
    pub calls: &'static [(&'static str, u64)],
}

/// The multiplexers of [`Abi::X86`].
pub const MULTIPLEXERS: [Multiplexer; 2] = [
    Multiplexer {
        name: "socketcall",
        calls: &[
            ("socket", 1),
            ("bind", 2),
            ("connect", 3),
            ("listen", 4),
            ("accept", 5),
            ("getsockname", 6),
            ("getpeername", 7),
            ("socketpair", 8),
            ("send", 9),
            ("recv", 10),
            ("sendto", 11),
            ("recvfrom", 12),
            ("shutdown", 13),
            ("setsockopt", 14),
            ("getsockopt", 15),
            ("sendmsg", 16),
            ("recvmsg", 17),
            ("accept4", 18),
            ("recvmmsg", 19),
            ("sendmmsg", 20),
        ],
    },
    Multiplexer {
        name: "ipc",
        calls: &[
            ("semop", 1),
            ("semget", 2),
            ("semctl", 3),
            ("semtimedop", 4),
            ("msgsnd", 11),
            ("msgrcv", 12),
            ("msgget", 13),
            ("msgctl", 14),
            ("shmat", 21),
            ("shmdt", 22),
            ("shmget", 23),
            ("shmctl", 24),
        ],
    },
];
// ANCHOR_END: multiplexed

/// The number of the multiplexer of a call on 32-bit x86, and the first
/// argument that means this call.
pub fn multiplexed(abi: Abi, name: &str) -> Option<(u32, u64)> {
    if abi != Abi::X86 {
        return None;
    }
    MULTIPLEXERS.iter().find_map(|multiplexer| {
        let (_, first) = multiplexer.calls.iter().find(|(call, _)| *call == name)?;
        Some((abi.number(multiplexer.name)?, *first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_has_numbers_of_its_own() {
        let number = |abi: Abi, name| abi.number(name);
        assert_eq!(number(Abi::X86_64, "openat"), Some(257));
        assert_eq!(number(Abi::X86, "openat"), Some(295));
        assert_eq!(number(Abi::Aarch64, "openat"), Some(56));
        assert_eq!(number(Abi::Arm, "set_tls"), Some(0xf0005));
        assert_eq!(number(Abi::X32, "openat"), Some(257 | X32_BIT));
        assert_eq!(number(Abi::X32, "execve"), Some(520 | X32_BIT));
        assert_eq!(Abi::X32.call_name(59 | X32_BIT), None);
        assert_eq!(number(Abi::X86_64, "nothing"), None);
        assert_eq!(Abi::of_call(0xc000_003e, 59), Some(Abi::X86_64));
        assert_eq!(Abi::of_call(0xc000_003e, 520 | X32_BIT), Some(Abi::X32));
        assert_eq!(Abi::of_call(0, 0), None);
        assert_eq!(number(Abi::NATIVE, "execve"), Some(libc::SYS_execve as u32));
        assert_eq!(multiplexed(Abi::X86, "socket"), Some((102, 1)));
        assert_eq!(multiplexed(Abi::X86_64, "socket"), None);
    }
}
