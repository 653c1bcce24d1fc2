//! From a profile to a filter: what the profile means for one machine and one
//! container. A pure function of profile, interface, capabilities and kernel.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use rustix::thread::CapabilitySet;

use crate::seccomp::abi::{Abi, multiplexed};
use crate::seccomp::action::Action;
use crate::seccomp::profile::{Argument, Call, KernelVersion, Operator, Profile, When, capability};

/// What a profile is resolved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The native interface.
    pub native: Abi,
    /// The capabilities that the container may have: its bounding set.
    pub capabilities: CapabilitySet,
    /// The kernel.
    pub kernel: KernelVersion,
}

impl Situation {
    /// This machine, and a container with these capabilities.
    pub fn here(capabilities: CapabilitySet) -> Result<Situation> {
        Ok(Situation {
            native: Abi::NATIVE,
            capabilities,
            kernel: KernelVersion::here()?,
        })
    }
}

/// A filter: a decision for every call of every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The action for a call without a rule.
    pub default: Action,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// The interfaces, the native one first. A call of another one ends its
    /// thread.
    pub interfaces: Vec<Interface>,
    /// What the author of the profile should know: what overrules what, and
    /// names that are no call.
    pub notes: Vec<String>,
}

/// The action for calls through an interface that the filter does not have:
/// libseccomp's.
pub const FOREIGN: Action = Action::KillThread;

/// The number of a call that a tracer has had skipped (ptrace(2)): -1, which is
/// no call of x32, whatever its bit 30.
pub const SKIPPED: u32 = u32::MAX;

/// The decisions for an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Whose numbers these are.
    pub abi: Abi,
    /// The highest number for which the profile has a rule. Calls above it were
    /// added to the kernel later than the profile was written: they get
    /// `ENOSYS`, as on the kernel that the author knew, and the C library falls
    /// back on an older call. `EPERM` would be final.
    pub newest: Option<u32>,
    /// The decision for each number that has a rule.
    pub calls: BTreeMap<u32, Decision>,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Whatever its arguments.
    Always(Action),
    /// The strictest rule that matches, or else the filter's default.
    ByArguments(BTreeSet<Rule>),
}

/// An action for a call whose arguments meet all the conditions. Ordered by
/// action, the strictest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The action.
    pub action: Action,
    /// The conditions, at most one for an argument.
    pub conditions: Vec<Condition>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub index: u8,
    /// How it is compared.
    pub op: Operator,
    /// The bits that are compared; all of them except for a masked comparison.
    pub mask: u64,
    /// What they are compared with.
    pub value: u64,
}

impl Condition {
    fn of(argument: &Argument) -> Condition {
        let (mask, value) = match argument.op {
            Operator::MaskedEqual => (argument.value, argument.value_two),
            _ => (u64::MAX, argument.value),
        };
        Condition {
            index: argument.index as u8,
            op: argument.op,
            mask,
            value,
        }
    }

    /// Whether an argument meets the condition.
    pub fn holds(&self, argument: u64) -> bool {
        match self.op {
            Operator::NotEqual => argument != self.value,
            Operator::Less => argument < self.value,
            Operator::LessOrEqual => argument <= self.value,
            Operator::Equal => argument == self.value,
            Operator::GreaterOrEqual => argument >= self.value,
            Operator::Greater => argument > self.value,
            Operator::MaskedEqual => argument & self.mask == self.value,
        }
    }
}

/// Why a rule of the profile does not apply here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotHere {
    /// The container lacks these capabilities.
    Lacks(Vec<String>),
    /// The container has this capability.
    Has(String),
    /// The machine is another one.
    Machine,
    /// The kernel is older than this.
    OlderThan(KernelVersion),
    /// The kernel is not older than this.
    NotOlderThan(KernelVersion),
}

