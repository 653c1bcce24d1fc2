//! Programs in classic BPF, as far as seccomp(2) has it: one accumulator, loads
//! from struct seccomp_data, comparisons that jump forward, and a return.
//!
//! A jump cannot lead back. So a program ends after at most as many
//! instructions as it has, and the kernel need not ask whether it ends.

use std::fmt;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD,
    BPF_RET, BPF_W, sock_filter,
};

/// The most instructions that the kernel takes: `BPF_MAXINSNS`.
pub const LONGEST: usize = 4096;

/// A word of struct seccomp_data (linux/seccomp.h): what a program can load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// The number of the call.
    Number,
    /// The interface: `AUDIT_ARCH_*`.
    Arch,
    /// The lower half of the instruction pointer.
    PointerLow,
    /// Its upper half.
    PointerHigh,
    /// The lower half of an argument, from 0 to 5.
    Low(u8),
    /// Its upper half.
    High(u8),
}

impl Word {
    /// The offset in the structure. The two machines that the engine runs on
    /// are little-endian: the lower half comes first.
    pub fn offset(self) -> u32 {
        match self {
            Word::Number => 0,
            Word::Arch => 4,
            Word::PointerLow => 8,
            Word::PointerHigh => 12,
            Word::Low(n) => 16 + 8 * u32::from(n),
            Word::High(n) => 20 + 8 * u32::from(n),
        }
    }

    /// The word at an offset; `None` for one that the kernel would refuse.
    pub fn at(offset: u32) -> Option<Word> {
        let argument = (offset / 8).saturating_sub(2) as u8;
        Some(match offset {
            0 => Word::Number,
            4 => Word::Arch,
            8 => Word::PointerLow,
            12 => Word::PointerHigh,
            16..64 if offset.is_multiple_of(8) => Word::Low(argument),
            16..64 if offset % 8 == 4 => Word::High(argument),
            _ => return None,
        })
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Number => f.write_str("number"),
            Word::Arch => f.write_str("arch"),
            Word::PointerLow => f.write_str("pointer"),
            Word::PointerHigh => f.write_str("pointer (high)"),
            Word::Low(n) => write!(f, "arg{n}"),
            Word::High(n) => write!(f, "arg{n} (high)"),
        }
    }
}

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// Equal.
    Equal,
    /// Greater, without sign.
    Greater,
    /// Greater or equal, without sign.
    AtLeast,
    /// Some bit in common.
    AnyBit,
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Loads a word into the accumulator.
    Load(Word),
    /// Keeps only these bits of the accumulator.
    And(u32),
    /// Compares the accumulator, and skips as many instructions as it says for
    /// true and for false.
    Jump {
        /// How it is compared.
        test: Test,
        /// With what.
        with: u32,
        /// Instructions to skip if true.
        yes: u8,
        /// Instructions to skip if false.
        no: u8,
    },
    /// Skips this many instructions.
    Skip(u32),
    /// Ends with this value.
    Return(u32),
}

impl Instruction {
    /// The kernel's form.
    pub fn encode(self) -> sock_filter {
        let (code, jt, jf, k) = match self {
            Instruction::Load(word) => (BPF_LD | BPF_W | BPF_ABS, 0, 0, word.offset()),
            Instruction::And(bits) => (BPF_ALU | BPF_AND | BPF_K, 0, 0, bits),
            Instruction::Jump {
                test,
                with,
                yes,
                no,
            } => {
                let how = match test {
                    Test::Equal => BPF_JEQ,
                    Test::Greater => BPF_JGT,
                    Test::AtLeast => BPF_JGE,
                    Test::AnyBit => BPF_JSET,
                };
                (BPF_JMP | how | BPF_K, yes, no, with)
            }
            Instruction::Skip(count) => (BPF_JMP | BPF_JA, 0, 0, count),
            Instruction::Return(value) => (BPF_RET | BPF_K, 0, 0, value),
        };
        sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        }
    }

    /// Reads the kernel's form. `None` for an instruction that neither this
    /// compiler nor libseccomp's writes.
    pub fn decode(raw: &sock_filter) -> Option<Instruction> {
        const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
        const AND: u32 = BPF_ALU | BPF_AND | BPF_K;
        const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
        const GREATER: u32 = BPF_JMP | BPF_JGT | BPF_K;
        const AT_LEAST: u32 = BPF_JMP | BPF_JGE | BPF_K;
        const ANY_BIT: u32 = BPF_JMP | BPF_JSET | BPF_K;
        const SKIP: u32 = BPF_JMP | BPF_JA;
        const RETURN: u32 = BPF_RET | BPF_K;
        let jump = |test| Instruction::Jump {
            test,
            with: raw.k,
            yes: raw.jt,
            no: raw.jf,
        };
        Some(match u32::from(raw.code) {
            LOAD => Instruction::Load(Word::at(raw.k)?),
            AND => Instruction::And(raw.k),
            EQUAL => jump(Test::Equal),
            GREATER => jump(Test::Greater),
            AT_LEAST => jump(Test::AtLeast),
            ANY_BIT => jump(Test::AnyBit),
            SKIP => Instruction::Skip(raw.k),
            RETURN => Instruction::Return(raw.k),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_the_kernels() {
        let all = [
            Instruction::Load(Word::High(5)),
            Instruction::And(0xff),
            Instruction::Jump {
                test: Test::AtLeast,
                with: 7,
                yes: 255,
                no: 1,
            },
            Instruction::Skip(4000),
            Instruction::Return(0x7fff_0000),
        ];
        let raw = all.map(Instruction::encode);
        assert_eq!(
            raw.each_ref().map(|one| one.code),
            [0x20, 0x54, 0x35, 0x05, 0x06]
        );
        assert_eq!(raw[0].k, 60);
        assert_eq!(raw.each_ref().map(Instruction::decode), all.map(Some));
        for offset in (0..64).step_by(4) {
            assert_eq!(Word::at(offset).unwrap().offset(), offset);
        }
        assert_eq!(Word::at(64), None);
        assert_eq!(Word::at(2), None);
    }
}
