//! Checks of step 01: the UTS namespace, and looking at namespaces.

use check::host::NAMESPACES;
use check::prelude::*;

#[test]
fn the_uts_namespace_and_no_other_is_new() {
    check(|c| {
        let ours = host::namespaces("self")?;
        let held = c.step().hold()?;
        let theirs = &held.seen().namespaces;
        for (kind, inode) in &ours {
            let same = theirs.get(kind) == Some(inode);
            match kind.as_str() {
                "uts" => expect(
                    !same,
                    "a UTS namespace of its own inside",
                    "the host's: CLONE_NEWUTS was not asked for",
                )?,
                kind => expect(
                    same,
                    format!("the host's {kind} namespace inside"),
                    "another one: this step isolates nothing but names",
                )?,
            }
        }
        expect(
            host::namespaces(&held.launcher().to_string())? == ours,
            "the launcher to stay in the host's namespaces",
            "it in another one: unshare(2) moves its caller, and clone(2) only the child",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_host_name_is_set_inside_only() {
    check(|c| {
        let before = host_names()?;
        let name = c.word("box");
        let mut held = c.step().args(["--hostname", &name]).hold()?;
        expect_eq(
            "the host name inside",
            held.seen().hostname.as_str(),
            &name[..],
        )?;
        expect_eq("the names of the host", &host_names()?, &before)?;
        // And later, from inside.
        let other = c.word("changed");
        let changed: Attempt = held.ask(&["sethostname", &other])?;
        expect(
            changed.allowed,
            "sethostname(2) to be allowed inside",
            &changed.errno,
        )?;
        let seen = held.report()?;
        expect_eq(
            "the host name that was set inside",
            seen.hostname.as_str(),
            &other[..],
        )?;
        expect_eq("the names of the host", &host_names()?, &before)?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_domain_name_is_set_inside_only() {
    check(|c| {
        let before = host_names()?;
        let name = format!("{}.example", c.word("yard"));
        let held = c.step().args(["--domainname", &name]).hold()?;
        expect_eq("the domain name inside", &held.seen().domainname, &name)?;
        expect_eq(
            "the host name inside, which was not asked for",
            &held.seen().hostname,
            &before[0],
        )?;
        expect_eq("the names of the host", host_names()?, before)?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_new_namespace_begins_with_the_hosts_names() {
    check(|c| {
        let seen = c.step().probe()?;
        expect_new(&seen)?;
        let names = vec![seen.hostname, seen.domainname];
        expect_eq("both names inside, unset", names, host_names()?)
    });
}

#[test]
fn the_longest_names_are_taken() {
    check(|c| {
        // 64 bytes, the kernel's limit, and a label of 63, RFC 1123's.
        let label = format!("{}{}", c.word("l"), "a".repeat(53));
        for name in [format!("xy.{}", &label[2..]), label.clone()] {
            let seen = c.step().args(["--hostname", &name]).probe()?;
            expect_eq("the host name inside", &seen.hostname, &name)?;
            expect_new(&seen)?;
        }
        Ok(())
    });
}

#[test]
fn bad_names_are_refused() {
    check(|c| {
        let bad = bad_names(c);
        for option in ["--hostname", "--domainname"] {
            for (name, rule, word) in &bad {
                let call = c
                    .step()
                    .args([&format!("{option}={name}"), "probe", "report"]);
                let ran = call.run()?;
                expect(
                    ran.status != 0,
                    format!("{option} {name:?} to be refused: {rule}"),
                    "it was taken",
                )?;
                ran.expect_error(125, &[option, word])?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_hosts_namespace_is_shared_but_never_renamed() {
    check(|c| {
        let seen = c.step().args(["--uts", "host"]).probe()?;
        expect(
            seen.namespaces.get("uts") == host::namespaces("self")?.get("uts"),
            "the host's UTS namespace with --uts host",
            "another one",
        )?;
        for option in ["--hostname", "--domainname"] {
            let before = host_names()?;
            let name = c.word("oops");
            let ran = c
                .step()
                .args(["--uts", "host", option, &name, "probe", "exit", "0"])
                .run()?;
            expect_eq(
                "the names of the host, which --uts host shares,",
                host_names()?,
                before,
            )?;
            ran.expect_error(125, &[option, "host"])?;
        }
        Ok(())
    });
}

#[test]
fn the_namespace_of_a_running_process_is_joined() {
    check(|c| {
        let name = c.word("first");
        let first = c.step().args(["--hostname", &name]).hold()?;
        expect_new(first.seen())?;
        let mode = format!("container:{}", first.pid()?);
        let second = c.step().args(["--uts", &mode]).probe()?;
        expect_eq(
            "the host name in the joined namespace",
            second.hostname,
            name,
        )?;
        expect_eq(
            "the joined UTS namespace",
            second.namespaces.get("uts"),
            first.seen().namespaces.get("uts"),
        )?;
        first.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_process_to_join_that_does_not_exist_is_named() {
    check(|c| {
        let pid = nobody()?;
        c.step()
            .args(["--uts", &format!("container:{pid}"), "probe", "exit", "0"])
            .run()?
            .expect_error(125, &[&pid])?;
        Ok(())
    });
}

#[test]
fn without_privilege_it_fails_and_says_so() {
    check(|c| {
        let ran = c.step().user(1000).args(["probe", "report"]).run()?;
        expect(
            ran.stdout.is_empty(),
            "no command to run if its namespace cannot be made",
            "it ran, in the host's",
        )?;
        ran.expect_error(125, &["root"])?;
        Ok(())
    });
}

#[test]
fn the_table_shows_both_processes_and_what_differs() {
    check(|c| {
        let held = c.step().hold()?;
        let pid = held.pid()?.to_string();
        let (theirs, ours) = (host::namespaces(&pid)?, host::namespaces("self")?);
        let table = c.step().args(["namespaces", &pid]).run()?.success()?;
        for kind in NAMESPACES
            .into_iter()
            .filter(|kind| ours.contains_key(*kind))
        {
            let row = row(&table, kind)?;
            let wanted = [theirs[kind].to_string(), ours[kind].to_string()];
            expect_eq(
                &format!("the two inodes of {kind} (the process's and the caller's)"),
                row.get(1..3),
                Some(wanted.as_slice()),
            )?;
            let differs = row.iter().any(|word| word == "differs");
            expect(
                differs == (kind == "uts"),
                match differs {
                    true => format!("{kind} to be the same for both"),
                    false => format!("{kind} to be marked as one that differs"),
                },
                format!(
                    "{}: namespaces are distinguished by their inodes",
                    row.join(" ")
                ),
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_table_names_the_owning_user_namespace() {
    check(|c| {
        let mut held = c.step().hold()?;
        let pid = held.pid()?.to_string();
        // Its user namespace is now another one than that which owns its UTS
        // namespace: who asks the process instead of the namespace is wrong.
        let moved: Attempt = held.ask(&["unshare-user"])?;
        expect(moved.allowed, "a new user namespace", &moved.errno)?;
        let ours = host::namespaces("self")?["user"].to_string();
        let theirs = host::namespaces(&pid)?["user"].to_string();
        let table = c.step().args(["namespaces", &pid]).run()?.success()?;
        let row = row(&table, "uts")?;
        let found = match row.last() {
            Some(last) if *last == theirs => "the one that the process is in",
            _ => "none of both",
        };
        expect(
            row.last() == Some(&ours),
            "the user namespace that owns its UTS namespace, at the end of the line",
            found,
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_table_of_nobody_names_the_pid() {
    check(|c| {
        let pid = nobody()?;
        c.step()
            .args(["namespaces", &pid])
            .run()?
            .expect_error(125, &[&pid])?;
        Ok(())
    });
}

/// Fails if a command that reports this is in the host's UTS namespace.
fn expect_new(seen: &Seen) -> Result<()> {
    expect(
        seen.namespaces.get("uts") != host::namespaces("self")?.get("uts"),
        "a UTS namespace of its own inside",
        "the host's: whatever is said of names inside is said of the host's",
    )
}

/// Names that break a rule, each with the rule and a word that must name it.
/// Most of them are drawn: a list of them would be no check of names.
fn bad_names(c: &Check) -> Vec<(String, &'static str, &'static str)> {
    let word = c.word("x");
    let one_of = |list: &[char]| list[c.number(list.len() as u64) as usize];
    let first = 10 + c.number(40) as usize;
    let byte = || c.number(256);
    let mut bad = vec![
        (
            format!("{}.{}", "a".repeat(first), "a".repeat(64 - first)),
            "the kernel takes 64 bytes",
            "64",
        ),
        (format!("{word}/x"), "a name may not contain a slash", "/"),
        (
            format!("{word}_x"),
            "a name may not contain an underscore",
            "_",
        ),
        (format!("{word} x"), "a name may not contain a space", ""),
        (String::new(), "a name is not empty", "empty"),
        ("a".repeat(64), "a label has at most 63 bytes", "63"),
        (
            format!("{}.{}.{}.{}", byte(), byte(), byte(), byte()),
            "a name may not look like an IPv4 address",
            "IPv4",
        ),
    ];
    let signs: Vec<char> = "!\"#$%&'()*+,/:;<=>?@[\\]^_`{|}~".chars().collect();
    let rule = "a name may contain only letters from a to z, digits, hyphens and dots";
    for name in [
        format!("{}{word}", one_of(&signs)),
        format!("{word}{}x.example", one_of(&signs)),
        format!("x.{word}{}", one_of(&signs)),
        format!("x{}{word}", one_of(&['\t', '\x01', '\x7f'])),
        format!("{word}{}", one_of(&['ä', 'é', 'ß', 'ø', '船'])),
    ] {
        bad.push((name, rule, ""));
    }
    let before = "a label does not begin with a hyphen";
    let after = "a label does not end with a hyphen";
    for (label, rule) in [(format!("-{word}"), before), (format!("{word}-"), after)] {
        let labels = match c.number(3) {
            0 => [&label, "x", "example"],
            1 => ["x", &label, "example"],
            _ => ["x", "example", &label],
        };
        bad.push((labels.join("."), rule, "hyphen"));
    }
    for name in [format!(".{word}"), format!("{word}..x"), format!("{word}.")] {
        bad.push((name, "a label is not empty", "empty"));
    }
    bad
}

/// The host name and the domain name of the host.
fn host_names() -> Result<Vec<String>> {
    let read = |name: &str| {
        let file = format!("/proc/sys/kernel/{name}");
        std::fs::read_to_string(&file)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("read {file}"))
    };
    Ok(vec![read("hostname")?, read("domainname")?])
}

/// A PID that no process has: the first one beyond all possible ones.
fn nobody() -> Result<String> {
    let file = "/proc/sys/kernel/pid_max";
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    Ok(text.trim().to_owned())
}

/// The words of the line that begins with `kind`.
fn row(table: &Ran, kind: &str) -> Result<Vec<String>> {
    table
        .stdout
        .lines()
        .map(|line| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .find(|words| words.first().is_some_and(|word| word == kind))
        .ok_or_else(|| {
            failed(
                format!("a line for {kind} from `{}`", table.call),
                format!("{:?}", table.stdout),
            )
        })
}
