//! The compiler: from a [`Filter`] to a program.
//!
//! A decision about a call is a series of questions: which interface, which
//! number, which arguments. The compiler draws them as a graph of questions
//! whose ends are actions, from the ends up to the first question, and then
//! writes the graph down, from the last instruction to the first.
//!
//! ```text
//!                      arch == x86-64 ?
//!                 yes /               \ no
//!        number >= 157 ?               arch == x86 ? ───────► KILL_THREAD
//!        yes /      \ no                    │
//!          …      number >= 135 ?           …
//!                 yes /     \ no
//!   arg0 (high) == 0 ?      ALLOW
//! ```
//!
//! Three ideas keep a call cheap, which is decided anew each time it is made:
//!
//! - **Runs.** Neighbouring numbers with the same decision are one run. The
//!   questions look for the run by halves: some 80 runs take 7 questions, where
//!   a list of 350 numbers would take 175 on average.
//! - **Sharing.** Equal questions are one node, so that the program is short.
//! - **Backwards.** All jumps lead forward. Whoever writes the last instruction
//!   first knows, at each jump, how far away its target is. One that is more
//!   than 255 instructions away, the most that fits, gets a `ja` beside it,
//!   which takes 32 bits.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use libc::sock_filter;

use crate::seccomp::abi::{Abi, X32_BIT};
use crate::seccomp::action::Action;
use crate::seccomp::bpf::{Instruction, LONGEST, Test, Word};
use crate::seccomp::profile::Operator;
use crate::seccomp::resolve::{Condition, Decision, FOREIGN, Filter, Interface, SKIPPED};

/// Compiles a filter.
///
/// # Errors
/// A filter whose program would have more than [`LONGEST`] instructions.
// ANCHOR: compile
pub fn compile(filter: &Filter) -> Result<Vec<sock_filter>> {
    let mut graph = Graph::default();
    let first = graph.filter(filter);
    // Each node becomes an instruction at least. Asked before the writer, which
    // follows the graph into its depth.
    fits(graph.nodes.len())?;
    let program = Writer::new(&graph).write(first);
    fits(program.len())?;
    Ok(program.into_iter().map(Instruction::encode).collect())
}
// ANCHOR_END: compile

fn fits(instructions: usize) -> Result<()> {
    ensure!(
        instructions <= LONGEST,
        "the filter has {instructions} instructions or more; the kernel takes {LONGEST}"
    );
    Ok(())
}

/// A node of the graph, by its place in [`Graph::nodes`]. What it leads to has
/// a lower place.
type Id = usize;

/// A question, a step towards it, or an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Node {
    Load(Word, Id),
    And(u32, Id),
    Ask {
        test: Test,
        with: u32,
        yes: Id,
        no: Id,
    },
    End(Action),
}

#[derive(Default)]
struct Graph {
    nodes: Vec<Node>,
    known: HashMap<Node, Id>,
}

impl Graph {
    fn node(&mut self, node: Node) -> Id {
        if let Node::Ask { yes, no, .. } = node
            && yes == no
        {
            return yes;
        }
        if let Some(id) = self.known.get(&node) {
            return *id;
        }
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.known.insert(node, id);
        id
    }

    fn end(&mut self, action: Action) -> Id {
        self.node(Node::End(action))
    }

    fn ask(&mut self, test: Test, with: u32, yes: Id, no: Id) -> Id {
        self.node(Node::Ask {
            test,
            with,
            yes,
            no,
        })
    }

    // ANCHOR: interfaces
    /// Which interface? The native one is asked for first.
    fn filter(&mut self, filter: &Filter) -> Id {
        let mut archs: Vec<u32> = Vec::new();
        for interface in &filter.interfaces {
            let arch = interface.abi.audit_arch();
            if !archs.contains(&arch) {
                archs.push(arch);
            }
        }
        let foreign = self.end(FOREIGN);
        let mut next = foreign;
        for arch in archs.into_iter().rev() {
            let runs = self.runs(filter, arch, foreign);
            let search = self.search(&runs);
            let number = self.node(Node::Load(Word::Number, search));
            next = self.ask(Test::Equal, arch, number, next);
        }
        self.node(Node::Load(Word::Arch, next))
    }
    // ANCHOR_END: interfaces

