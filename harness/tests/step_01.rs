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
        let seen: Seen = held.ask(&["report"])?;
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
        let seen = c.step().args(["--domainname", &name]).probe()?;
        expect_eq("the domain name inside", seen.domainname, name)?;
        expect_eq(
            "the host name inside, which was not asked for",
            &seen.hostname,
            &before[0],
        )?;
        expect_eq("the names of the host", host_names()?, before)
    });
}

#[test]
fn a_new_namespace_begins_with_the_hosts_names() {
    check(|c| {
        let seen = c.step().probe()?;
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
            expect_eq("the host name inside", seen.hostname, name)?;
        }
        Ok(())
    });
}

#[test]
fn bad_names_are_refused() {
    check(|c| {
        let word = c.word("x");
        let dotted = vec!["a".repeat(32); 2].join(".");
        let bad = [
            // What, the rule that it breaks, and a word that must name it.
            (dotted, "the kernel takes 64 bytes", "64"),
            (
                format!("{word}/x"),
                "a slash is no character of a name",
                "/",
            ),
            (
                format!("{word}_x"),
                "an underscore is no character of a name",
                "_",
            ),
            (format!("{word} x"), "a space is no character of a name", ""),
            (String::new(), "a name is not empty", "empty"),
            (
                format!("-{word}"),
                "a label does not begin with a hyphen",
                "hyphen",
            ),
            (
                format!("{word}-.x"),
                "a label does not end with a hyphen",
                "hyphen",
            ),
            (format!("{word}..x"), "a label is not empty", "empty"),
            ("a".repeat(64), "a label has 63 bytes at most", "63"),
        ];
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
            "no command to run where its namespace cannot be made",
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
                    "{}: a namespace is told from another by its inode",
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
