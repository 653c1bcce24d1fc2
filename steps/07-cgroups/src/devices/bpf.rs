//! The device rules on v2. There is no file for them: a program of type
//! `BPF_PROG_TYPE_CGROUP_DEVICE`, attached to the group, runs at every open(2)
//! and mknod(2) of a device (bpf(2), cgroup-v2.rst "Device controller").
//!
//! cgroups-rs writes the v1 files only. The program is short enough to be
//! assembled by hand:
//!
//! ```text
//!   r2 = ctx->access_type & 0xffff      kind: 1 block, 2 char
//!   r3 = ctx->access_type >> 16         access: bits 1 mknod, 2 read, 4 write
//!   r4 = ctx->major
//!   r5 = ctx->minor
//!   for each rule:
//!     if r2 != kind       goto next
//!     r1 = r3 & ~access;  if r1 != 0 goto next     something it does not allow
//!     if r4 != major      goto next                unless any
//!     if r5 != minor      goto next                unless any
//!     return 1                                     allowed
//!   next:
//!   return 0                                       EPERM
//! ```

use std::os::fd::BorrowedFd;

use anyhow::Result;
use kit::sys::bpf::{Instruction, prog_attach, prog_load};
use std::os::fd::AsFd;

use crate::devices::{DeviceAccess, DeviceKind, DeviceRule, Verdict};

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs attached to groups below run as well, and can only forbid more.
const BPF_F_ALLOW_MULTI: u32 = 2;

// linux/bpf.h: struct bpf_cgroup_dev_ctx
const CTX_ACCESS_TYPE: i16 = 0;
const CTX_MAJOR: i16 = 4;
const CTX_MINOR: i16 = 8;

// linux/bpf_common.h, linux/bpf.h: the operations in use.
const LDX_MEM_W: u8 = 0x61; // dst = *(u32 *)(src + offset)
const ALU_MOV_K: u8 = 0xb4; // dst = immediate, 32 bits
const ALU_MOV_X: u8 = 0xbc; // dst = src
const ALU_AND_K: u8 = 0x54; // dst &= immediate
const ALU_RSH_K: u8 = 0x74; // dst >>= immediate
const JMP_JNE_K: u8 = 0x55; // if dst != immediate goto + offset
const JMP_JEQ_K: u8 = 0x15; // if dst == immediate goto + offset
const EXIT: u8 = 0x95; // return r0

const R0: u8 = 0;
const R1: u8 = 1; // the context, and after it has been read: a scratch register
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;

fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: src << 4 | dst,
        offset,
        immediate,
    }
}

