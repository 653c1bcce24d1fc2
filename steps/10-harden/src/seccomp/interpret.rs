//! An interpreter: what a program says of a call, without making the call.

use anyhow::{Context, Result, bail, ensure};
use libc::sock_filter;

use crate::seccomp::action::Action;
use crate::seccomp::bpf::{Instruction, LONGEST, Test, Word};

/// A system call as a filter sees it: struct seccomp_data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The interface: `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The number.
    pub number: u32,
    /// The arguments, none of which a filter can look behind.
    pub arguments: [u64; 6],
    /// The address of the instruction that made the call.
    pub pointer: u64,
}

impl Call {
    fn word(&self, word: Word) -> u32 {
        let argument = |n: u8| self.arguments[usize::from(n)];
        match word {
            Word::Number => self.number,
            Word::Arch => self.arch,
            Word::PointerLow => self.pointer as u32,
            Word::PointerHigh => (self.pointer >> 32) as u32,
            Word::Low(n) => argument(n) as u32,
            Word::High(n) => (argument(n) >> 32) as u32,
        }
    }
}

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The action.
    pub action: Action,
    /// How many instructions were executed.
    pub steps: usize,
}

/// Runs a program for a call.
///
/// # Errors
/// A program that the kernel would refuse: one that ends without a return, that
/// is too long, or that has an instruction that seccomp(2) does not.
// ANCHOR: run
pub fn run(program: &[sock_filter], call: &Call) -> Result<Verdict> {
    ensure!(
        program.len() <= LONGEST,
        "it has {} instructions",
        program.len()
    );
    let (mut at, mut accumulator) = (0, 0);
    for steps in 1.. {
        let raw = program.get(at).context("it ends without a return")?;
        let Some(instruction) = Instruction::decode(raw) else {
            bail!("instruction {at} is unknown: {:#x}", raw.code);
        };
        at += 1;
        match instruction {
            Instruction::Load(word) => accumulator = call.word(word),
            Instruction::And(bits) => accumulator &= bits,
            Instruction::Skip(count) => at += count as usize,
            Instruction::Return(value) => {
                let action = Action::of(value);
                return Ok(Verdict { action, steps });
            }
            Instruction::Jump {
                test,
                with,
                yes,
                no,
            } => {
                let holds = match test {
                    Test::Equal => accumulator == with,
                    Test::Greater => accumulator > with,
                    Test::AtLeast => accumulator >= with,
                    Test::AnyBit => accumulator & with != 0,
                };
                at += usize::from(if holds { yes } else { no });
            }
        }
    }
    bail!("it does not end")
}
// ANCHOR_END: run

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_would_refuse_is_an_error() {
        let call = Call::default();
        let program = [Instruction::Skip(5).encode()];
        let error = run(&program, &call).unwrap_err();
        assert!(error.to_string().contains("without a return"));
        let mut odd = Instruction::Return(0).encode();
        odd.code = 0x16;
        assert!(
            run(&[odd], &call)
                .unwrap_err()
                .to_string()
                .contains("unknown")
        );
        assert!(run(&vec![odd; LONGEST + 1], &call).is_err());
    }
}
