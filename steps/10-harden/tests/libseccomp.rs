//! Decision for decision: our programs against libseccomp's, for the built-in
//! profile, podman's, and random ones.
//!
//! Both programs are interpreted, for every number of every interface, with
//! arguments at the boundaries of each condition. The library is Debian's
//! (libseccomp2), called by Python as runc calls it. `DRYDOCK_PROFILES` says
//! how many random profiles are drawn, `DRYDOCK_SEED` where the drawing begins.
//!
//! What is left out is what we decide otherwise, on purpose:
//!
//! - a condition on a call behind socketcall(2) or ipc(2), which the library
//!   drops, so that the call is open: see `behind_pointer`
//! - several rules for a call whose conditions overlap in the library's tree,
//!   where it may stop at the wrong branch; ours are asked one after the other
//! - calls newer than the profile: `ENOSYS` is runc's addition, and ours

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_macros)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use harden::seccomp::abi::{Abi, MULTIPLEXERS, X32_BIT};
use harden::seccomp::action::Action;
use harden::seccomp::compile::compile;
use harden::seccomp::interpret::{Call, run};
use harden::seccomp::profile::{Argument, KernelVersion, Profile};
use harden::seccomp::resolve::{Situation, not_here};
use libc::sock_filter;
use rustix::thread::CapabilitySet;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libseccomp.py");

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => default,
    }
}

/// The library, behind a pipe.
struct Library {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Library {
    /// `None` if this machine has no Python or no libseccomp.
    fn open() -> Option<Library> {
        let probe = "import ctypes; ctypes.CDLL('libseccomp.so.2')";
        let probed = Command::new("python3").args(["-c", probe]).output();
        if !probed.is_ok_and(|probed| probed.status.success()) {
            println!("unsupported: libseccomp2 and python3 are not installed");
            return None;
        }
        let mut child = Command::new("python3")
            .arg(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Library {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        })
    }

