//! Checks of step 06: the network namespace.
//!
//! Each takes place in a network of the check's own, with hosts of its own on
//! the other side of its cables.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::parent_id;
use std::thread;
use std::time::{Duration, Instant};

use check::check::open_to_all;
use check::prelude::*;
use check::{firewall, lan, rtnl};

/// A port that is not 80, and not below 1024.
fn port(c: &Check) -> u16 {
    20_000 + c.number(10_000) as u16
}

/// Goes on if the server `word` answered, and was asked by `from`.
fn expect_answer(how: &str, got: &Attempt, word: &str, from: impl Into<IpAddr>) -> Result<()> {
    expect(
        got.allowed && got.text.starts_with(word),
        format!("{how} to be answered by {word}"),
        match got.errno.as_str() {
            "" => format!("the answer {:?}", got.text),
            errno => format!("{errno}: {}", meaning(errno)),
        },
    )?;
    let from = from.into();
    expect(
        got.text == format!("{word} {from}"),
        format!("{how} to be asked from the address {from}"),
        format!(
            "{:?}: the sender's address was changed on the way, or was not",
            got.text
        ),
    )
}

/// What an errno of a connection says of the packets.
fn meaning(errno: &str) -> &'static str {
    match errno {
        "ECONNREFUSED" => {
            "the host is there, and nobody listens on the port: no rule led the packet on"
        }
        "ETIMEDOUT" | "EAGAIN" => {
            "no answer: a packet was dropped, or its answer found no way back"
        }
        "ENETUNREACH" => "no route there from where it was asked",
        "EHOSTUNREACH" => "no such neighbour on the link",
        _ => "see connect(2)",
    }
}

/// Goes on if nobody answered.
fn expect_silence(how: &str, got: &Attempt) -> Result<()> {
    expect(
        !got.allowed,
        format!("{how} to reach nobody"),
        format!("an answer: {}", got.text),
    )
}

fn own_namespace() -> Result<u64> {
    Ok(host::namespaces("thread-self")?["net"])
}

/// The address of the bridge, as a container knows it.
fn gateway(lan: &Lan, container: &Held) -> Result<Ipv4Addr> {
    let gateway = lan.network(container)?.gateway;
    gateway.ok_or_else(|| failed("a default route in the container", "none"))
}

#[test]
fn a_new_network_has_lo_up() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let before = lan.snapshot()?;
        let port = port(c);
        let server = lan.host_server(port, "host")?;
        let mut held = lan.step().hold()?;
        expect(
            held.seen().namespaces["net"] != own_namespace()?,
            "a network namespace of its own",
            "the host's: CLONE_NEWNET was not asked for",
        )?;
        // The host of this check is itself in a namespace of its own. Whoever
        // started the check is in the machine's, as is process 1, which not
        // every machine lets anybody look at.
        let machines = host::namespaces(&parent_id().to_string())?;
        expect(
            Some(&held.seen().namespaces["net"]) != machines.get("net"),
            "a network namespace of its own",
            "that of process 1 of the machine: it was entered, not made",
        )?;
        let network: Network = held.ask(&["network"])?;
        let names: Vec<&str> = network.devices.keys().map(String::as_str).collect();
        expect_eq("the devices without --network", names, vec!["lo"])?;
        expect(
            network.devices["lo"].up,
            "lo to be up: a program may want to talk to itself",
            "it down, as it is born",
        )?;
        expect_eq(
            "the addresses of lo",
            network.devices["lo"].ipv4(),
            vec![Ipv4Addr::LOCALHOST],
        )?;
        let to = format!("127.0.0.1:{port}");
        let host: Attempt = held.ask(&["talk", "tcp", &to])?;
        expect_silence("127.0.0.1 inside, at a port of the host,", &host)?;
        expect_eq("the reason", host.errno.as_str(), "ECONNREFUSED")?;
        held.end()?.success()?;
        server.end()?.success()?;
        lan.expect_as_before(&before, "after a container without a network")
    });
}