/// Why `call` does not apply in `situation`; `None` if it applies.
pub fn not_here(call: &Call, situation: &Situation) -> Result<Option<NotHere>> {
    // ANCHOR: exercise_not_here
    let has =
        |name: &String| -> Result<bool> { Ok(situation.capabilities.contains(capability(name)?)) };
    let native = situation.native.go_name();
    let When {
        caps,
        arches,
        min_kernel,
    } = &call.excludes;
    if arches.iter().any(|arch| arch == native) {
        return Ok(Some(NotHere::Machine));
    }
    for name in caps {
        if has(name)? {
            return Ok(Some(NotHere::Has(name.clone())));
        }
    }
    if let Some(version) = min_kernel.filter(|version| situation.kernel >= *version) {
        return Ok(Some(NotHere::NotOlderThan(version)));
    }
    let When {
        caps,
        arches,
        min_kernel,
    } = &call.includes;
    if !arches.is_empty() && !arches.iter().any(|arch| arch == native) {
        return Ok(Some(NotHere::Machine));
    }
    let mut lacks = Vec::new();
    for name in caps {
        if !has(name)? {
            lacks.push(name.clone());
        }
    }
    if !lacks.is_empty() {
        return Ok(Some(NotHere::Lacks(lacks)));
    }
    let newer = min_kernel.filter(|version| situation.kernel < *version);
    Ok(newer.map(NotHere::OlderThan))
    // ANCHOR_END: exercise_not_here
}

/// Calls of machines on which the engine does not run, which common profiles
/// name.
const OF_OTHER_MACHINES: [&str; 18] = [
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "cachectl",
    "multiplexer",
    "pciconfig_iobase",
    "pciconfig_read",
    "pciconfig_write",
    "riscv_flush_icache",
    "riscv_hwprobe",
    "rtas",
    "s390_guarded_storage",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "s390_runtime_instr",
    "spu_create",
    "spu_run",
    "swapcontext",
    "sync_file_range2",
];

/// Names in profiles that no kernel has had.
const NO_CALLS: [&str; 4] = ["fstatat64", "getsid", "oldfstat64", "getpagesize"];

impl Profile {
    /// Resolves the profile.
    ///
    /// # Errors
    /// Names an interface or a flag that does not exist.
    // ANCHOR: resolve
    pub fn resolve(&self, situation: &Situation) -> Result<Filter> {
        let name = self.default_action.context("it has no defaultAction")?;
        let default = name
            .with_errno(self.default_errno_ret)
            .context("defaultAction")?;
        let mut filter = Filter {
            default,
            flags: self.flags()?,
            interfaces: Vec::new(),
            notes: Vec::new(),
        };
        for abi in self.interfaces(situation.native)? {
            filter.interfaces.push(Interface {
                abi,
                newest: None,
                calls: BTreeMap::new(),
            });
        }
        for call in &self.syscalls {
            if not_here(call, situation)?.is_some() {
                continue;
            }
            let action = call.action.context("a rule has no action")?;
            let action = action.with_errno(call.errno_ret)?;
            for name in call.calls() {
                filter.add(name, action, &call.args);
            }
        }
        Ok(filter)
    }
    // ANCHOR_END: resolve

    fn interfaces(&self, native: Abi) -> Result<Vec<Abi>> {
        let mut names: Vec<&String> = self.architectures.iter().collect();
        for map in &self.arch_map {
            interface(&map.architecture)?;
            for sub in &map.sub_architectures {
                interface(sub)?;
            }
            if map.architecture == native.profile_name() && names.is_empty() {
                names.extend(&map.sub_architectures);
            }
        }
        let mut interfaces = vec![native];
        for name in names {
            if let Some(abi) = interface(name)?
                && native.served_with().contains(&abi)
                && !interfaces.contains(&abi)
            {
                interfaces.push(abi);
            }
        }
        Ok(interfaces)
    }

    fn flags(&self) -> Result<u32> {
        const LOG: u32 = 1 << 1;
        const SPEC_ALLOW: u32 = 1 << 2;
        const WAIT_KILLABLE_RECV: u32 = 1 << 5;
        let Some(names) = &self.flags else {
            return Ok(SPEC_ALLOW);
        };
        let mut flags = 0;
        for name in names {
            flags |= match name.as_str() {
                // One thread exists when the filter is loaded.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => WAIT_KILLABLE_RECV,
                _ => bail!("{name:?} is not a flag: see seccomp(2)"),
            };
        }
        Ok(flags)
    }
}