    /// The library's program for a profile, and the names that it does not
    /// know.
    fn build(
        &mut self,
        profile: &Profile,
        situation: &Situation,
    ) -> (Vec<sock_filter>, Vec<String>) {
        let filter = request(profile, situation);
        writeln!(self.input, "{filter}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let mut words = line.split_whitespace();
        let code = words.next().unwrap_or_default();
        assert_ne!(code, "error", "{line}{filter}");
        let byte = |n: usize| u8::from_str_radix(&code[2 * n..2 * n + 2], 16).unwrap();
        let program = (0..code.len() / 16).map(|n| sock_filter {
            code: u16::from_le_bytes([byte(8 * n), byte(8 * n + 1)]),
            jt: byte(8 * n + 2),
            jf: byte(8 * n + 3),
            k: u32::from_le_bytes([4, 5, 6, 7].map(|m| byte(8 * n + m))),
        });
        (program.collect(), words.map(str::to_owned).collect())
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What runc would call the library with.
fn request(profile: &Profile, situation: &Situation) -> String {
    let filter = profile.resolve(situation).unwrap();
    let token = |abi: &Abi| match abi {
        Abi::X32 => 0x4000_003e,
        abi => abi.audit_arch(),
    };
    let archs: Vec<u32> = filter
        .interfaces
        .iter()
        .map(|one| token(&one.abi))
        .collect();
    let mut rules = Vec::new();
    for call in &profile.syscalls {
        if not_here(call, situation).unwrap().is_some() {
            continue;
        }
        let action = call.action.unwrap().with_errno(call.errno_ret).unwrap();
        let indices: BTreeSet<u64> = call.args.iter().map(|one| one.index).collect();
        let each: Vec<&[Argument]> = match indices.len() == call.args.len() {
            true => vec![&call.args],
            false => call.args.chunks(1).collect(),
        };
        for name in call.calls() {
            for args in &each {
                let mut list = String::new();
                for one in *args {
                    let comma = if list.is_empty() { "" } else { "," };
                    let (index, op) = (one.index, one.op as u32 + 1);
                    write!(
                        list,
                        "{comma}[{index},{op},{},{}]",
                        one.value, one.value_two
                    )
                    .unwrap();
                }
                let action = action.value();
                rules.push(format!(
                    r#"{{"name":"{name}","action":{action},"args":[{list}]}}"#
                ));
            }
        }
    }
    let (default, rules) = (filter.default.value(), rules.join(","));
    format!(r#"{{"default":{default},"archs":{archs:?},"rules":[{rules}]}}"#)
}

/// Random numbers: xorshift64*.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// The values at which conditions on each argument change their answer.
fn boundaries(profile: &Profile) -> BTreeMap<String, [BTreeSet<u64>; 6]> {
    let mut all: BTreeMap<String, [BTreeSet<u64>; 6]> = BTreeMap::new();
    for call in &profile.syscalls {
        for name in call.calls() {
            let sets = all.entry(name.to_owned()).or_default();
            for one in &call.args {
                let set = &mut sets[one.index as usize];
                for value in [
                    one.value,
                    one.value_two,
                    one.value | one.value_two,
                    !one.value,
                ] {
                    let half = value ^ (1 << 32);
                    for value in [value, half, value & 0xffff_ffff] {
                        set.extend([value, value.wrapping_add(1), value.wrapping_sub(1)]);
                    }
                }
            }
        }
    }
    all
}

/// Compares the two programs. Returns how many decisions were compared.
fn compare(profile: &Profile, situation: &Situation, library: &mut Library, seed: u64) -> usize {
    let (theirs, unknown) = library.build(profile, situation);
    // What an older library does not know has no rule there.
    let mut profile = profile.clone();
    for call in &mut profile.syscalls {
        let mut names: Vec<String> = call.calls().into_iter().map(str::to_owned).collect();
        names.retain(|name| !unknown.contains(name));
        (call.name, call.names) = (String::new(), names);
    }
    let filter = profile.resolve(situation).unwrap();
    let ours = compile(&filter).unwrap();
    let boundaries = boundaries(&profile);
    let mut draw = Draw(seed | 1);
    let mut count = 0;
    let mut check = |call: &Call, what: &dyn Fn() -> String| {
        let expected = run(&theirs, call).unwrap().action;
        let action = run(&ours, call).unwrap().action;
        assert_eq!(
            action,
            filter.decide(call.arch, call.number, &call.arguments)
        );
        count += 1;
        if action == expected {
            return;
        }
        // Ours alone: see the head of this file.
        let newest = Abi::of_call(call.arch, call.number)
            .and_then(|abi| filter.interfaces.iter().find(|one| one.abi == abi))
            .and_then(|interface| interface.newest);
        let newer = newest.is_some_and(|newest| call.number > newest);
        assert!(
            newer && action == filter.for_newer() && expected == filter.default,
            "seed {seed}: {} {call:x?}: {action:?}, libseccomp {expected:?}\n{}",
            what(),
            request(&profile, situation),
        );
    };
    for abi in Abi::ALL {
        let arch = abi.audit_arch();
        let beyond = [
            600,
            1 << 16,
            X32_BIT - 1,
            X32_BIT + 600,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX,
        ];
        let numbers = (0..600).chain((0..600).map(|n| n | X32_BIT));
        for number in numbers.chain(beyond).chain(0xf_0000..0xf_0008) {
            let name = Abi::of_call(arch, number).and_then(|abi| abi.call_name(number));
            let call = Call {
                arch,
                number,
                ..Call::default()
            };
            let what = || format!("{abi} {name:?}");
            check(&call, &what);
            let multiplexer = |name: &str| MULTIPLEXERS.iter().any(|one| one.name == name);
            if abi == Abi::X86 && name.is_some_and(multiplexer) {
                for first in 0..32 {
                    let arguments = [first, 0, 0, 0, 0, 0];
                    check(&Call { arguments, ..call }, &what);
                }
            }
            let Some(sets) = name.and_then(|name| boundaries.get(name)) else {
                continue;
            };
            let wide = if abi.is_32_bit() {
                u64::from(u32::MAX)
            } else {
                u64::MAX
            };
            let lists = sets
                .each_ref()
                .map(|set| set.iter().copied().collect::<Vec<u64>>());
            for n in 0..6 {
                for value in &lists[n] {
                    for _ in 0..4 {
                        let mut arguments = lists.each_ref().map(|list| match list.is_empty() {
                            true => 0,
                            false => draw.one(list),
                        });
                        arguments[n] = *value;
                        let arguments = arguments.map(|value| value & wide);
                        check(&Call { arguments, ..call }, &what);
                    }
                }
            }
        }
    }
    count
}

fn situation(native: Abi, capabilities: CapabilitySet) -> Situation {
    Situation {
        native,
        capabilities,
        kernel: KernelVersion(6, 1),
    }
}

#[test]
fn known_profiles_are_what_libseccomp_makes_of_them() {
    let Some(mut library) = Library::open() else {
        return;
    };
    let docker = Profile::built_in().unwrap();
    let podman: Profile = include_str!("profiles/podman.json").parse().unwrap();
    for (name, profile) in [("docker", docker), ("podman", podman)] {
        let mut count = 0;
        let mut sets = vec![CapabilitySet::empty(), CapabilitySet::all()];
        sets.extend(CapabilitySet::from_iter(
            CapabilitySet::all().iter_names().map(|(_, one)| one),
        ));
        for capabilities in sets {
            let situation = situation(Abi::X86_64, capabilities);
            count += compare(&profile, &situation, &mut library, 1);
        }
        println!("{name}: {count} decisions");
    }
}

/// A profile with which libseccomp's tree has no choice.
fn random(draw: &mut Draw) -> Profile {
    const ACTIONS: [&str; 7] = [
        "ALLOW",
        "ERRNO",
        "KILL",
        "KILL_PROCESS",
        "TRAP",
        "LOG",
        "TRACE",
    ];
    const OPS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    const VALUES: [u64; 9] = [
        0,
        1,
        5,
        0xff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
        u64::MAX,
    ];
    let action = |draw: &mut Draw| {
        let action = draw.one(&ACTIONS);
        let errno = match action {
            "ERRNO" | "TRACE" => format!(r#","errnoRet":{}"#, draw.below(100)),
            _ => String::new(),
        };
        (action, errno)
    };
    let mut names: Vec<&str> = [Abi::X86_64, Abi::X86]
        .iter()
        .flat_map(|abi| abi.calls())
        .map(|(_, name)| name)
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut rules = Vec::new();
    for _ in 0..draw.below(200) + 1 {
        let name = names.swap_remove(draw.below(names.len() as u64) as usize);
        let multiplexed = MULTIPLEXERS
            .iter()
            .any(|one| one.name == name || one.calls.iter().any(|(call, _)| *call == name));
        let (action, errno) = action(draw);
        let mut args = Vec::new();
        if !multiplexed && draw.below(3) > 0 {
            let mut indices = [0, 1, 2, 3, 4, 5].to_vec();
            for _ in 0..draw.below(4) {
                let index = indices.swap_remove(draw.below(indices.len() as u64) as usize);
                let (op, value) = (draw.one(&OPS), draw.one(&VALUES) ^ (draw.one(&VALUES) << 3));
                let two = match op {
                    "MASKED_EQ" => draw.next() & value,
                    _ => 0,
                };
                args.push(format!(
                    r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#
                ));
            }
        }
        let args = args.join(",");
        rules.push(format!(
            r#"{{"names":["{name}"],"action":"SCMP_ACT_{action}"{errno},"args":[{args}]}}"#
        ));
    }
    let (default, errno) = loop {
        match action(draw) {
            ("ERRNO", errno) => break ("ERRNO", errno.replace("errnoRet", "defaultErrnoRet")),
            ("TRACE", _) => {}
            other => break other,
        }
    };
    let archs = match draw.below(4) {
        0 => "",
        1 => r#""SCMP_ARCH_X86""#,
        2 => r#""SCMP_ARCH_X32","SCMP_ARCH_X86_64""#,
        _ => r#""SCMP_ARCH_X32","SCMP_ARCH_X86""#,
    };
    let text = format!(
        r#"{{"defaultAction":"SCMP_ACT_{default}"{errno},"architectures":[{archs}],
            "syscalls":[{}]}}"#,
        rules.join(",")
    );
    text.parse().expect(&text)
}

#[test]
fn random_profiles_are_what_libseccomp_makes_of_them() {
    let Some(mut library) = Library::open() else {
        return;
    };
    let (first, profiles) = (number("DRYDOCK_SEED", 1), number("DRYDOCK_PROFILES", 200));
    let mut count = 0;
    for seed in first..first + profiles {
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let profile = random(&mut draw);
        let situation = situation(Abi::X86_64, CapabilitySet::empty());
        count += compare(&profile, &situation, &mut library, seed);
    }
    assert_ne!(count, 0);
    println!("{profiles} profiles, {count} decisions");
    assert!(Action::Allow > Action::KillProcess);
}