#[test]
fn a_network_can_be_shared() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let held = lan.step().args(["--network", "host"]).hold()?;
        expect(
            held.seen().namespaces["net"] == own_namespace()?,
            "the host's network namespace with --network host",
            "a new one",
        )?;
        held.end()?.success()?;
        let owner = lan.step().hold()?;
        let mode = format!("container:{}", owner.pid()?);
        let guest = lan.step().args(["--network", &mode]).hold()?;
        expect_eq(
            "the network namespace with --network container:PID",
            guest.seen().namespaces["net"],
            owner.seen().namespaces["net"],
        )?;
        guest.end()?.success()?;
        owner.end()?.success()?;
        let nobody = lan
            .step()
            .args(["--network", "container:4194304", "probe", "exit", "0"]);
        nobody.run()?.expect_error(125, &["4194304"])?;
        let port = format!("{}:80", port(c));
        let both = ["-p", &port, "--network", "host", "probe", "exit", "0"];
        lan.step().args(both).run()?.expect_error(125, &["host"])?;
        Ok(())
    });
}

#[test]
fn a_container_is_connected() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let before = lan.snapshot()?;
        let port = port(c);
        let server = lan.host_server(port, "host")?;
        let mut held = lan.container(&[])?;
        let network: Network = held.ask(&["network"])?;
        let Some(eth0) = network.devices.get("eth0") else {
            let names: Vec<_> = network.devices.keys().collect();
            return Err(failed(
                "a device eth0 in the container",
                format!("{names:?}"),
            ));
        };
        expect(eth0.up, "eth0 to be up", "it down")?;
        expect(network.devices["lo"].up, "lo to be up", "it down")?;
        let own = lan.address(&held)?;
        expect(
            eth0.mac[0] & 1 == 0 && eth0.mac != [0; 6],
            "a MAC address that is neither multicast nor zero",
            format!("{:?}", eth0.mac),
        )?;
        let v6: Vec<_> = eth0.addresses.iter().filter(|ip| ip.is_ipv6()).collect();
        expect(
            v6.is_empty(),
            "no IPv6 address on eth0 without --ip6",
            format!("{v6:?}"),
        )?;
        let gateway = gateway(&lan, &held)?;
        let to = format!("{gateway}:{port}");
        let answer: Attempt = held.ask(&["talk", "tcp", &to])?;
        expect_answer("the host at the gateway's address", &answer, "host", own)?;
        held.end()?.success()?;
        server.end()?.success()?;
        lan.expect_as_before(&before, "after the only container on the bridge")
    });
}

#[test]
fn containers_talk_to_each_other() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (one, two) = (c.word("one"), c.word("two"));
        let (a, b) = (lan.server(&[], 80, &one)?, lan.server(&[], 80, &two)?);
        let (at, bt) = (lan.address(&a)?, lan.address(&b)?);
        expect(at != bt, "two addresses for two containers", at)?;
        for protocol in ["tcp", "udp"] {
            let how = format!("a container asked by another over {protocol}");
            let answer = lan.ask_from(&b, protocol, at, 80)?;
            expect_answer(&how, &answer, &one, bt)?;
            let answer = lan.ask_from(&a, protocol, bt, 80)?;
            expect_answer(&how, &answer, &two, at)?;
            let how = format!("a container asked by the host over {protocol}");
            let answer = lan.ask(protocol, at, 80)?;
            expect_answer(&how, &answer, &one, gateway(&lan, &a)?)?;
        }
        a.end()?.success()?;
        b.end()?.success()?;
        Ok(())
    });
}