    // ANCHOR: runs
    /// The numbers of an `arch` from 0 to the highest, as runs with the same
    /// decision: where each begins, and what it leads to. x32 needs no question
    /// of its own: its numbers begin at bit 30.
    fn runs(&mut self, filter: &Filter, arch: u32, foreign: Id) -> Vec<(u32, Id)> {
        let mut runs: Vec<(u32, Id)> = Vec::new();
        let mut run = |start: u32, id: Id| match runs.last_mut() {
            Some((before, last)) if *before == start => *last = id,
            Some((_, last)) if *last == id => {}
            _ => runs.push((start, id)),
        };
        let of = |abi: Abi| filter.interfaces.iter().find(|one| one.abi == abi);
        let default = self.end(filter.default);
        let newer = self.end(filter.for_newer());
        for (abi, start) in [(Abi::X86_64, 0), (Abi::X32, X32_BIT)]
            .into_iter()
            .chain(Abi::ALL[2..].iter().map(|abi| (*abi, 0)))
            .filter(|(abi, _)| abi.audit_arch() == arch)
        {
            let Some(Interface { newest, calls, .. }) = of(abi) else {
                run(start, foreign);
                if abi == Abi::X32 {
                    run(SKIPPED, default);
                }
                continue;
            };
            run(start, default);
            for (number, decision) in calls {
                let id = self.decision(decision, filter.default, abi);
                run(*number, id);
                run(number + 1, default);
            }
            if let Some(newest) = newest {
                run(newest + 1, newer);
            }
        }
        // Two runs that meet may lead to the same.
        runs.dedup_by_key(|(_, id)| *id);
        runs
    }
    // ANCHOR_END: runs

    // ANCHOR: search
    /// Which run? Half of them are left after each question.
    fn search(&mut self, runs: &[(u32, Id)]) -> Id {
        // ANCHOR: exercise_search
        if let [(_, id)] = runs {
            return *id;
        }
        let (lower, upper) = runs.split_at(runs.len() / 2);
        let (no, yes) = (self.search(lower), self.search(upper));
        self.ask(Test::AtLeast, upper[0].0, yes, no)
        // ANCHOR_END: exercise_search
    }
    // ANCHOR_END: search

    // ANCHOR: decision
    /// Which arguments? The strictest rule is asked for first; its last "no"
    /// leads to the next rule, and that of the last rule to the default.
    fn decision(&mut self, decision: &Decision, default: Action, abi: Abi) -> Id {
        // ANCHOR: exercise_decision
        let rules = match decision {
            Decision::Always(action) => return self.end(*action),
            Decision::ByArguments(rules) => rules,
        };
        let mut next = self.end(default);
        for rule in rules.iter().rev() {
            let mut yes = self.end(rule.action);
            for condition in rule.conditions.iter().rev() {
                yes = match abi.is_32_bit() {
                    true => self.word(condition, Word::Low(condition.index), yes, next),
                    false => self.halves(condition, yes, next),
                };
            }
            next = yes;
        }
        next
        // ANCHOR_END: exercise_decision
    }
    // ANCHOR_END: decision

    /// A condition on an argument of 32 bits.
    fn word(&mut self, condition: &Condition, word: Word, yes: Id, no: Id) -> Id {
        let value = condition.value as u32;
        let id = match condition.op {
            Operator::Equal => self.ask(Test::Equal, value, yes, no),
            Operator::NotEqual => self.ask(Test::Equal, value, no, yes),
            Operator::Greater => self.ask(Test::Greater, value, yes, no),
            Operator::LessOrEqual => self.ask(Test::Greater, value, no, yes),
            Operator::GreaterOrEqual => self.ask(Test::AtLeast, value, yes, no),
            Operator::Less => self.ask(Test::AtLeast, value, no, yes),
            Operator::MaskedEqual => {
                return self.masked(word, condition.mask as u32, value, yes, no);
            }
        };
        self.load(word, id, yes, no)
    }

