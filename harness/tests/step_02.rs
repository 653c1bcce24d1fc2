//! Checks of step 02: the IPC namespace, and the tool that shows it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use check::prelude::*;
use check::sys::{SysV, make_sysv, remove_sysv};
use nix::mqueue::{MQ_OFlag, MqAttr, mq_close, mq_open, mq_unlink};
use nix::sys::stat::Mode;

const KINDS: [(SysV, &str); 3] = [(SysV::Msg, "msg"), (SysV::Sem, "sem"), (SysV::Shm, "shm")];

#[test]
fn the_ipc_namespace_is_new() {
    check(|c| {
        let ours = host::namespaces("self")?;
        let held = c.step().hold()?;
        let theirs = &held.seen().namespaces;
        expect(
            theirs.get("ipc") != ours.get("ipc"),
            "an IPC namespace of its own inside",
            "the host's: CLONE_NEWIPC was not asked for",
        )?;
        expect(
            theirs.get("uts") != ours.get("uts"),
            "the UTS namespace of step 01 as well",
            "the host's: every step has the isolations of those before it",
        )?;
        for kind in ["mnt", "net", "pid", "user"] {
            expect(
                theirs.get(kind) == ours.get(kind),
                format!("the host's {kind} namespace inside"),
                "another one: this step isolates names and IPC",
            )?;
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
fn what_is_made_inside_is_not_seen_outside() {
    check(|c| {
        let before = on_host()?;
        let name = format!("/{}", c.word("queue"));
        let mut held = c.step().hold()?;
        for (_, kind) in KINDS {
            made(held.ask(&["make-sysv", kind])?)?;
        }
        made(held.ask(&["mq-open", &name])?)?;
        let seen = held.report()?;
        expect_eq("the number of System V objects inside", seen.sysv.len(), 3)?;
        expect_eq(
            "the POSIX queues inside",
            seen.posix_queues,
            vec![name[1..].to_owned()],
        )?;
        let new: Vec<String> = on_host()?
            .into_iter()
            .filter(|line| !before.contains(line))
            .map(|line| object(&line))
            .collect();
        expect(
            new.is_empty(),
            "objects made inside to be invisible on the host, to ipcs and in /dev/mqueue",
            format!("{new:?} there: the command makes its objects in the host's namespace"),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_the_host_has_is_not_seen_inside() {
    check(|c| {
        let _objects = OnHost::new(c)?;
        let seen = c.step().probe()?;
        let sysv: Vec<String> = seen.sysv.iter().map(|line| object(line)).collect();
        expect(
            sysv.is_empty(),
            "no System V objects inside",
            format!("{sysv:?}, which are the host's: a new IPC namespace begins empty"),
        )?;
        expect(
            seen.posix_queues.is_empty(),
            "no POSIX queues inside",
            format!(
                "{:?}: a mount shows the namespace in which it was made",
                seen.posix_queues
            ),
        )
    });
}

#[test]
fn the_hosts_objects_are_shared_with_ipc_host() {
    check(|c| {
        let objects = OnHost::new(c)?;
        let seen = c.step().args(["--ipc", "host"]).probe()?;
        expect(
            seen.sysv.len() >= KINDS.len()
                && seen.posix_queues.contains(&objects.queue[1..].into()),
            "the host's objects inside with --ipc host",
            match seen.sysv.is_empty() && seen.posix_queues.is_empty() {
                true => "none: the command has an IPC namespace of its own".to_owned(),
                false => format!("{:?} and {:?}", seen.sysv, seen.posix_queues),
            },
        )
    });
}

#[test]
fn an_object_outlives_its_maker() {
    check(|c| {
        let mut first = c.step().hold()?;
        let mode = format!("container:{}", first.pid()?);
        let call = c.step().args(["--ipc", &mode, "probe", "make-sysv", "msg"]);
        let attempt: Attempt = call.run()?.success()?.json()?;
        let id = made(attempt)?;
        // The maker is gone; another member of the namespace finds the queue.
        let seen = first.report()?;
        let found = seen.sysv.iter().any(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            words.first() == Some(&"msg") && words.get(2) == Some(&id.as_str())
        });
        expect(
            found,
            format!("queue {id}, made by a process that joined with --ipc {mode}, to be there"),
            match seen.sysv.is_empty() {
                true => {
                    "none: what is in a namespace that is joined belongs to its other members too"
                        .to_owned()
                }
                false => format!("{:?}", seen.sysv),
            },
        )?;
        first.end()?.success()?;
        Ok(())
    });
}

#[test]
fn sockets_are_not_isolated() {
    check(|c| {
        let name = c.word("socket");
        let address = SocketAddr::from_abstract_name(&name).context("name of a socket")?;
        let listener = UnixListener::bind_addr(&address).context("bind an abstract socket")?;
        let mut held = c.step().hold()?;
        expect(
            held.seen().namespaces.get("ipc") != host::namespaces("self")?.get("ipc"),
            "an IPC namespace of its own inside",
            "the host's, where a socket of the host proves nothing",
        )?;
        let attempt: Attempt = held.ask(&["connect", &name])?;
        expect(
            attempt.allowed,
            "a Unix socket of the host to be reached: it is not what an IPC namespace isolates",
            attempt.errno,
        )?;
        listener
            .set_nonblocking(true)
            .context("fcntl(O_NONBLOCK)")?;
        expect(
            listener.accept().is_ok(),
            "a connection to the host's socket",
            "none: the answer does not come from the command",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_is_made_is_listed_under_its_id() {
    check(|c| {
        let name = format!("/{}", c.word("queue"));
        let script = format!(
            "for kind in queue semaphore memory; do $0 ipc make $kind; $0 ipc make $kind; done
             $0 ipc make mqueue {name}; $0 ipc ls"
        );
        let ran = tool(c, &script)?.success()?;
        let lines: Vec<&str> = ran.stdout.lines().collect();
        let (ids, listing) = lines.split_at(lines.len().min(7));
        for (number, kind) in ["queue", "semaphore", "memory"].iter().enumerate() {
            let pair = ids.get(2 * number..2 * number + 2).unwrap_or(&[]);
            expect(
                pair.len() == 2 && pair[0] != pair[1],
                format!("two identifiers from two calls of `ipc make {kind}`"),
                format!("{pair:?}: a key finds an object again, IPC_PRIVATE makes a new one"),
            )?;
            for id in pair {
                expect(
                    is_listed(listing, kind, id),
                    format!("`ipc ls` to list {kind} {id}"),
                    format!("{listing:?}"),
                )?;
            }
        }
        expect_eq(
            "what `ipc make mqueue` prints",
            ids.get(6),
            Some(&name.as_str()),
        )?;
        expect(
            is_listed(listing, "mqueue", &name),
            format!("`ipc ls` to list mqueue {name}"),
            format!("{listing:?}"),
        )?;
        // The header, and seven objects.
        expect_eq("the number of lines of `ipc ls`", listing.len(), 8)?;
        for line in &listing[1..] {
            let words: Vec<&str> = line.split_whitespace().collect();
            expect_eq(
                &format!("the owner and the mode of a new object, {words:?},"),
                words.get(3..5),
                Some(&["0", "0600"][..]),
            )?;
        }
        Ok(())
    });
}

#[test]
fn the_listing_is_of_the_callers_namespace() {
    check(|c| {
        let objects = OnHost::new(c)?;
        let word = c.word("inside");
        let name = format!("/{word}");
        let mut held = c.step().hold()?;
        made(held.ask(&["mq-open", &name])?)?;
        // Neither in the order of their making nor in its reverse.
        let others = [format!("/a-{word}"), format!("/z-{word}")];
        for other in &others {
            made(held.ask(&["mq-open", other])?)?;
        }
        let mode = format!("container:{}", held.pid()?);
        let program = c.step().command().get_program().to_owned();
        let ran = c
            .step()
            .args(["--ipc", &mode])
            .args([program])
            .args(["ipc", "ls"])
            .run()?
            .success()?;
        let listing: Vec<&str> = ran.stdout.lines().collect();
        expect(
            is_listed(&listing, "mqueue", &name),
            format!("{name}, a POSIX queue of the caller's namespace"),
            format!("{listing:?}"),
        )?;
        let names = listing
            .iter()
            .filter_map(|line| line.strip_prefix("mqueue"));
        let names: Vec<&str> = names
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        expect_eq(
            "the queues in the order of their names",
            names,
            vec![&*others[0], &*name, &*others[1]],
        )?;
        expect(
            !ran.stdout.contains(&objects.queue),
            "none of the host's queues",
            "one: a mounted mqueue file system belongs to the namespace of whoever mounted it",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_is_removed_is_gone() {
    check(|c| {
        let name = format!("/{}", c.word("queue"));
        let script = format!(
            "$0 ipc make mqueue {name} >&2 && $0 ipc rm mqueue {name} || exit 11
             for kind in queue semaphore memory; do
                 id=$($0 ipc make $kind) && $0 ipc rm $kind $id || exit 12
             done
             $0 ipc ls"
        );
        let ran = tool(c, &script)?.success()?;
        let listing: Vec<&str> = ran.stdout.lines().collect();
        for kind in ["queue", "semaphore", "memory", "mqueue"] {
            expect(
                !listing
                    .iter()
                    .any(|line| line.split(' ').next() == Some(kind)),
                format!("no {kind} after `ipc rm`"),
                format!("{listing:?}"),
            )?;
        }
        Ok(())
    });
}

#[test]
fn bad_input_is_refused() {
    check(|c| {
        let id = (1_000_000 + c.number(1_000_000)).to_string();
        let name = c.word("queue");
        let slashed = format!("/{name}");
        let pid = "4194304";
        let joined = format!("container:{pid}");
        let two = format!("{slashed}/x");
        let long = format!("/{}", "a".repeat(256));
        let bad: [(&[&str], &str); 9] = [
            (&["ipc", "rm", "queue", &id], &id),
            (&["ipc", "rm", "memory", &name], &name),
            (&["ipc", "rm", "mqueue", &slashed], &name),
            (&["ipc", "rm", "mqueue", &name], "slash"),
            (&["ipc", "make", "mqueue", &name], "slash"),
            (&["ipc", "make", "mqueue", &two], "slash"),
            (&["ipc", "make", "mqueue", &long], "255"),
            (&["ipc", "make", "semaphore", "0"], "0"),
            (&["--ipc", &joined, "probe", "exit", "0"], pid),
        ];
        for (args, word) in bad {
            c.step().args(args).run()?.expect_error(125, &[word])?;
        }
        // Removed again, for whoever has no namespace of his own.
        let twice = format!(
            "$0 ipc make mqueue {slashed} && $0 ipc make mqueue {slashed}; made=$?; \
             $0 ipc rm mqueue {slashed}; exit $made"
        );
        let ran = tool(c, &twice)?;
        expect_eq(
            "the status of `ipc make` with a name that is taken",
            ran.status,
            125,
        )?;
        ran.expect_error(125, &[&slashed, "taken"])?;
        Ok(())
    });
}

/// Runs a script inside; `$0` is the step's program.
fn tool(c: &Check, script: &str) -> Result<Ran> {
    let program = c.step().command().get_program().to_owned();
    c.step().args(["sh", "-c", script]).args([program]).run()
}

fn is_listed(listing: &[&str], kind: &str, id: &str) -> bool {
    listing.iter().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(kind) && words.next() == Some(id)
    })
}

/// The identifier of what the probe has made.
fn made(attempt: Attempt) -> Result<String> {
    expect(
        attempt.allowed,
        "to make an IPC object inside",
        attempt.errno,
    )?;
    Ok(attempt.text)
}

/// A line of /proc/sysvipc or the name of a queue, without what is counted and
/// measured: the kind and the key.
fn object(line: &str) -> String {
    line.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Every IPC object of the host.
fn on_host() -> Result<Vec<String>> {
    let mut all = host::posix_queues()?;
    for (_, kind) in KINDS {
        let file = format!("/proc/sysvipc/{kind}");
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        all.extend(text.lines().map(|line| format!("{kind} {line}")));
    }
    Ok(all)
}

/// One object of each kind on the host, while this lives.
struct OnHost {
    sysv: Vec<(SysV, i32)>,
    queue: String,
}

impl OnHost {
    fn new(c: &Check) -> Result<Self> {
        let mut objects = OnHost {
            sysv: Vec::new(),
            queue: format!("/{}", c.word("host")),
        };
        for (kind, name) in KINDS {
            let id = make_sysv(kind).with_context(|| format!("make a {name} on the host"))?;
            objects.sysv.push((kind, id));
        }
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR;
        let attributes = MqAttr::new(0, 1, 64, 0);
        mq_open(
            objects.queue.as_str(),
            flags,
            Mode::S_IRWXU,
            Some(&attributes),
        )
        .and_then(mq_close)
        .context("make a POSIX queue on the host")?;
        Ok(objects)
    }
}

impl Drop for OnHost {
    fn drop(&mut self) {
        for (kind, id) in &self.sysv {
            if let Err(errno) = remove_sysv(*kind, *id) {
                eprintln!("remove {kind:?} {id} from the host: {errno}");
            }
        }
        if let Err(errno) = mq_unlink(self.queue.as_str()) {
            eprintln!("remove {} from the host: {errno}", self.queue);
        }
    }
}