/// Assembles the program for these rules.
pub(crate) fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LDX_MEM_W, R2, R1, CTX_ACCESS_TYPE, 0),
        instruction(ALU_MOV_X, R3, R2, 0, 0),
        instruction(ALU_AND_K, R2, 0, 0, 0xffff),
        instruction(ALU_RSH_K, R3, 0, 0, 16),
        instruction(LDX_MEM_W, R4, R1, CTX_MAJOR, 0),
        instruction(LDX_MEM_W, R5, R1, CTX_MINOR, 0),
    ];
    for rule in rules {
        let block = one_rule(rule);
        let length = block.len();
        program.extend(block.into_iter().enumerate().map(|(at, mut one)| {
            if one.code == JMP_JNE_K {
                // Offsets count from the instruction after the jump.
                one.offset = (length - at - 1) as i16;
            }
            one
        }));
    }
    program.push(instruction(ALU_MOV_K, R0, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

/// The instructions of one rule. Its jumps do not have their offsets yet.
fn one_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let kind = match rule.kind {
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    };
    let mut block = vec![
        instruction(JMP_JNE_K, R2, 0, 0, kind),
        instruction(ALU_MOV_X, R1, R3, 0, 0),
        instruction(ALU_AND_K, R1, 0, 0, !bits(rule.access)),
        instruction(JMP_JNE_K, R1, 0, 0, 0),
    ];
    for (register, number) in [(R4, rule.major), (R5, rule.minor)] {
        if let Some(number) = number {
            block.push(instruction(JMP_JNE_K, register, 0, 0, number as i32));
        }
    }
    block.push(instruction(ALU_MOV_K, R0, 0, 0, 1));
    block.push(instruction(EXIT, 0, 0, 0, 0));
    block
}

/// The bits `BPF_DEVCG_ACC_*`.
fn bits(access: DeviceAccess) -> i32 {
    i32::from(access.mknod) | i32::from(access.read) << 1 | i32::from(access.write) << 2
}

/// Attaches the rules to a v2 group; every other access is refused.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` in the initial user namespace.
pub(crate) fn attach(group: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<()> {
    let loaded = prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, &program(rules))?;
    prog_attach(group, loaded.as_fd(), BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
}

/// Assembles the program for an ordered list, of which the last rule that
/// applies decides: it asks them from the end.
///
/// A rule that allows applies to a request if it covers all of it; a rule that
/// denies, if it covers a part of it.
fn ordered(rules: &[Verdict]) -> Vec<Instruction> {
    let mut program = program(&[]);
    let end = program.split_off(program.len() - 2);
    for verdict in rules.iter().rev() {
        let mut block = one_rule(&verdict.rule);
        let (left, answer) = match verdict.allow {
            true => (!bits(verdict.rule.access), 1),
            false => (bits(verdict.rule.access), 0),
        };
        let mut jumps = Vec::new();
        for (at, one) in block.iter_mut().enumerate() {
            match one.code {
                ALU_AND_K => one.immediate = left,
                ALU_MOV_K => one.immediate = answer,
                JMP_JNE_K => jumps.push(at),
                _ => {}
            }
        }
        if !verdict.allow {
            // The second jump follows the comparison of the operations.
            block[jumps[1]].code = JMP_JEQ_K;
        }
        let length = block.len();
        for at in jumps {
            block[at].offset = (length - at - 1) as i16;
        }
        program.extend(block);
    }
    program.extend(end);
    program
}

/// Attaches an ordered list of rules to a v2 group; what none of them mentions
/// is refused.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` in the initial user namespace.
pub(crate) fn attach_ordered(group: BorrowedFd<'_>, rules: &[Verdict]) -> Result<()> {
    let loaded = prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, &ordered(rules))?;
    prog_attach(group, loaded.as_fd(), BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::DEFAULT;

    /// Runs a program as the kernel would, for the few operations it has.
    fn run(program: &[Instruction], access_type: u32, major: u32, minor: u32) -> u32 {
        let mut r = [0u32; 6];
        let mut at = 0;
        loop {
            let one = program[at];
            let (dst, src) = ((one.registers & 15) as usize, (one.registers >> 4) as usize);
            at += 1;
            match one.code {
                LDX_MEM_W => r[dst] = [access_type, major, minor][one.offset as usize / 4],
                ALU_MOV_K => r[dst] = one.immediate as u32,
                ALU_MOV_X => r[dst] = r[src],
                ALU_AND_K => r[dst] &= one.immediate as u32,
                ALU_RSH_K => r[dst] >>= one.immediate,
                JMP_JNE_K if r[dst] != one.immediate as u32 => at += one.offset as usize,
                JMP_JEQ_K if r[dst] == one.immediate as u32 => at += one.offset as usize,
                JMP_JNE_K | JMP_JEQ_K => {}
                EXIT => return r[R0 as usize],
                code => panic!("unknown operation {code:#x}"),
            }
        }
    }

    const CHAR: u32 = 2;
    const BLOCK: u32 = 1;
    const MKNOD: u32 = 1 << 16;
    const READ: u32 = 2 << 16;
    const WRITE: u32 = 4 << 16;

    #[test]
    fn the_default_allows_null_and_forbids_disks() {
        let program = program(&DEFAULT);
        assert_eq!(run(&program, CHAR | READ | WRITE, 1, 3), 1);
        assert_eq!(run(&program, CHAR | READ, 136, 7), 1);
        assert_eq!(run(&program, BLOCK | MKNOD, 8, 0), 1);
        assert_eq!(run(&program, BLOCK | READ, 8, 0), 0);
        assert_eq!(run(&program, BLOCK | MKNOD | READ, 8, 0), 0);
        assert_eq!(run(&program, CHAR | READ, 1, 1), 0); // /dev/mem
        assert_eq!(run(&program, BLOCK | READ, 1, 3), 0);
    }

    #[test]
    fn of_an_ordered_list_the_last_rule_decides() {
        let verdict = |allow, kind, major, minor, access: &str| Verdict {
            rule: DeviceRule {
                kind,
                major,
                minor,
                access: access.parse().unwrap(),
            },
            allow,
        };
        let (char, block) = (DeviceKind::Char, DeviceKind::Block);
        let program = ordered(&[
            verdict(true, char, None, None, "rwm"),
            verdict(false, char, Some(1), Some(1), "w"),
            verdict(true, block, Some(7), Some(0), "rw"),
            verdict(false, block, Some(7), None, "rwm"),
            verdict(true, block, Some(7), Some(1), "r"),
        ]);
        assert_eq!(run(&program, CHAR | READ | WRITE, 1, 3), 1);
        assert_eq!(run(&program, CHAR | READ, 1, 1), 1);
        assert_eq!(run(&program, CHAR | READ | WRITE, 1, 1), 0);
        assert_eq!(run(&program, BLOCK | READ, 7, 0), 0);
        assert_eq!(run(&program, BLOCK | READ, 7, 1), 1);
        assert_eq!(run(&program, BLOCK | READ | WRITE, 7, 1), 0);
        assert_eq!(run(&program, BLOCK | READ, 8, 0), 0);
        assert_eq!(run(&ordered(&[]), CHAR | READ, 1, 3), 0);
    }

    #[test]
    fn a_device_to_read_is_not_one_to_write() {
        let rule = DeviceRule {
            kind: DeviceKind::Block,
            major: Some(7),
            minor: Some(0),
            access: "r".parse().unwrap(),
        };
        let program = program(&[rule]);
        assert_eq!(run(&program, BLOCK | READ, 7, 0), 1);
        assert_eq!(run(&program, BLOCK | READ | WRITE, 7, 0), 0);
        assert_eq!(run(&program, BLOCK | READ, 7, 1), 0);
    }
}