    // ANCHOR: halves
    /// A condition on an argument of 64 bits. The accumulator has 32, so the
    /// halves are compared one after the other:
    ///
    /// - equal: both halves are
    /// - greater: the upper half is, or it is equal and the lower half is
    ///   greater
    /// - not equal, less: the same questions with the answers exchanged
    fn halves(&mut self, condition: &Condition, yes: Id, no: Id) -> Id {
        // ANCHOR: exercise_halves
        let Condition {
            index,
            op,
            mask,
            value,
        } = *condition;
        let (low, high) = (Word::Low(index), Word::High(index));
        let (low_value, high_value) = (value as u32, (value >> 32) as u32);
        match op {
            Operator::NotEqual => return self.halves(&condition.with(Operator::Equal), no, yes),
            Operator::Less => {
                return self.halves(&condition.with(Operator::GreaterOrEqual), no, yes);
            }
            Operator::LessOrEqual => {
                return self.halves(&condition.with(Operator::Greater), no, yes);
            }
            Operator::MaskedEqual => {
                let lower = self.masked(low, mask as u32, low_value, yes, no);
                return self.masked(high, (mask >> 32) as u32, high_value, lower, no);
            }
            Operator::Equal | Operator::Greater | Operator::GreaterOrEqual => {}
        }
        let test = match op {
            Operator::Equal => Test::Equal,
            Operator::Greater => Test::Greater,
            _ => Test::AtLeast,
        };
        let lower = self.ask(test, low_value, yes, no);
        let lower = self.load(low, lower, yes, no);
        let equal = self.ask(Test::Equal, high_value, lower, no);
        let upper = match op {
            Operator::Equal => equal,
            _ => self.ask(Test::Greater, high_value, yes, equal),
        };
        self.load(high, upper, yes, no)
        // ANCHOR_END: exercise_halves
    }
    // ANCHOR_END: halves

    /// Whether some bits of a word have this value.
    fn masked(&mut self, word: Word, mask: u32, value: u32, yes: Id, no: Id) -> Id {
        let id = match (mask, value) {
            // No bit is asked for.
            (0, _) => return yes,
            (_, 0) => self.ask(Test::AnyBit, mask, no, yes),
            (u32::MAX, _) => self.ask(Test::Equal, value, yes, no),
            _ => {
                let equal = self.ask(Test::Equal, value, yes, no);
                self.node(Node::And(mask, equal))
            }
        };
        self.load(word, id, yes, no)
    }

    /// Loads `word` for the question `id`, unless that needs no answer.
    fn load(&mut self, word: Word, id: Id, yes: Id, no: Id) -> Id {
        match id == yes || id == no {
            true => id,
            false => self.node(Node::Load(word, id)),
        }
    }
}

impl Condition {
    fn with(self, op: Operator) -> Condition {
        Condition { op, ..self }
    }
}