#[test]
fn two_containers_have_port_80() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let first = port(c);
        let (one, two) = (c.word("one"), c.word("two"));
        let a = lan.server(&["-p", &format!("{first}:80")], 80, &one)?;
        let b = lan.server(&["-p", &format!("{}:80", first + 1)], 80, &two)?;
        let mut remote = lan.remote()?;
        for (port, word) in [(first, &one), (first + 1, &two)] {
            let answer = remote.ask("tcp", remote.here, port)?;
            let how = format!("port {port} of the host");
            expect_answer(&how, &answer, word, remote.there)?;
        }
        a.end()?.success()?;
        b.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (port, word) = (port(c), c.word("server"));
        let mut remote = lan.remote()?;
        let (tcp, udp) = (format!("{port}:80"), format!("{port}:80/udp"));
        let server = lan.server(&["-p", &tcp, "-p", &udp], 80, &word)?;
        let other = lan.container(&[])?;
        let gateway = gateway(&lan, &server)?;
        for protocol in ["tcp", "udp"] {
            let how = |whence: &str| format!("the published port over {protocol}, {whence},");
            let answer = remote.ask(protocol, remote.here, port)?;
            expect_answer(&how("from another host"), &answer, &word, remote.there)?;
            let answer = lan.ask(protocol, Ipv4Addr::LOCALHOST, port)?;
            expect_answer(&how("from the host at 127.0.0.1"), &answer, &word, gateway)?;
            let answer = lan.ask(protocol, remote.here, port)?;
            let whence = how("from the host at its address");
            expect_answer(&whence, &answer, &word, remote.here)?;
            for (whence, asker) in [
                ("from another container", &other),
                ("from the container itself", &server),
            ] {
                for ip in [remote.here, gateway] {
                    let answer = lan.ask_from(asker, protocol, ip, port)?;
                    expect_answer(&how(whence), &answer, &word, gateway)?;
                }
            }
        }
        other.end()?.success()?;
        server.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_port_on_one_address_is_on_no_other() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (private, public, word) = (port(c), port(c) + 10_000, c.word("server"));
        let (mut near, mut far) = (lan.remote()?, lan.remote()?);
        let on_loopback = format!("127.0.0.1:{private}:80");
        let on_near = format!("{}:{public}:80", near.here);
        let server = lan.server(&["-p", &on_loopback, "-p", &on_near], 80, &word)?;
        let gateway = gateway(&lan, &server)?;
        let answer = lan.ask("tcp", Ipv4Addr::LOCALHOST, private)?;
        expect_answer(
            "a port on 127.0.0.1, from the host",
            &answer,
            &word,
            gateway,
        )?;
        let answer = near.ask("tcp", near.here, public)?;
        expect_answer("a port on one address", &answer, &word, near.there)?;
        let answer = far.ask_in_vain(far.here, public)?;
        expect_silence("a port on one address, at another one,", &answer)?;
        let answer = near.ask_in_vain(near.here, private)?;
        expect_silence("a port on 127.0.0.1, at another address,", &answer)?;
        let answer = near.ask_loopback(private)?;
        expect_silence(
            "a port on 127.0.0.1, by a neighbour's packets for 127.0.0.1,",
            &answer,
        )?;
        server.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_outside_is_reached_through_nat() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (port, word) = (port(c), c.word("outside"));
        let mut remotes = [lan.remote()?, lan.remote()?];
        let held = lan.container(&[])?;
        expect_eq("net.ipv4.ip_forward", lan::read("ip_forward").as_str(), "1")?;
        for remote in &mut remotes {
            let server = remote.server(c, port, &word)?;
            for protocol in ["tcp", "udp"] {
                let answer = lan.ask_from(&held, protocol, remote.there, port)?;
                let how = format!("another host asked by a container over {protocol}");
                expect_answer(&how, &answer, &word, remote.here)?;
            }
            server.end()?.success()?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn others_do_not_get_in() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (port, word) = (port(c), c.word("server"));
        let (mut near, far) = (lan.remote()?, lan.remote()?);
        let on_host = lan.host_server(port, "host")?;
        let beyond = far.server(c, port, "beyond")?;
        let server = lan.server(&["-p", &format!("{}:80", port + 1)], 80, &word)?;
        let (address, gateway) = (lan.address(&server)?, gateway(&lan, &server)?);
        let answer = near.ask_in_vain(address, 80)?;
        expect_silence(
            "a container's own address, asked by a neighbour of the host,",
            &answer,
        )?;
        let answer = near.ask_in_vain(far.there, port)?;
        expect_silence(
            "a host in another network, through our host, which was no router,",
            &answer,
        )?;
        let mut held = lan.container(&[])?;
        let answer = lan::forge(&mut held, gateway, port)?;
        expect_silence(
            "the host's loopback, by a container's packets for 127.0.0.1,",
            &answer,
        )?;
        held.end()?.success()?;
        server.end()?.success()?;
        beyond.end()?.success()?;
        on_host.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_taken_port_is_refused() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (ours, theirs) = (port(c), port(c) + 10_000);
        let publish = |port: u16| format!("{port}:80");
        let refused = |args: &[&str], words: &[&str]| {
            let call = lan.step().args(args).args(["probe", "exit", "0"]);
            call.run()?.expect_error(125, words)
        };
        let first = lan.container(&["-p", &publish(ours)])?;
        let holder = first.launcher().to_string();
        refused(&["-p", &publish(ours)], &[&ours.to_string(), &holder])?;
        let on_loopback = format!("127.0.0.1:{ours}:81");
        refused(&["-p", &on_loopback], &[&ours.to_string(), &holder])?;
        expect(
            lan.host_server(ours, "host").is_err(),
            "the published port to be kept from programs of the host",
            "one that listens there now, and would never be asked",
        )?;
        let udp = lan.container(&["-p", &format!("{ours}:80/udp")])?;
        udp.end()?.success()?;
        let server = lan.host_server(theirs, "host")?;
        let holder = server.launcher().to_string();
        refused(&["-p", &publish(theirs)], &[&theirs.to_string(), &holder])?;
        let answer = lan.ask("tcp", Ipv4Addr::LOCALHOST, theirs)?;
        expect_answer(
            "the host's own server, after its port was wanted,",
            &answer,
            "host",
            Ipv4Addr::LOCALHOST,
        )?;
        first.end()?.success()?;
        server.end()?.success()?;
        lan.host_server(ours, "host")?.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_port_is_free_when_its_container_ends() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (port, one, two) = (port(c), c.word("one"), c.word("two"));
        let mut remote = lan.remote()?;
        let from = 40_000 + c.number(10_000) as u16;
        let publish = ["-p", &format!("{port}:80"), "-p", &format!("{port}:80/udp")];
        // Keeps the address of the first from being given to the second.
        let first = lan.server(&publish, 80, &one)?;
        let ask = |remote: &mut lan::Remote, protocol: &str| -> Result<Attempt> {
            let (to, from) = (format!("{}:{port}", remote.here), from.to_string());
            remote
                .probe()
                .ask(&["talk", protocol, &to, "--from", &from])
        };
        for protocol in ["tcp", "udp"] {
            let answer = ask(&mut remote, protocol)?;
            expect_answer("the published port", &answer, &one, remote.there)?;
        }
        let stays = lan.container(&[])?;
        first.end()?.success()?;
        let answer = ask(&mut remote, "tcp")?;
        expect_silence("a published port whose container has ended", &answer)?;
        expect(
            answer.errno == "ECONNREFUSED",
            "the published port of a container that has ended to be refused by the host",
            format!(
                "{}: a rule that was left behind leads nowhere",
                answer.errno
            ),
        )?;
        // In the way of the first one's address.
        let between = lan.container(&[])?;
        let second = lan.server(&publish, 80, &two)?;
        for protocol in ["tcp", "udp"] {
            let answer = ask(&mut remote, protocol)?;
            let how = format!("the port, published anew, over {protocol},");
            expect_answer(&how, &answer, &two, remote.there)?;
        }
        second.end()?.success()?;
        between.end()?.success()?;
        stays.end()?.success()?;
        Ok(())
    });
}