/// The interface of a name in a profile; `None` for machines on which the
/// engine does not run.
fn interface(name: &str) -> Result<Option<Abi>> {
    const OTHERS: [&str; 16] = [
        "LOONGARCH64",
        "M68K",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PARISC",
        "PARISC64",
        "PPC",
        "PPC64",
        "PPC64LE",
        "RISCV64",
        "S390",
        "S390X",
    ];
    if let Some(abi) = Abi::ALL.into_iter().find(|abi| abi.profile_name() == name) {
        return Ok(Some(abi));
    }
    match name.strip_prefix("SCMP_ARCH_") {
        Some(other) if OTHERS.contains(&other) => Ok(None),
        _ => bail!("{name:?} is not an architecture: write SCMP_ARCH_X86_64"),
    }
}

impl Filter {
    fn add(&mut self, name: &str, action: Action, arguments: &[Argument]) {
        let known = Abi::ALL.into_iter().any(|abi| abi.number(name).is_some());
        let multiplexed_only = multiplexed(Abi::X86, name).is_some();
        if !known
            && !multiplexed_only
            && !OF_OTHER_MACHINES.contains(&name)
            && !NO_CALLS.contains(&name)
        {
            let note = format!("{name:?} is not a system call that this program knows: no rule");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        let rules = rules(action, arguments);
        for n in 0..self.interfaces.len() {
            let abi = self.interfaces[n].abi;
            if let Some(number) = abi.number(name) {
                let newest = &mut self.interfaces[n].newest;
                *newest = (*newest).max(Some(number));
                for rule in &rules {
                    self.put(n, number, rule.clone(), name);
                }
            }
            if let Some((number, first)) = multiplexed(abi, name) {
                let newest = &mut self.interfaces[n].newest;
                *newest = (*newest).max(Some(number));
                if let Some(rule) = self.behind_pointer(action, arguments, first) {
                    self.put(n, number, rule, name);
                }
            }
        }
    }

    // ANCHOR: behind_pointer
    /// The rule for a call behind socketcall(2) or ipc(2), whose own arguments
    /// are out of reach. A condition on them that permits permits nothing here,
    /// and one that forbids forbids the call.
    fn behind_pointer(&self, action: Action, arguments: &[Argument], first: u64) -> Option<Rule> {
        let certain = arguments.is_empty() || action < self.default;
        certain.then(|| Rule {
            action,
            conditions: vec![Condition {
                index: 0,
                op: Operator::Equal,
                mask: u64::MAX,
                value: first,
            }],
        })
    }
    // ANCHOR_END: behind_pointer

    // ANCHOR: put
    /// Adds a rule. One without conditions overrules those with conditions,
    /// earlier and later, and the first of two without wins: so libseccomp does
    /// it, and so runc and Docker.
    fn put(&mut self, interface: usize, number: u32, mut rule: Rule, name: &str) {
        // What happens anyway needs no rule.
        if rule.action == self.default {
            return;
        }
        let Interface { abi, calls, .. } = &mut self.interfaces[interface];
        if abi.is_32_bit() {
            for condition in &mut rule.conditions {
                condition.mask &= u64::from(u32::MAX);
                condition.value &= u64::from(u32::MAX);
            }
        }
        let before = calls.get_mut(&number);
        let overruled = match (before, rule.conditions.is_empty()) {
            (None, true) => {
                calls.insert(number, Decision::Always(rule.action));
                None
            }
            (None, false) => {
                calls.insert(number, Decision::ByArguments([rule].into()));
                None
            }
            (Some(Decision::ByArguments(rules)), false) => {
                rules.insert(rule);
                None
            }
            (Some(Decision::Always(action)), _) => {
                (*action != rule.action).then_some((*action, rule.action))
            }
            (Some(before), true) => {
                let Decision::ByArguments(rules) = &*before else {
                    return;
                };
                let other = rules.iter().find(|other| other.action != rule.action);
                let overruled = other.map(|other| (rule.action, other.action));
                *before = Decision::Always(rule.action);
                overruled
            }
        };
        if let Some((winner, loser)) = overruled {
            let note = format!(
                "{name}: the rule without conditions ({winner}) overrules another ({loser})"
            );
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
    // ANCHOR_END: put

    /// The action for calls newer than the profile: see [`Interface::newest`].
    pub fn for_newer(&self) -> Action {
        match self.default {
            Action::Allow | Action::Log | Action::Trace(_) => self.default,
            _ => Action::Errno(libc::ENOSYS as u16),
        }
    }

    fn has_arch(&self, arch: u32) -> bool {
        self.interfaces
            .iter()
            .any(|one| one.abi.audit_arch() == arch)
    }

    /// What the filter decides, without a program: the meaning that the
    /// compiled program must have.
    pub fn decide(&self, arch: u32, number: u32, arguments: &[u64; 6]) -> Action {
        let abi = Abi::of_call(arch, number);
        let Some(interface) = self.interfaces.iter().find(|one| Some(one.abi) == abi) else {
            return match (abi, number) {
                (Some(Abi::X32), SKIPPED) if self.has_arch(arch) => self.default,
                _ => FOREIGN,
            };
        };
        match interface.calls.get(&number) {
            Some(Decision::Always(action)) => *action,
            Some(Decision::ByArguments(rules)) => {
                let argument = |index: u8| {
                    let all = arguments[usize::from(index)];
                    if abi.is_some_and(Abi::is_32_bit) {
                        all & u64::from(u32::MAX)
                    } else {
                        all
                    }
                };
                let matches = |rule: &&Rule| {
                    rule.conditions
                        .iter()
                        .all(|condition| condition.holds(argument(condition.index)))
                };
                rules
                    .iter()
                    .find(matches)
                    .map_or(self.default, |rule| rule.action)
            }
            None if interface.newest.is_some_and(|newest| number > newest) => self.for_newer(),
            None => self.default,
        }
    }
}

/// The rules of some arguments. All conditions of a rule must hold; but several
/// on the same argument are rules of their own, as runc has it.
fn rules(action: Action, arguments: &[Argument]) -> Vec<Rule> {
    let conditions: Vec<Condition> = arguments.iter().map(Condition::of).collect();
    let indices: BTreeSet<u8> = conditions.iter().map(|condition| condition.index).collect();
    let rule = |conditions| Rule { action, conditions };
    if indices.len() == conditions.len() {
        return vec![rule(conditions)];
    }
    let one = |condition| rule(vec![condition]);
    conditions.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(capabilities: CapabilitySet) -> Situation {
        Situation {
            native: Abi::X86_64,
            capabilities,
            kernel: KernelVersion(6, 1),
        }
    }

    fn decide(filter: &Filter, abi: Abi, name: &str, first: u64) -> Action {
        let number = abi.number(name).unwrap();
        filter.decide(abi.audit_arch(), number, &[first, 0, 0, 0, 0, 0])
    }

    #[test]
    fn the_built_in_profile_depends_on_capabilities() {
        let profile = Profile::built_in().unwrap();
        let eperm = Action::Errno(libc::EPERM as u16);
        let plain = profile.resolve(&here(CapabilitySet::CHOWN)).unwrap();
        assert_eq!(plain.notes, [""; 0]);
        let new_user = libc::CLONE_NEWUSER as u64;
        for abi in [Abi::X86_64, Abi::X86, Abi::X32] {
            for name in ["mount", "unshare", "bpf", "keyctl", "userfaultfd", "reboot"] {
                assert_eq!(decide(&plain, abi, name, 0), eperm, "{abi} {name}");
            }
            assert_eq!(
                decide(&plain, abi, "clone3", 0),
                Action::Errno(libc::ENOSYS as u16)
            );
            assert_eq!(decide(&plain, abi, "clone", 17), Action::Allow);
            assert_eq!(decide(&plain, abi, "clone", new_user), eperm);
            assert_eq!(decide(&plain, abi, "socket", 38), eperm);
            assert_eq!(decide(&plain, abi, "socket", 2), Action::Allow);
            assert_eq!(
                decide(&plain, abi, "personality", 0xffff_ffff),
                Action::Allow
            );
            assert_eq!(decide(&plain, abi, "personality", 1), eperm);
        }
        let admin = profile.resolve(&here(CapabilitySet::SYS_ADMIN)).unwrap();
        for name in ["mount", "unshare", "clone3", "bpf"] {
            assert_eq!(
                decide(&admin, Abi::X86_64, name, 0),
                Action::Allow,
                "{name}"
            );
        }
        let newer = |number| plain.decide(Abi::X86_64.audit_arch(), number, &[0; 6]);
        assert_eq!(newer(5000), Action::Errno(libc::ENOSYS as u16));
        // A gap in the table, which is not newer.
        assert_eq!(newer(400), eperm);
        assert_eq!(plain.decide(1, 0, &[0; 6]), FOREIGN);
    }

    #[test]
    fn a_rule_without_conditions_overrules() {
        let profile: Profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"name":"read","action":"SCMP_ACT_KILL","args":[{"value":1,"op":"SCMP_CMP_EQ"}]},
            {"name":"read","action":"SCMP_ACT_ALLOW"},
            {"name":"write","action":"SCMP_ACT_TRAP","args":[{"value":5,"op":"SCMP_CMP_GE"}]},
            {"name":"write","action":"SCMP_ACT_LOG","args":[
                {"value":1,"op":"SCMP_CMP_EQ"},{"value":7,"op":"SCMP_CMP_EQ"}]},
            {"name":"socket","action":"SCMP_ACT_ALLOW","args":[{"value":1,"op":"SCMP_CMP_EQ"}]},
            {"name":"bind","action":"SCMP_ACT_ALLOW"},
            {"name":"ftok","action":"SCMP_ACT_ALLOW"}],
            "architectures":["SCMP_ARCH_X86","SCMP_ARCH_S390"]}"#
            .parse()
            .unwrap();
        let filter = profile.resolve(&here(CapabilitySet::empty())).unwrap();
        assert_eq!(filter.notes.len(), 2, "{:?}", filter.notes);
        assert!(filter.notes[0].starts_with("read: the rule without conditions (allowed)"));
        assert!(filter.notes[1].contains("ftok"));
        let x86_64 = |name, first| decide(&filter, Abi::X86_64, name, first);
        assert_eq!(x86_64("read", 1), Action::Allow);
        assert_eq!(x86_64("write", 1), Action::Log);
        assert_eq!(x86_64("write", 7), Action::Trap);
        assert_eq!(x86_64("write", 2), Action::Errno(1));
        let x86 = |name, first| decide(&filter, Abi::X86, name, first);
        assert_eq!(x86("socketcall", 2), Action::Allow);
        // socket: its family is behind a pointer.
        assert_eq!(x86("socketcall", 1), Action::Errno(1));
        assert_eq!(x86("socket", 1), Action::Allow);
        assert_eq!(decide(&filter, Abi::X32, "read", 0), FOREIGN);
    }

    #[test]
    fn interfaces_and_flags_are_checked() {
        let says = |text: &str| {
            let profile: Profile = text.parse().unwrap();
            let resolved = profile.resolve(&here(CapabilitySet::empty()));
            format!("{:#}", resolved.unwrap_err())
        };
        let wrong = says(r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["x86"]}"#);
        assert!(wrong.contains("not an architecture"), "{wrong}");
        let wrong = says(r#"{"defaultAction":"SCMP_ACT_LOG","flags":["LOG"]}"#);
        assert!(wrong.contains("not a flag"), "{wrong}");
    }
}