/// Writes the graph down, the last instruction first. A place is counted from
/// the end of the program.
struct Writer<'a> {
    graph: &'a Graph,
    backwards: Vec<Instruction>,
    /// Where each node was last written.
    places: Vec<Option<usize>>,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph) -> Self {
        Writer {
            graph,
            backwards: Vec::new(),
            places: vec![None; graph.nodes.len()],
        }
    }

    fn write(mut self, first: Id) -> Vec<Instruction> {
        self.next(first);
        self.backwards.reverse();
        self.backwards
    }

    fn push(&mut self, instruction: Instruction) {
        self.backwards.push(instruction);
    }

    /// How many instructions lie between the next one to be written and `place`.
    fn distance(&self, place: usize) -> usize {
        self.backwards.len() - 1 - place
    }

    // ANCHOR: write
    /// Makes `id` the instruction that follows the next one to be written.
    fn next(&mut self, id: Id) {
        match self.places[id] {
            Some(place) if self.distance(place) == 0 => {}
            Some(place) => {
                let copy = match self.graph.nodes[id] {
                    // As short as a jump to it, and quicker.
                    Node::End(action) => Instruction::Return(action.value()),
                    _ => Instruction::Skip(self.distance(place) as u32),
                };
                self.push(copy);
            }
            None => self.node(id),
        }
    }

    fn node(&mut self, id: Id) {
        match self.graph.nodes[id] {
            Node::End(action) => self.push(Instruction::Return(action.value())),
            Node::Load(word, then) => {
                self.next(then);
                self.push(Instruction::Load(word));
            }
            Node::And(bits, then) => {
                self.next(then);
                self.push(Instruction::And(bits));
            }
            Node::Ask {
                test,
                with,
                yes,
                no,
            } => {
                // The later part of the program is written first.
                for branch in [yes, no] {
                    if self.places[branch].is_none() {
                        self.node(branch);
                    }
                }
                let (yes, no) = self.reach(yes, no);
                self.push(Instruction::Jump {
                    test,
                    with,
                    yes,
                    no,
                });
            }
        }
        self.places[id] = Some(self.backwards.len() - 1);
    }

    /// The distances of both branches. One that is too far away gets a `ja`, or
    /// a copy of its return, which in turn moves the other one further away.
    fn reach(&mut self, yes: Id, no: Id) -> (u8, u8) {
        loop {
            let far = [yes, no].into_iter().find(|id| {
                let distance = self.places[*id].map_or(0, |place| self.distance(place));
                u8::try_from(distance).is_err()
            });
            match far {
                Some(id) => {
                    self.next(id);
                    self.places[id] = Some(self.backwards.len() - 1);
                }
                None => break,
            }
        }
        let distance = |id: Id| self.places[id].map_or(0, |place| self.distance(place)) as u8;
        (distance(yes), distance(no))
    }
    // ANCHOR_END: write
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::interpret::{Call, run};
    use crate::seccomp::profile::{KernelVersion, Profile};
    use crate::seccomp::resolve::Situation;
    use rustix::thread::CapabilitySet;
    use std::fmt::Write;

    fn resolved(text: &str) -> Filter {
        let situation = Situation {
            native: Abi::X86_64,
            capabilities: CapabilitySet::CHOWN,
            kernel: KernelVersion(6, 1),
        };
        text.parse::<Profile>()
            .unwrap()
            .resolve(&situation)
            .unwrap()
    }

    /// Runs the program and asks the filter, for each call and each of the
    /// first arguments.
    fn agree(filter: &Filter, firsts: &[u64]) {
        let program = compile(filter).unwrap();
        for arch in [Abi::X86_64, Abi::X86, Abi::Arm].map(Abi::audit_arch) {
            for number in (0u32..600).flat_map(|n| [n, n | X32_BIT, n | 0x8000_0000]) {
                for first in firsts {
                    let arguments = [*first, 0, 1 << 40, 0, *first, 0];
                    let call = Call {
                        arch,
                        number,
                        arguments,
                        pointer: 0,
                    };
                    let action = run(&program, &call).unwrap().action;
                    let should = filter.decide(arch, number, &arguments);
                    assert_eq!(action, should, "{arch:#x} {number} {first:#x}");
                }
            }
        }
    }

    #[test]
    fn the_built_in_profile_is_what_it_says() {
        let filter = resolved(crate::seccomp::builtin::DEFAULT);
        let program = compile(&filter).unwrap();
        kit::outln!("{} instructions", program.len()).unwrap();
        assert!(program.len() < 1000, "{}", program.len());
        agree(
            &filter,
            &[
                0,
                1,
                8,
                11,
                12,
                38,
                45,
                46,
                0x2_0000,
                0x1000_0000,
                1 << 32,
                u64::MAX,
            ],
        );
        let longest = (0..470).map(|number| {
            let call = Call {
                arch: Abi::X86_64.audit_arch(),
                number,
                ..Call::default()
            };
            run(&program, &call).unwrap().steps
        });
        assert!(longest.max().unwrap() < 100);
    }

    #[test]
    fn every_comparison_splits_into_halves() {
        let mut rules = String::new();
        for (n, op) in ["NE", "LT", "LE", "EQ", "GE", "GT"].into_iter().enumerate() {
            for (m, value) in [0, 5, 1 << 32, (1 << 32) + 5, u64::MAX]
                .into_iter()
                .enumerate()
            {
                let name = Abi::X86_64.call_name((n * 5 + m) as u32).unwrap();
                let action = ["LOG", "KILL_PROCESS", "TRAP"][m % 3];
                write!(
                    rules,
                    r#"{{"name":"{name}","action":"SCMP_ACT_{action}","args":[
                        {{"index":4,"value":{value},"op":"SCMP_CMP_{op}"}}]}},"#
                )
                .unwrap();
            }
        }
        for (n, (mask, value)) in [
            (0u64, 0u64),
            (6, 4),
            (6, 0),
            (0xffff_ffff, 5),
            (6 << 32, 2 << 32),
            (u64::MAX, 1 << 32),
        ]
        .into_iter()
        .enumerate()
        {
            let name = Abi::X86_64.call_name(40 + n as u32).unwrap();
            write!(
                rules,
                r#"{{"name":"{name}","action":"SCMP_ACT_TRACE","errnoRet":{n},"args":[
                    {{"index":2,"value":{},"op":"SCMP_CMP_GT"}},
                    {{"value":{mask},"valueTwo":{value},"op":"SCMP_CMP_MASKED_EQ"}}]}},"#,
                n << 39
            )
            .unwrap();
        }
        let filter = resolved(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                "syscalls":[{}]}}"#,
            rules.trim_end_matches(',')
        ));
        agree(
            &filter,
            &[
                0,
                4,
                5,
                6,
                (1 << 32) - 1,
                1 << 32,
                (1 << 32) + 4,
                (1 << 32) + 5,
                5 << 32,
                u64::MAX,
            ],
        );
    }

    #[test]
    fn far_targets_are_reached() {
        // A condition of its own for each call: thousands of instructions.
        let rules: Vec<String> = Abi::X86_64
            .calls()
            .iter()
            .filter(|(number, _)| *number < 330)
            .map(|(number, name)| {
                format!(
                    r#"{{"name":"{name}","action":"SCMP_ACT_ERRNO","errnoRet":{},"args":[
                        {{"index":0,"value":{},"op":"SCMP_CMP_GE"}},
                        {{"index":4,"value":{number},"op":"SCMP_CMP_NE"}}]}}"#,
                    number % 9,
                    u64::from(*number) << (number % 40),
                )
            })
            .collect();
        let filter = resolved(&format!(
            r#"{{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{}]}}"#,
            rules.join(",")
        ));
        let program = compile(&filter).unwrap();
        assert!(program.len() > 2000);
        assert!(program.iter().any(|one| one.code == 5), "no ja");
        agree(&filter, &[0, 7, 300, 1 << 20, u64::MAX]);
    }

    #[test]
    fn a_program_has_an_end() {
        let one = |n: u32| {
            format!(
                r#"{{"name":"read","action":"SCMP_ACT_LOG","args":[{{"value":{n},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        };
        let rules: Vec<String> = (0..3000).map(one).collect();
        let filter = resolved(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#,
            rules.join(",")
        ));
        let error = compile(&filter).unwrap_err().to_string();
        assert!(error.ends_with("the kernel takes 4096"), "{error}");
    }
}