#[test]
fn names_are_found() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (rootfs, etc) = (c.rootfs()?, c.dir().join("etc"));
        let (name, domain) = (c.word("box"), c.word("domain"));
        fs::create_dir(&etc).context("mkdir")?;
        let resolv = format!("nameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch {domain}\n");
        fs::write(etc.join("resolv.conf"), resolv).context("write resolv.conf")?;
        let step = lan.step().command();
        let before = fs::read_to_string(rootfs.join("etc/hosts")).unwrap_or_default();
        let mut held = c
            .other_program("probe")
            .env("DRYDOCK_STATE", lan.state())
            .args(["as", "--uid", "0", "--etc"])
            .args([&etc])
            .args(["--"])
            .args([step.get_program()])
            .args(["--network", "bridge", "--hostname", &name, "--rootfs"])
            .args([&rootfs])
            .hold()?;
        let mut read = |path: &str| -> Result<String> {
            let read: Attempt = held.ask(&["read", path])?;
            Ok(read.text)
        };
        let (resolv, hosts) = (read("/etc/resolv.conf")?, read("/etc/hosts")?);
        let hostname = read("/etc/hostname")?;
        let words: Vec<&str> = resolv.split_whitespace().collect();
        expect(
            words.contains(&"192.0.2.53") && words.contains(&domain.as_str()),
            "the host's name server and search list in /etc/resolv.conf",
            format!("{resolv:?}"),
        )?;
        expect(
            !words.contains(&"127.0.0.53"),
            "no server at a loopback address, where the container has none",
            format!("{resolv:?}"),
        )?;
        let own = lan.address(&held)?.to_string();
        let leads = |ip: &str, name: &str| {
            hosts.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(ip) && words.any(|word| word == name)
            })
        };
        expect(
            leads("127.0.0.1", "localhost") && leads(&own, &name),
            format!("localhost, and {name} at {own}, in /etc/hosts"),
            format!("{hosts:?}"),
        )?;
        expect_eq("/etc/hostname", hostname.trim(), name.as_str())?;
        held.end()?.success()?;
        let after = fs::read_to_string(rootfs.join("etc/hosts")).unwrap_or_default();
        expect_eq("/etc/hosts in the rootfs itself", after, before)
    });
}

