//! `explain`: what a bundle asks for, in the words of the steps.

use std::path::Path;

use anyhow::{Context, Result};
use kit::say::printable;
use serde_json::Value;

use crate::cli::args::Explain;
use crate::config::check::Checked;
use crate::config::read::{CONFIG, document, line};
use crate::config::{Config, IdMapping, Mount, NamespaceKind, Process};

/// `explain`: checks the bundle as `create` does, and makes nothing.
pub(crate) fn explain(args: &Explain) -> Result<()> {
    let bundle = &args.bundle;
    let bundle = bundle
        .canonicalize()
        .with_context(|| format!("{bundle:?}"))?;
    let config: Config = document(&bundle.join(CONFIG))?;
    let checked = Checked::new(config, &bundle).context(CONFIG)?;
    let rows = rows(&checked)?;
    let width = rows.iter().map(|row| row.what.chars().count()).max();
    let width = width.unwrap_or_default();
    for Row { step, what, asked } in rows {
        line(&printable(&format!("{step}  {what:width$}  {asked}")))?;
    }
    Ok(())
}

/// A part of the container, and the step that explains it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    step: &'static str,
    what: String,
    asked: String,
}

fn rows(checked: &Checked) -> Result<Vec<Row>> {
    let Checked { config, root, .. } = checked;
    let process = &checked.process.raw;
    let linux = &config.linux;
    let mut rows = Vec::new();
    let mut row = |step, what: &str, asked: String| {
        let what = what.to_owned();
        rows.push(Row { step, what, asked });
    };
    row("00", "command", command(process));
    let own = namespace(config, NamespaceKind::Uts);
    row("01", "host name", named(own, &config.hostname));
    row("02", "IPC", own_or(config, NamespaceKind::Ipc));
    row("03", "processes", own_or(config, NamespaceKind::Pid));
    let read_only = config.root.as_ref().is_some_and(|root| root.readonly);
    row("04", "root", tree(root, read_only));
    for mount in &config.mounts {
        row("04", "mount", mounted(mount));
    }
    let (masked, fixed) = (linux.masked_paths.len(), linux.readonly_paths.len());
    row("04", "paths", format!("{masked} masked, {fixed} read-only"));
    row("05", "users", users(config));
    row("06", "network", own_or(config, NamespaceKind::Network));
    let group = match linux.cgroups_path.as_str() {
        "" => "named after the container",
        path => path,
    };
    let view = match namespace(config, NamespaceKind::Cgroup) {
        Some(_) => "the root that it sees",
        None => "seen among the host's",
    };
    row("07", "group", format!("{group}, {view}"));
    let mut limits = linux.resources.clone().unwrap_or_default();
    let devices = limits.devices.len();
    limits.devices.clear();
    let value = serde_json::to_value(&limits).context("linux.resources")?;
    row("07", "limits", flat(&value));
    row("07", "devices", rules(devices));
    let resource_limits = process.rlimits.iter().map(|limit| {
        let name = limit.kind.trim_start_matches("RLIMIT_").to_lowercase();
        format!("{name}={}:{}", limit.soft, limit.hard)
    });
    row("09", "ulimits", list(resource_limits, "the caller's"));
    row("10", "identity", identity(process));
    row("10", "capabilities", capabilities(process));
    row(
        "10",
        "new privileges",
        match process.no_new_privileges {
            true => "no: set-user-ID programs gain nothing",
            false => "by set-user-ID programs, within the bounding set",
        }
        .to_owned(),
    );
    row("10", "filter", filter(linux.seccomp.as_ref()));
    let sysctls = linux.sysctl.iter();
    let sysctls = sysctls.map(|(name, value)| format!("{name}={value}"));
    row("10", "parameters", list(sysctls, "none set"));
    let clocks = linux.time_offsets.iter();
    let clocks = clocks.map(|(clock, offset)| format!("{clock} {:+} s", offset.secs));
    row("10", "clocks", list(clocks, "the caller's"));
    row(
        "11",
        "terminal",
        match process.terminal {
            true => "its own; --console-socket takes the other side",
            false => "none: the streams are those of create",
        }
        .to_owned(),
    );
    let hooks = config.hooks.all();
    let hooks = hooks.iter().filter(|(_, hooks)| !hooks.is_empty());
    let hooks = hooks.map(|(kind, hooks)| format!("{} {kind}", hooks.len()));
    row("11", "hooks", list(hooks, "none"));
    Ok(rows)
}

fn list(all: impl Iterator<Item = String>, none: &str) -> String {
    let all: Vec<String> = all.collect();
    match all.is_empty() {
        true => none.to_owned(),
        false => all.join(", "),
    }
}

