//! The system calls that are forbidden to a container unless it is privileged:
//! seccomp(2).
//!
//! A user namespace gives its creator every capability in it. With
//! `CAP_SYS_ADMIN` there a process may mount its control group again, writable.
//! Root inside that is root outside owns the group's files, and could then lift
//! every limit. So a container can neither make a user namespace nor enter
//! another namespace. Keys belong to a user, whatever namespaces that user is
//! in, so the calls that handle keys are forbidden too.
//!
//! Docker's default filter forbids the same calls and many more, which are the
//! subject of step 10.
//!
//! ```text
//!   A = arch;  native: goto N;  compatible: goto C;  return ENOSYS
//!   A = number, on x86-64 without the x32 bit
//!   for each call that is forbidden:    if A == number  return EPERM
//!   clone3:                             if A == number  return ENOSYS
//!   clone, unshare:                     if A == number
//!                                         A = first argument
//!                                         if A & CLONE_NEWUSER  return EPERM
//!   return ALLOW
//! ```
//!
//! A filter cannot read the structure that is passed to clone3(2). `ENOSYS`
//! makes the C library fall back on clone(2), as on an old kernel.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    CLONE_NEWUSER, ENOSYS, EPERM, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, sock_filter,
};

// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") {
    16
} else {
    20
};

/// The numbers of these calls in one ABI. A 64-bit kernel also runs 32-bit
/// programs, whose numbers differ.
struct Interface {
    /// `AUDIT_ARCH_*` of linux/audit.h.
    arch: u32,
    clone: u32,
    clone3: u32,
    unshare: u32,
    forbidden: [u32; 4],
}

const NATIVE_ARCH: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e // AUDIT_ARCH_X86_64
} else {
    0xc000_00b7 // AUDIT_ARCH_AARCH64
};

const INTERFACES: [Interface; 2] = [
    Interface {
        arch: NATIVE_ARCH,
        clone: libc::SYS_clone as u32,
        clone3: libc::SYS_clone3 as u32,
        unshare: libc::SYS_unshare as u32,
        forbidden: [
            libc::SYS_setns as u32,
            libc::SYS_add_key as u32,
            libc::SYS_request_key as u32,
            libc::SYS_keyctl as u32,
        ],
    },
    if cfg!(target_arch = "x86_64") {
        Interface {
            arch: 0x4000_0003, // AUDIT_ARCH_I386
            clone: 120,
            clone3: 435,
            unshare: 310,
            forbidden: [346, 286, 287, 288],
        }
    } else {
        Interface {
            arch: 0x4000_0028, // AUDIT_ARCH_ARM
            clone: 120,
            clone3: 435,
            unshare: 337,
            forbidden: [375, 309, 310, 311],
        }
    },
];

/// The bit that marks a call of the x32 ABI; its numbers otherwise are those of
/// x86-64.
const X32: u32 = 0x4000_0000;

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn give(what: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, what)
}

/// Skips the next `skip` instructions unless the value is `k`.
fn unless_equal(k: u32, skip: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, skip, k)
}

/// The filter, as a classic BPF program.
pub fn program() -> Vec<sock_filter> {
    let mut program = vec![load(ARCH)];
    for interface in &INTERFACES {
        let block = of_interface(interface);
        program.push(unless_equal(interface.arch, block.len() as u8));
        program.extend(block);
    }
    // Any other ABI.
    program.push(give(refuse(ENOSYS)));
    program
}

fn of_interface(interface: &Interface) -> Vec<sock_filter> {
    let mut block = vec![load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        block.push(instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, !X32));
    }
    let refused = interface.forbidden.iter().map(|number| (*number, EPERM));
    for (number, errno) in refused.chain([(interface.clone3, ENOSYS)]) {
        block.push(unless_equal(number, 1));
        block.push(give(refuse(errno)));
    }
    for number in [interface.clone, interface.unshare] {
        block.push(unless_equal(number, 4));
        block.push(load(FIRST_ARGUMENT));
        let new_user = CLONE_NEWUSER as u32;
        block.push(instruction(BPF_JMP | BPF_JSET | BPF_K, 0, 1, new_user));
        block.push(give(refuse(EPERM)));
        block.push(give(SECCOMP_RET_ALLOW));
    }
    block.push(give(SECCOMP_RET_ALLOW));
    block
}

fn refuse(errno: i32) -> u32 {
    SECCOMP_RET_ERRNO | errno as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for the few operations it has.
    fn run(arch: u32, number: u32, first: u32) -> u32 {
        let program = program();
        let (mut at, mut a) = (0, 0);
        loop {
            let one = program[at];
            at += 1;
            let k = one.k;
            match u32::from(one.code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    a = match k {
                        NUMBER => number,
                        ARCH => arch,
                        FIRST_ARGUMENT => first,
                        _ => panic!("a load from {k}"),
                    }
                }
                c if c == BPF_ALU | BPF_AND | BPF_K => a &= k,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if a == k { one.jt } else { one.jf })
                }
                c if c == BPF_JMP | BPF_JSET | BPF_K => {
                    at += usize::from(if a & k != 0 { one.jt } else { one.jf })
                }
                c if c == BPF_RET | BPF_K => return k,
                c => panic!("unknown operation {c:#x}"),
            }
        }
    }

    #[test]
    fn user_namespaces_are_refused_in_every_interface() {
        let new_user = CLONE_NEWUSER as u32;
        for Interface {
            arch,
            clone,
            clone3,
            unshare,
            forbidden,
        } in INTERFACES
        {
            for number in [clone, unshare] {
                let with_others = new_user | libc::CLONE_NEWNS as u32;
                assert_eq!(run(arch, number, with_others), refuse(EPERM));
                assert_eq!(run(arch, number, libc::SIGCHLD as u32), SECCOMP_RET_ALLOW);
            }
            assert_eq!(run(arch, clone3, 0), refuse(ENOSYS));
            for number in forbidden {
                assert_eq!(run(arch, number, 0), refuse(EPERM));
            }
        }
        assert_eq!(
            run(NATIVE_ARCH, libc::SYS_read as u32, 0),
            SECCOMP_RET_ALLOW
        );
        assert_eq!(run(1, libc::SYS_read as u32, 0), refuse(ENOSYS));
        if cfg!(target_arch = "x86_64") {
            let x32 = libc::SYS_unshare as u32 | X32;
            assert_eq!(run(NATIVE_ARCH, x32, new_user), refuse(EPERM));
        }
    }
}