#[test]
fn addresses_are_given_once() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let subnet = format!("10.{}.{}.0/29", c.number(200), c.number(250));
        let ip = subnet.replace(".0/29", ".5");
        let first = lan.container(&["--subnet", &subnet, "--ip", &ip])?;
        expect_eq(
            "the address with --ip",
            lan.address(&first)?.to_string(),
            ip.clone(),
        )?;
        let exit = ["probe", "exit", "0"];
        for (wrong, word) in [
            (ip.clone(), "taken"),
            (subnet.replace(".0/29", ".9"), subnet.as_str()),
            (subnet.replace(".0/29", ".7"), subnet.as_str()),
        ] {
            let call = lan.step().args(["--network", "bridge", "--ip", &wrong]);
            call.args(exit).run()?.expect_error(125, &[&wrong, word])?;
        }
        // Five at a time, so the sixth needs that of one that is gone.
        for _ in 0..6 {
            let call = lan.step().args(["--network", "bridge"]).args(exit);
            call.run()?.success()?;
        }
        first.end()?.success()?;
        Ok(())
    });
}

#[test]
fn routes_of_the_host_stay_open() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let remote = lan.remote()?;
        let exit = ["probe", "exit", "0"];
        let call = lan.step().args(["--subnet", "192.0.2.128/25"]).args(exit);
        call.run()?.expect_error(125, &["192.0.2.0/24"])?;
        // A host that is reached by a route into the subnet chosen by default.
        let held = lan.container(&[])?;
        let ip = Ipv4Addr::from(u32::from(lan.address(&held)?) + 1);
        held.end()?.success()?;
        rtnl::add_route(Some(ip), remote.there)?;
        let held = lan.container(&[])?;
        let given = u32::from(lan.address(&held)?);
        expect(
            given & 0xffff_ff00 != u32::from(ip) & 0xffff_ff00,
            format!("another subnet than that of {ip}, to which the host has a route"),
            format!("{} for the container", Ipv4Addr::from(given)),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn fifty_at_once_have_fifty_addresses() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let before = lan.snapshot()?;
        let mut all = Vec::new();
        for _ in 0..50 {
            let serve = ["--network", "bridge", "probe", "serve", "80", "x"];
            all.push(lan.step().args(serve).start()?);
        }
        let mut addresses = BTreeSet::new();
        for held in &mut all {
            let ready: Attempt = held.read_within(Duration::from_secs(60))?;
            addresses.insert(ready.text);
        }
        expect_eq("the number of addresses", addresses.len(), 50)?;
        for held in all {
            held.end()?.success()?;
        }
        lan.expect_as_before(&before, "after fifty containers")
    });
}