fn command(process: &Process) -> String {
    let words: Vec<String> = process.args.iter().map(|word| quoted(word)).collect();
    let cwd = process.cwd.display();
    format!(
        "{} in {cwd}, {} variables",
        words.join(" "),
        process.env.len()
    )
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn namespace(config: &Config, kind: NamespaceKind) -> Option<&Path> {
    let mut all = config.linux.namespaces.iter();
    let found = all.find(|one| one.kind == kind)?;
    Some(&found.path)
}

/// Whose namespace of a kind the container has.
fn own_or(config: &Config, kind: NamespaceKind) -> String {
    match namespace(config, kind) {
        None => "the caller's".to_owned(),
        Some(path) if path.as_os_str().is_empty() => "its own".to_owned(),
        Some(path) => format!("that of {}", path.display()),
    }
}

fn named(own: Option<&Path>, name: &str) -> String {
    match (own, name) {
        (None, _) => "the caller's".to_owned(),
        (Some(path), "") if path.as_os_str().is_empty() => "its own copy of the caller's".into(),
        (Some(path), name) if path.as_os_str().is_empty() => format!("its own, {name}"),
        (Some(path), "") => format!("that of {}", path.display()),
        (Some(path), name) => format!("that of {}, renamed {name}", path.display()),
    }
}

fn tree(root: &Path, read_only: bool) -> String {
    let root = root.display();
    match read_only {
        true => format!("{root}, read-only"),
        false => format!("{root}, writable"),
    }
}

fn mounted(mount: &Mount) -> String {
    let place = mount.destination.display();
    let binds = |option: &String| matches!(option.as_str(), "bind" | "rbind");
    let what = match mount.options.iter().any(binds) {
        true => mount.source.display().to_string(),
        false => format!("a new {}", mount.kind),
    };
    let options = mount.options.iter().filter(|option| !binds(option));
    let options: Vec<&str> = options.map(String::as_str).collect();
    match options.is_empty() {
        true => format!("{place}: {what}"),
        false => format!("{place}: {what}, {}", options.join(" ")),
    }
}

fn users(config: &Config) -> String {
    let map = |maps: &[IdMapping]| {
        let ranges = maps.iter().map(|one| {
            let IdMapping {
                container,
                host,
                size,
            } = one;
            format!("{container} is {host} of the host, {size} of them")
        });
        list(ranges, "without a map")
    };
    match namespace(config, NamespaceKind::User) {
        None => "the caller's: root inside is root of the host".to_owned(),
        Some(path) if path.as_os_str().is_empty() => {
            format!("its own: {}", map(&config.linux.uid_mappings))
        }
        Some(path) => format!("those of {}", path.display()),
    }
}

/// The numbers and words of a document, with their paths in it.
fn flat(value: &Value) -> String {
    fn walk(path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(parts) => {
                for (name, part) in parts {
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(&format!("{path}{dot}{name}"), part, found);
                }
            }
            Value::Null => {}
            Value::Array(parts) if parts.is_empty() => {}
            other => found.push(format!("{path} {other}")),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    list(found.into_iter(), "none")
}

fn rules(number: usize) -> String {
    match number {
        0 => "no rules of the bundle".to_owned(),
        1 => "1 rule, and what every container needs".to_owned(),
        n => format!("{n} rules, and what every container needs"),
    }
}

fn identity(process: &Process) -> String {
    let user = &process.user;
    let groups = user.additional_gids.iter().map(u32::to_string);
    let groups = list(groups, "none");
    format!(
        "UID {}, GID {}, further groups {groups}",
        user.uid, user.gid
    )
}

fn capabilities(process: &Process) -> String {
    let Some(sets) = &process.capabilities else {
        return "none".to_owned();
    };
    let of = |names: &[String]| {
        let names = names.iter().map(|name| name.trim_start_matches("CAP_"));
        list(names.map(str::to_owned), "none")
    };
    let mut said = format!("at most {}", of(&sets.bounding));
    if !sets.ambient.is_empty() {
        said += &format!("; kept by a user other than root: {}", of(&sets.ambient));
    }
    said
}

fn filter(profile: Option<&Value>) -> String {
    let Some(profile) = profile else {
        return "none: every system call reaches the kernel".to_owned();
    };
    let default = profile["defaultAction"].as_str().unwrap_or_default();
    let rules = profile["syscalls"].as_array().map_or(0, Vec::len);
    format!("{rules} rules, {default} for all other calls")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn explained(edit: impl FnOnce(&mut Value)) -> Vec<Row> {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
        let mut config = crate::cli::spec::example(false);
        edit(&mut config);
        let config = serde_json::from_value(config).unwrap();
        rows(&Checked::new(config, bundle.path()).unwrap()).unwrap()
    }

    #[track_caller]
    fn assert_row(rows: &[Row], what: &str, asked: &str) {
        let found = rows.iter().find(|row| row.what == what).unwrap();
        assert_eq!(found.asked, asked);
    }

    #[test]
    fn every_step_has_a_row_and_they_are_in_order() {
        let rows = explained(|_| {});
        assert!(rows.is_sorted_by_key(|row| row.step));
        for step in ["00", "01", "02", "03", "04", "05", "06", "07", "10", "11"] {
            assert!(rows.iter().any(|row| row.step == step), "{step}");
        }
        assert_row(&rows, "host name", "its own, drydock");
        assert_row(&rows, "network", "its own");
        assert_row(&rows, "mount", "/proc: a new proc");
        assert_row(&rows, "limits", "none");
    }

    #[test]
    fn what_is_not_isolated_is_said() {
        let rows = explained(|config| {
            config["hostname"] = json!("");
            config["linux"]["namespaces"] = json!([{"type": "mount"}]);
        });
        for what in ["host name", "IPC", "processes", "network"] {
            assert_row(&rows, what, "the caller's");
        }
        assert_row(
            &rows,
            "users",
            "the caller's: root inside is root of the host",
        );
    }

    #[test]
    fn limits_are_named_by_their_paths() {
        let rows = explained(|config| {
            config["linux"]["resources"] = json!({"memory": {"limit": 5_000_000},
                                                  "pids": {"limit": 9}});
            config["hooks"] = json!({"poststop": [{"path": "/bin/true"}]});
        });
        assert_row(&rows, "limits", "memory.limit 5000000, pids.limit 9");
        assert_row(&rows, "hooks", "1 poststop");
    }
}
