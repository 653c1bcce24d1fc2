//! A program as text: one instruction a line, with the names of the calls that
//! the numbers mean.

use std::fmt::Write;

use anyhow::{Context, Result};
use libc::sock_filter;

use crate::seccomp::abi::{Abi, X32_BIT};
use crate::seccomp::action::{Action, errno_name};
use crate::seccomp::bpf::{Instruction, Test, Word};

/// What the accumulator holds, and the interface, on the way to an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    arch: Option<u32>,
    word: Option<Word>,
}

/// Writes a program down.
///
/// # Errors
/// An instruction that this compiler does not make.
pub fn disassemble(program: &[sock_filter]) -> Result<String> {
    let mut known = vec![None; program.len() + 1];
    let mut text = String::new();
    if let Some(first) = known.first_mut() {
        *first = Some(Known {
            arch: None,
            word: None,
        });
    }
    for (at, raw) in program.iter().enumerate() {
        let instruction = Instruction::decode(raw)
            .with_context(|| format!("instruction {at} is unknown: {:#x}", raw.code))?;
        let here = known[at].unwrap_or(Known {
            arch: None,
            word: None,
        });
        let line = line(instruction, at, here);
        writeln!(text, "{at:>5}  {line}").context("format")?;
        for (target, then) in successors(instruction, at, here) {
            if let Some(place) = known.get_mut(target) {
                // Two ways that lead here may know different things.
                *place = Some(match *place {
                    None => then,
                    Some(before) => Known {
                        arch: before.arch.filter(|arch| then.arch == Some(*arch)),
                        word: before.word.filter(|word| then.word == Some(*word)),
                    },
                });
            }
        }
    }
    Ok(text)
}

fn successors(instruction: Instruction, at: usize, here: Known) -> Vec<(usize, Known)> {
    match instruction {
        Instruction::Load(word) => vec![(
            at + 1,
            Known {
                word: Some(word),
                ..here
            },
        )],
        Instruction::And(_) => vec![(at + 1, here)],
        Instruction::Skip(count) => vec![(at + 1 + count as usize, here)],
        Instruction::Return(_) => Vec::new(),
        Instruction::Jump {
            test,
            with,
            yes,
            no,
        } => {
            let is_arch = here.word == Some(Word::Arch) && test == Test::Equal;
            let then = Known {
                arch: if is_arch { Some(with) } else { here.arch },
                ..here
            };
            let target = |skip: u8| at + 1 + usize::from(skip);
            vec![(target(yes), then), (target(no), here)]
        }
    }
}

fn line(instruction: Instruction, at: usize, here: Known) -> String {
    let target = |skip: u8| at + 1 + usize::from(skip);
    match instruction {
        Instruction::Load(word) => format!("load {word}"),
        Instruction::And(bits) => format!("keep the bits {bits:#x}"),
        Instruction::Skip(count) => format!("go to {}", at + 1 + count as usize),
        Instruction::Return(value) => format!("return {}", returned(Action::of(value))),
        Instruction::Jump {
            test,
            with,
            yes,
            no,
        } => {
            let what = here.word.map_or("it".to_owned(), |word| word.to_string());
            let sign = match test {
                Test::Equal => "==",
                Test::Greater => ">",
                Test::AtLeast => ">=",
                Test::AnyBit => "&",
            };
            let (value, name) = operand(with, here);
            format!(
                "{what} {sign} {value}{name} ? {} : {}",
                target(yes),
                target(no)
            )
        }
    }
}

/// A constant, and what it means where it is a number of a call or an
/// interface.
fn operand(with: u32, here: Known) -> (String, String) {
    match here.word {
        Some(Word::Arch) => {
            let abi = Abi::ALL.into_iter().find(|abi| abi.audit_arch() == with);
            (
                format!("{with:#x}"),
                abi.map_or(String::new(), |abi| format!(" ({abi})")),
            )
        }
        Some(Word::Number) => {
            let name = here
                .arch
                .and_then(|arch| Abi::of_call(arch, with))
                .and_then(|abi| abi.call_name(with));
            let value = match with {
                X32_BIT.. => format!("{with:#x}"),
                _ => with.to_string(),
            };
            (
                value,
                name.map_or(String::new(), |name| format!(" ({name})")),
            )
        }
        _ => (format!("{with:#x}"), String::new()),
    }
}

/// An action in the words of seccomp(2).
fn returned(action: Action) -> String {
    match action {
        Action::KillProcess => "KILL_PROCESS".to_owned(),
        Action::KillThread => "KILL_THREAD".to_owned(),
        Action::Trap => "TRAP".to_owned(),
        Action::Errno(errno) => format!("ERRNO {}", errno_name(errno)),
        Action::Notify => "USER_NOTIF".to_owned(),
        Action::Trace(message) => format!("TRACE {message}"),
        Action::Log => "LOG".to_owned(),
        Action::Allow => "ALLOW".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::cache::Program;
    use crate::seccomp::profile::KernelVersion;
    use crate::seccomp::resolve::Situation;
    use rustix::thread::CapabilitySet;

    #[test]
    fn a_small_program_can_be_followed() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"name":"ptrace","action":"SCMP_ACT_ERRNO"},
            {"name":"personality","action":"SCMP_ACT_KILL_PROCESS",
             "args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
        let situation = Situation {
            native: Abi::X86_64,
            capabilities: CapabilitySet::empty(),
            kernel: KernelVersion(6, 1),
        };
        let program = Program::new(&profile.parse().unwrap(), &situation).unwrap();
        let text = disassemble(&program.code).unwrap();
        for line in [
            "    0  load arch",
            "arch == 0xc000003e (x86-64) ?",
            "number >= 101 (ptrace) ?",
            "load arg0 (high)",
            "arg0 == 0x8 ?",
            "return ERRNO EPERM",
            "return KILL_PROCESS",
            "return ALLOW",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