#[test]
fn an_empty_pool_is_an_error_and_no_more() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let subnet = format!("10.{}.{}.0/30", c.number(200), c.number(250));
        let held = lan.container(&["--subnet", &subnet])?;
        let full = lan.snapshot()?;
        let one_more = lan
            .step()
            .args(["--network", "bridge", "probe", "exit", "0"]);
        one_more.run()?.expect_error(125, &[&subnet])?;
        lan.expect_as_before(&full, "after a container for which there was no address")?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_last_container_puts_the_host_back() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let (port, word) = (port(c), c.word("server"));
        let mut remote = lan.remote()?;
        // An administrator's choices, which ip_forward overwrites.
        lan::write("conf/uplink0/forwarding", "1")?;
        lan::write("conf/all/accept_redirects", "0")?;
        let before = lan.snapshot()?;
        let server = lan.server(&["-p", &format!("{port}:80")], 80, &word)?;
        let other = lan.container(&["-p", &format!("{}:80", port + 1)])?;
        expect_eq("net.ipv4.ip_forward", lan::read("ip_forward").as_str(), "1")?;
        other.end()?.success()?;
        let answer = remote.ask("tcp", remote.here, port)?;
        expect_answer(
            "a container that stays when another one ends",
            &answer,
            &word,
            remote.there,
        )?;
        server.end()?.success()?;
        lan.expect_as_before(&before, "after the last container")?;
        // A host that was a router stays one.
        lan::write("ip_forward", "1")?;
        let before = lan.snapshot()?;
        let far = lan.remote()?;
        let beyond = far.server(c, port, "beyond")?;
        let held = lan.container(&[])?;
        let answer = remote.ask("tcp", far.there, port)?;
        expect_answer(
            "a host in another network, through our host, which was a router,",
            &answer,
            "beyond",
            remote.there,
        )?;
        held.end()?.success()?;
        beyond.end()?.success()?;
        drop(far);
        lan.expect_as_before(&before, "after a container on a router")
    });
}

#[test]
fn what_a_killed_launcher_leaves_is_found() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let before = lan.snapshot()?;
        let publish = format!("{}:80", port(c));
        let start = || lan.step().args(["-p", &publish, "--ip6"]);
        let begun = Instant::now();
        let held = start().hold()?;
        let whole = begun.elapsed();
        // Complete, and with something that keeps its namespace, and with that
        // its cable, in being.
        let namespace = File::open(format!("/proc/{}/ns/net", held.pid()?)).context("open")?;
        held.signal(Signal::SIGKILL)?;
        held.wait()?;
        let next = |tool: &[&str]| lan.step().args(tool).run()?.success();
        next(&["probe", "exit", "0"])?;
        lan.expect_as_before(&before, "after the run that follows a killed launcher")?;
        drop(namespace);
        // At any moment while it sets up.
        for round in 0..12 {
            let held = start().args(["probe", "hold"]).start()?;
            let moment = whole.as_micros() as u64 * (round + 1) / 12;
            thread::sleep(Duration::from_micros(moment.saturating_sub(c.number(2000))));
            held.signal(Signal::SIGKILL)?;
            held.wait()?;
            match round % 2 {
                0 => next(&["restore"])?,
                _ => next(&["probe", "exit", "0"])?,
            };
            let when = format!("after a launcher was killed {moment} µs after its start");
            lan.expect_as_before(&before, &when)?;
        }
        Ok(())
    });
}

#[test]
fn ipv6_connects_containers() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let word = c.word("server");
        let server = lan.server(&["--ip6"], 80, &word)?;
        let asker = lan.container(&["--ip6"])?;
        let unique_local = |held: &Held| -> Result<IpAddr> {
            let network = lan.network(held)?;
            let addresses = &network.devices["eth0"].addresses;
            let found = addresses.iter().find(|ip| match ip {
                IpAddr::V6(ip) => ip.is_unique_local(),
                IpAddr::V4(_) => false,
            });
            found.copied().ok_or_else(|| {
                failed(
                    "an address of fc00::/7 on eth0 with --ip6",
                    format!("{addresses:?}"),
                )
            })
        };
        let (to, from) = (unique_local(&server)?, unique_local(&asker)?);
        for protocol in ["tcp", "udp"] {
            let answer = lan.ask_from(&asker, protocol, to, 80)?;
            let how = format!("a container asked over IPv6 and {protocol}");
            expect_answer(&how, &answer, &word, from)?;
        }
        asker.end()?.success()?;
        server.end()?.success()?;
        Ok(())
    });
}

#[test]
fn an_ordinary_user_gets_no_bridge() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let uid = 20_000 + c.number(20_000) as u32;
        let home = c.dir().join("home");
        open_to_all(c.dir())?;
        fs::create_dir(&home).context("mkdir")?;
        for (from, to) in [
            (c.step().command(), "step-06"),
            (c.other_program("probe").command(), "probe"),
        ] {
            fs::copy(from.get_program(), home.join(to)).context("copy a program")?;
        }
        std::os::unix::fs::chown(&home, Some(uid), Some(uid)).context("chown")?;
        let before = lan.snapshot()?;
        let call = || {
            c.other_program("probe")
                .args(["as", "--uid", &uid.to_string(), "--"])
                .args([home.join("step-06")])
                .env("XDG_RUNTIME_DIR", &home)
        };
        let probe = home.join("probe");
        for option in [["--network", "bridge"], ["-p", "8080:80"]] {
            let refused = call().args(option).args([&probe]).args(["exit", "0"]);
            refused.run()?.expect_error(125, &["root", "none"])?;
        }
        let network: Network = call()
            .args([&probe])
            .args(["network"])
            .run()?
            .success()?
            .json()?;
        expect(
            network.devices.len() == 1 && network.devices["lo"].up,
            "an ordinary user to have a loopback device that is up",
            format!("{:?}", network.devices),
        )?;
        lan.expect_as_before(&before, "after an ordinary user's containers")
    });
}

#[test]
fn a_firewall_in_the_way_is_named() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let call = || {
            lan.step()
                .args(["--network", "bridge", "probe", "exit", "0"])
        };
        let quiet = call().run()?.success()?;
        expect(
            !quiet.stderr.contains("FORWARD"),
            "no warning where nothing is in the way",
            format!("{:?}", quiet.stderr),
        )?;
        firewall::drop_forwarded()?;
        let warned = call().run()?.success()?;
        firewall::remove()?;
        for word in ["FORWARD", firewall::TABLE] {
            expect(
                warned.stderr.contains(word),
                format!("a warning about the chain that drops forwarded packets, with {word:?}"),
                match warned.stderr.trim() {
                    "" => {
                        "none: accepting packets in one table does not overrule another".to_owned()
                    }
                    said => format!("{said:?}"),
                },
            )?;
        }
        Ok(())
    });
}

#[test]
fn every_user_may_bind_low_ports_and_ping() {
    check(|c| {
        let files = [
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
            "/proc/sys/net/ipv4/ping_group_range",
        ];
        let before = files.map(fs::read_to_string).map(Result::ok);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (options, range) in [
            (&["--network", "none"][..], "0 2147483647"),
            (
                &["--network", "none", "--uid-map", "0:100000:1000"],
                "0 999",
            ),
        ] {
            let ran = c
                .step()
                .args(options)
                .args(["cat"])
                .args(files)
                .run()?
                .success()?;
            expect(
                words(&ran.stdout) == format!("0 {range}"),
                format!(
                    "every user of a container's own network to bind any port, and groups {range} to ping"
                ),
                format!(
                    "{:?}: the limit of 1024 keeps users of a host from posing as its services",
                    words(&ran.stdout)
                ),
            )?;
        }
        let after = files.map(fs::read_to_string).map(Result::ok);
        expect_eq("the host's own", after, before)
    });
}
