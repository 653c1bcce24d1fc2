//! Networks as objects, and names in them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use check::lan::inside;
use check::prelude::*;
use serde_json::Value;

use crate::Life;

/// How long to wait for an answer of a resolver: it asks a server that is
/// silent for some seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Record types of RFC 1035.
const A: u16 = 1;
const AAAA: u16 = 28;

/// Response codes.
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// A question with the id 0x0b07.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x0b, 0x07, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// An answer to the question in `message`: with an address, or that there is no
/// such name.
fn answer(message: &[u8], address: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = message.to_vec();
    bytes[2] |= 0x80;
    match address {
        None => bytes[3] = NO_SUCH_NAME,
        Some(address) => {
            bytes[7] = 1;
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            bytes.extend(address);
        }
    }
    bytes
}

/// The code of an answer, and its addresses.
fn read(answer: &[u8], asked: usize) -> Option<(u8, Vec<Ipv4Addr>)> {
    let code = answer.get(3)? & 0xf;
    let count = usize::from(*answer.get(7)?);
    let mut rest = answer.get(asked..)?;
    let mut found = Vec::new();
    for _ in 0..count {
        // A name is labels up to an empty one, or up to a pointer.
        loop {
            match *rest.first()? {
                0 => {
                    rest = &rest[1..];
                    break;
                }
                length if length >= 0xc0 => {
                    rest = rest.get(2..)?;
                    break;
                }
                length => rest = rest.get(1 + usize::from(length)..)?,
            }
        }
        let (head, after) = rest.split_first_chunk::<10>()?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        if let Ok(address) = <[u8; 4]>::try_from(after.get(..length)?) {
            found.push(address.into());
        }
        rest = &after[length..];
    }
    Some((code, found))
}

/// The containers of a check, in a network that stands for the host's.
struct Town<'a> {
    life: Life<'a>,
}

impl Town<'_> {
    /// Starts a container that waits.
    fn start(&self, name: &str, options: &[&str]) -> Result<()> {
        self.serve(name, options, &["sleep", "1000"])
    }

    fn serve(&self, name: &str, options: &[&str], command: &[&str]) -> Result<()> {
        let base = ["run", "-d", "--name", name];
        let words = [&base[..], options, &[&self.life.image], command].concat();
        self.life.said(&words).map(drop)
    }

    /// Asks the resolver of a container.
    fn ask(&self, container: &str, name: &str, kind: u16) -> Result<(u8, Vec<Ipv4Addr>)> {
        let (pid, _) = self.life.pids(container)?;
        let question = question(name, kind);
        let answer = inside(pid, || {
            let socket = UdpSocket::bind("127.0.0.1:0").context("bind")?;
            socket.set_read_timeout(Some(PATIENCE)).context("a limit")?;
            socket.connect("127.0.0.11:53").context("connect")?;
            socket.send(&question).context("send")?;
            let mut bytes = [0; 4096];
            match socket.recv(&mut bytes) {
                Ok(length) => Ok(bytes[..length].to_vec()),
                Err(error) => Err(failed(
                    format!("an answer of 127.0.0.11 in {container} about {name}"),
                    error,
                )),
            }
        })?;
        expect(
            answer.get(..2) == Some(&question[..2]),
            "an answer under the id of the question",
            format!("{:x?}", answer.get(..2)),
        )?;
        let read = read(&answer, question.len());
        read.ok_or_else(|| failed("an answer of RFC 1035", format!("{answer:x?}")))
    }

    /// Expects that a name leads to another container, which is on `network`.
    fn expect_found(&self, from: &str, name: &str, to: &str, network: &str) -> Result<()> {
        let address = self.address(to, network)?;
        expect_eq(
            &format!("what {name} is in {from}"),
            self.ask(from, name, A)?,
            (NO_ERROR, vec![address]),
        )
    }

    fn expect_unknown(&self, from: &str, name: &str) -> Result<()> {
        let (code, addresses) = self.ask(from, name, A)?;
        expect(
            code != NO_ERROR && addresses.is_empty(),
            format!("{name} to be unknown in {from}"),
            format!("{addresses:?}"),
        )
    }

    /// The address of a container on a network, as `network inspect` has it.
    fn address(&self, container: &str, network: &str) -> Result<Ipv4Addr> {
        let inspected = self.inspect(network)?;
        let containers = inspected["Containers"].as_object();
        let mut all = containers.into_iter().flat_map(|all| all.values());
        let found = all.find(|one| one["Name"] == container);
        let text = found.and_then(|one| one["IPv4Address"].as_str());
        let address = text.and_then(|text| text.split('/').next()?.parse().ok());
        address.ok_or_else(|| {
            failed(
                format!("an address of {container} in network inspect {network}"),
                &inspected["Containers"],
            )
        })
    }

    fn inspect(&self, network: &str) -> Result<Value> {
        let words = ["network", "inspect", network];
        let all: Value = self.life.call(&words).run()?.success()?.json()?;
        Ok(all[0].clone())
    }

    fn exec(&self, container: &str, command: &[&str]) -> Result<String> {
        let words = [&["exec", container][..], command].concat();
        self.life.said(&words)
    }

    /// Talks to a server from a container.
    fn talk(&self, container: &str, to: &str) -> Result<Attempt> {
        let words = ["exec", container, "probe", "talk", "tcp", to];
        self.life.call(&words).run()?.success()?.json()
    }

    /// The devices of a container, apart from its loopback device.
    fn devices(&self, container: &str) -> Result<Vec<String>> {
        let text = self.exec(container, &["ls", "/sys/class/net"])?;
        let names = text.split_whitespace().filter(|name| *name != "lo");
        Ok(names.map(str::to_owned).collect())
    }

    /// The gateway of the default route; none without one.
    fn way_out(&self, container: &str) -> Result<String> {
        let text = self.exec(container, &["ip", "route"])?;
        let mut lines = text.lines();
        let gateway = lines.find_map(|line| line.strip_prefix("default via "));
        let gateway = gateway.and_then(|rest| rest.split_whitespace().next());
        Ok(gateway.unwrap_or("nowhere").to_owned())
    }
}

#[test]
fn containers_of_a_network_find_each_other_by_name() {
    check(|c| {
        let _lan = Lan::enter(c)?;
        let life = Life::new(c)?;
        let town = Town { life };
        let life = &town.life;
        for name in ["here", "there"] {
            life.said(&["network", "create", name])?;
        }
        // A server that answers nothing: names of containers need none.
        let silent = ["--dns", "127.0.0.99"];
        let here = [&["--network", "here"][..], &silent].concat();
        let alias = c.word("alias");
        let gateway = ["--add-host", "gate:host-gateway"];
        town.start("one", &[&here[..], &gateway].concat())?;
        town.start("two", &[&here[..], &["--network-alias", &alias]].concat())?;
        town.start("far", &[&["--network", "there"][..], &silent].concat())?;
        let conf = town.exec("one", &["cat", "/etc/resolv.conf"])?;
        expect(
            conf.contains("nameserver 127.0.0.11"),
            "the resolver in /etc/resolv.conf",
            &conf,
        )?;
        let hosts = town.exec("one", &["cat", "/etc/hosts"])?;
        expect(
            hosts.contains("\tgate\n") || hosts.ends_with("\tgate"),
            "the host under the name of --add-host",
            &hosts,
        )?;
        let id = life.record("two")?["Id"].as_str().unwrap_or("").to_owned();
        let alias_there = format!("{alias}.here");
        for name in ["two", "TWO", "two.here", &id[..12], &alias, &alias_there] {
            town.expect_found("one", name, "two", "here")?;
        }
        town.expect_found("one", "one", "one", "here")?;
        expect_eq(
            "the IPv6 addresses of two: it is known, and has none",
            town.ask("one", "two", AAAA)?,
            (NO_ERROR, vec![]),
        )?;
        let said = town.exec("one", &["nslookup", "two"])?;
        let address = town.address("two", "here")?.to_string();
        expect(said.contains(&address), "nslookup to find it", &said)?;
        town.expect_unknown("one", "far")?;
        town.expect_unknown("far", "one")?;
        town.expect_unknown("one", &id[..11])?;

        life.said(&["rename", "two", "second"])?;
        town.expect_found("one", "second", "second", "here")?;
        town.expect_unknown("one", "two")?;
        life.said(&["restart", "-t", "0", "second"])?;
        town.expect_found("one", "second", "second", "here")?;
        town.expect_found("second", "one", "one", "here")?;
        life.said(&["stop", "-t", "0", "second"])?;
        town.expect_unknown("one", "second")?;
        // In the foreground as well, and from the first byte.
        let words = ["run", "--rm", "--network", "here", &life.image];
        let said = life.said(&[&words[..], &["nslookup", "one"]].concat())?;
        let address = town.address("one", "here")?.to_string();
        expect(said.contains(&address), "run to find a name", &said)
    });
}

#[test]
fn a_network_is_an_island() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let mut remote = lan.remote()?;
        let outside = remote.server(c, 7000, "outside")?;
        let life = Life::new(c)?;
        let town = Town { life };
        let life = &town.life;
        life.said(&["network", "create", "a"])?;
        life.said(&["network", "create", "b"])?;
        life.said(&["network", "create", "--internal", "in"])?;
        let word = c.word("server");
        let serve = ["probe", "serve", "80", &word];
        // Such a server ends with its input.
        town.serve("a1", &["-i", "--network", "a", "-p", "8080:80"], &serve)?;
        town.serve("in1", &["-i", "--network", "in"], &serve)?;
        for (name, network) in [("a2", "a"), ("b1", "b"), ("in2", "in"), ("def", "bridge")] {
            town.start(name, &["--network", network])?;
        }
        let a1 = format!("{}:80", town.address("a1", "a")?);
        let in1 = format!("{}:80", town.address("in1", "in")?);
        let there = format!("{}:7000", remote.there);
        for (from, to, reaches) in [
            ("a2", &a1, true),
            ("in2", &in1, true),
            ("b1", &a1, false),
            ("def", &a1, false),
            ("in2", &a1, false),
            ("a2", &in1, false),
            ("a2", &there, true),
            ("b1", &there, true),
            ("in2", &there, false),
        ] {
            let got = town.talk(from, to)?;
            expect(
                got.allowed == reaches,
                match reaches {
                    true => format!("{from} to reach {to}"),
                    false => format!("{from} not to reach {to}: it is not on its network"),
                },
                match got.allowed {
                    true => format!("an answer: {}", got.text),
                    false => got.errno,
                },
            )?;
        }
        // Even with a route of its own, an internal network has no way out.
        let (pid, _) = life.pids("in2")?;
        let gateway = town.inspect("in")?["IPAM"]["Config"][0]["Gateway"].clone();
        let gateway: Ipv4Addr = gateway.as_str().unwrap_or("").parse().context("gateway")?;
        inside(pid, || check::rtnl::add_route(None, gateway))?;
        let got = town.talk("in2", &there)?;
        expect(
            !got.allowed,
            "an internal network to have no way out",
            got.text,
        )?;
        let got = lan.ask("tcp", remote.here, 8080)?;
        expect(
            got.text.starts_with(&word),
            "a published port on a user-defined network",
            got.errno,
        )?;
        outside.end()?;
        remote.probe().let_go();
        Ok(())
    });
}

#[test]
fn a_resolver_asks_others_and_bears_anything() {
    check(|c| {
        let _lan = Lan::enter(c)?;
        let life = Life::new(c)?;
        let town = Town { life };
        let life = &town.life;
        life.said(&["network", "create", "--internal", "in"])?;
        life.said(&["network", "create", "out"])?;
        let server = UdpSocket::bind("127.0.0.53:53").context("bind")?;
        server.set_read_timeout(Some(PATIENCE)).context("a limit")?;
        // The first server is silent: its turn ends, and the next one is asked.
        let dns = ["--dns", "127.0.0.99", "--dns", "127.0.0.53"];
        town.start("box", &[&["--network", "out"][..], &dns].concat())?;
        town.start("shut", &[&["--network", "in"][..], &dns].concat())?;

        // What the server says first is for somebody else: under another id, or
        // about another name.
        let liar = server.try_clone().context("dup")?;
        let served = thread::spawn(move || -> Result<()> {
            let mut bytes = [0; 512];
            for address in [Some([192, 0, 2, 9]), None] {
                let (length, from) = liar.recv_from(&mut bytes).context("a question")?;
                let asked = &bytes[..length];
                let mut guessed = answer(asked, Some([192, 0, 2, 66]));
                guessed[1] ^= 1;
                let mut other = answer(&question("other.example", A), Some([192, 0, 2, 66]));
                other[..2].copy_from_slice(&asked[..2]);
                let right = answer(asked, address);
                for message in [&guessed, &other, &b"\0".to_vec(), &right] {
                    liar.send_to(message, from).context("send")?;
                }
            }
            Ok(())
        });
        let name = format!("{}.example", c.word("name"));
        expect_eq(
            "what the host's server says of a name, passed on",
            town.ask("box", &name, A)?,
            (NO_ERROR, vec![Ipv4Addr::new(192, 0, 2, 9)]),
        )?;
        expect_eq(
            "that there is no such name, passed on",
            town.ask("box", &name, A)?.0,
            NO_SUCH_NAME,
        )?;
        match served.join() {
            Ok(served) => served?,
            Err(_) => return Err(failed("two questions to the server", "a panic")),
        }
        expect_eq(
            "the code of a question that nobody may answer",
            town.ask("shut", &name, A)?.0,
            SERVER_FAILURE,
        )?;
        server.set_nonblocking(true).context("O_NONBLOCK")?;
        let mut bytes = [0; 512];
        expect(
            server.recv(&mut bytes).is_err(),
            "no question to leave an internal network",
            "the server has got it",
        )?;

        // Rubbish, loops, and a flood of questions that nobody answers.
        let (pid, monitor) = life.pids("box")?;
        inside(pid, || {
            let socket = UdpSocket::bind("127.0.0.1:0").context("bind")?;
            socket.connect("127.0.0.11:53").context("connect")?;
            let good = question("x.example", A);
            let mut pointing = good.clone();
            pointing[12..14].copy_from_slice(&[0xc0, 12]);
            let mut many = good.clone();
            many[4..12].fill(0xff);
            let long = [&good[..12], &[63; 2000]].concat();
            let cut = good[..15].to_vec();
            for n in 0..4000 {
                let bad = [&pointing, &many, &long, &cut, &good][n % 5];
                // One that finds no room is lost, as any datagram.
                match socket.send(bad) {
                    Ok(_) | Err(_) => {}
                }
            }
            Ok(())
        })?;
        let found = wait_for(|| town.expect_found("box", "box", "box", "out").ok());
        expect(found.is_some(), "its names after a flood", "none")?;
        let alive = host::process(monitor).is_some_and(|process| process.state != 'Z');
        expect(alive, "its monitor to live", "it has ended")?;
        let size = host::status_field(monitor, "RssAnon").unwrap_or_default();
        let size: u64 = size
            .split_whitespace()
            .next()
            .unwrap_or("")
            .parse()
            .unwrap_or(0);
        expect(
            (1..4 << 10).contains(&size),
            "a monitor that has not grown",
            format!("{size} KiB"),
        )?;
        // Two questions in one piece, as some C libraries ask for A and AAAA.
        inside(pid, || {
            let question = question("box", A);
            let length = u16::try_from(question.len()).context("a length")?;
            let piece = [&length.to_be_bytes()[..], &question].concat();
            let mut stream = TcpStream::connect("127.0.0.11:53").context("connect")?;
            stream.set_read_timeout(Some(PATIENCE)).context("a limit")?;
            stream.write_all(&piece.repeat(2)).context("send")?;
            for which in ["first", "second"] {
                let mut length = [0; 2];
                let read = stream.read_exact(&mut length);
                read.map_err(|error| failed(format!("an answer to the {which} question"), error))?;
                let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut answer).context("receive")?;
            }
            Ok(())
        })?;
        // Port 53 is the container's own, for a name server in it.
        town.exec("box", &["sh", "-c", "nc -l -u -p 53 -w 1 </dev/null; true"])?;
        inside(pid, || {
            UdpSocket::bind("0.0.0.0:53")
                .map(drop)
                .map_err(|error| failed("port 53 to be free in a container", error))
        })
    });
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    check(|c| {
        let lan = Lan::enter(c)?;
        let before = lan.snapshot()?;
        let life = Life::new(c)?;
        let town = Town { life };
        let life = &town.life;
        let net = |words: &[&str]| life.call(&[&["network"][..], words].concat());
        let subnet = ["create", "--subnet", "10.99.7.0/24"];
        net(&["create", "a"]).run()?.success()?;
        let rest = [
            "--ip-range",
            "10.99.7.128/25",
            "--gateway",
            "10.99.7.254",
            "b",
        ];
        net(&[&subnet[..], &rest].concat()).run()?.success()?;
        town.start("box", &["--network", "a"])?;
        town.start("def", &["--network", "bridge"])?;
        net(&[
            "connect",
            "--ip",
            "10.99.7.9",
            "--alias",
            "nine",
            "b",
            "box",
        ])
        .run()?
        .success()?;
        net(&["connect", "b", "def"]).run()?.success()?;
        expect_eq(
            "its devices",
            town.devices("box")?,
            vec!["eth0".into(), "eth1".into()],
        )?;
        expect_eq(
            "the address that was asked for",
            town.address("box", "b")?,
            Ipv4Addr::new(10, 99, 7, 9),
        )?;
        expect_eq(
            "the first address of the range",
            town.address("def", "b")?,
            Ipv4Addr::new(10, 99, 7, 128),
        )?;
        town.expect_found("def", "nine", "box", "b")?;
        town.expect_found("box", "def", "def", "b")?;
        let hosts = town.exec("box", &["cat", "/etc/hosts"])?;
        expect(hosts.contains("10.99.7.9\t"), "it in /etc/hosts", &hosts)?;

        net(&["connect", "b", "box"])
            .run()?
            .expect_error(1, &["endpoint with name box already exists in network b"])?;
        net(&["rm", "b"])
            .run()?
            .expect_error(1, &["has active endpoints"])?;
        // The way out led through the network that it leaves.
        net(&["disconnect", "a", "box"]).run()?.success()?;
        expect_eq("its devices", town.devices("box")?, vec!["eth1".to_owned()])?;
        expect_eq("its way out", town.way_out("box")?.as_str(), "10.99.7.254")?;
        town.expect_unknown("box", "nope")?;
        net(&["disconnect", "a", "box"])
            .run()?
            .expect_error(1, &["is not connected to network a"])?;
        // Its root may make anything of its /etc/hosts. That is not read without
        // end, and keeps it on no network.
        town.exec("box", &["truncate", "-s", "3G", "/etc/hosts"])?;
        net(&["connect", "a", "box"])
            .run()?
            .expect_error(1, &["hosts", "has more than"])?;
        town.exec("box", &["sh", "-c", "printf '\\377' > /etc/hosts"])?;
        expect_eq("its devices", town.devices("box")?, vec!["eth1".to_owned()])?;
        net(&["connect", "a", "def"]).run()?.success()?;
        town.exec("def", &["sh", "-c", "printf '\\377' > /etc/hosts"])?;
        net(&["disconnect", "a", "def"]).run()?.success()?;
        net(&["disconnect", "a", "def"])
            .run()?
            .expect_error(1, &["is not connected to network a"])?;

        // What it has joined stays its own.
        life.said(&["restart", "-t", "0", "box", "def"])?;
        expect_eq(
            "its devices",
            town.devices("def")?,
            vec!["eth0".into(), "eth1".into()],
        )?;
        town.expect_found("def", "nine", "box", "b")?;
        // One that does not run joins at its next start.
        life.said(&["stop", "-t", "0", "box"])?;
        net(&["connect", "a", "box"]).run()?.success()?;
        net(&["disconnect", "b", "box"]).run()?.success()?;
        life.said(&["start", "box"])?;
        town.address("box", "a")?;
        expect_eq("its devices", town.devices("box")?, vec!["eth0".to_owned()])?;

        // Killed monitors leave nothing that the next command does not remove.
        for name in ["box", "def"] {
            let (pid, monitor) = life.pids(name)?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), Signal::SIGKILL)
                .context("kill")?;
            let ended = wait_for(|| crate::is_gone(pid).then_some(()));
            expect(ended.is_some(), "it to end with its monitor", "it lives")?;
        }
        net(&["prune", "-f"]).run()?.success()?;
        let left = life.said(&["network", "ls", "-q", "--filter", "type=custom"])?;
        expect_eq("networks after prune", left.as_str(), "")?;
        lan.expect_as_before(&before, "after prune")?;
        net(&["create", "a"]).run()?.success()?;
        life.said(&["start", "box"])?;
        town.address("box", "a")?;
        life.said(&["rm", "-f", "box", "def"])?;
        net(&["rm", "a"]).run()?.success()?;
        lan.expect_as_before(&before, "after the last container")
    });
}

#[test]
fn networks_and_ports_are_dockers() {
    check(|c| {
        let _lan = Lan::enter(c)?;
        let life = Life::new(c)?;
        let town = Town { life };
        let life = &town.life;
        let net = |words: &[&str]| life.call(&[&["network"][..], words].concat());
        let id = net(&["create", "--label", "a=b", "web"]).run()?.success()?;
        net(&["create", "--internal", "in"]).run()?.success()?;
        let web = town.inspect("web")?;
        expect_eq("the id", web["Id"].as_str().unwrap_or(""), id.stdout.trim())?;
        for (path, value) in [
            ("/Driver", "bridge"),
            ("/Scope", "local"),
            ("/IPAM/Driver", "default"),
            ("/IPAM/Config/0/Subnet", "172.18.0.0/16"),
            ("/IPAM/Config/0/Gateway", "172.18.0.1"),
            ("/Labels/a", "b"),
        ] {
            let found = web.pointer(path).and_then(Value::as_str);
            expect_eq(path, found.unwrap_or("nothing"), value)?;
        }
        let second = town.inspect("in")?;
        let subnet = second["IPAM"]["Config"][0]["Subnet"].as_str();
        expect_eq("the next subnet", subnet.unwrap_or(""), "172.19.0.0/16")?;
        expect_eq(
            "that it is internal",
            &second["Internal"],
            &Value::Bool(true),
        )?;
        let names = |words: &[&str]| -> Result<String> {
            let base = ["network", "ls", "--format", "{{.Name}}"];
            let text = life.said(&[&base[..], words].concat())?;
            Ok(text.lines().collect::<Vec<_>>().join(" "))
        };
        for (filters, found) in [
            (&[][..], "bridge host in none web"),
            (&["--filter", "type=builtin"], "bridge host none"),
            (&["--filter", "label=a=b"], "web"),
            (&["--filter", "driver=null"], "none"),
            (&["--filter", "name=e", "--filter", "dangling=true"], "web"),
        ] {
            expect_eq(&format!("ls {filters:?}"), names(filters)?.as_str(), found)?;
        }
        for (words, error) in [
            (
                &["create", "web"][..],
                "network with name web already exists",
            ),
            (
                &["create", "host"],
                "not permitted on predefined host network",
            ),
            (
                &["create", "--subnet", "172.18.9.0/24", "x"],
                "Pool overlaps with other one",
            ),
            (
                &["create", "--gateway", "10.1.1.1", "x"],
                "must have a corresponding subnet",
            ),
            (
                &["create", "--subnet", "foo", "x"],
                "invalid CIDR address: foo",
            ),
            (&["create", "-d", "foo", "x"], "plugin \"foo\" not found"),
            (&["create", "a b"], "is not a name"),
            (
                &["rm", "bridge"],
                "is a pre-defined network and cannot be removed",
            ),
            (&["inspect", "nope"], "network nope not found"),
            (&["ls", "--filter", "foo=bar"], "Invalid filter 'foo'"),
        ] {
            net(words).run()?.expect_error(1, &[error])?;
        }
        for (options, error) in [
            (&["--network", "nope"][..], "network nope not found"),
            (
                &["--network-alias", "x"],
                "only supported for user-defined networks",
            ),
            (
                &["--network", "web", "--ip", "172.18.0.9"],
                "user configured subnets",
            ),
        ] {
            let words = [&["run", "--rm"][..], options, &[&life.image, "true"]].concat();
            life.call(&words).run()?.expect_error(125, &[error])?;
        }
        let words = ["run", "-p", "8000-8002:90-91", &life.image, "true"];
        let ran = life.call(&words).run()?.expect_status(125)?;
        let error = "invalid ranges specified for container and host Ports";
        expect(ran.stderr.contains(error), error, &ran.stderr)?;

        let ports = ["-p", "8000-8002:90-92", "-p", "9000-9010:99", "-p", "80"];
        let more = ["-P", "--expose", "70-71", "--expose", "53/udp"];
        town.start("first", &[&ports[..], &more].concat())?;
        let port = |name: &str, port: &str| life.said(&["port", name, port]);
        for (inside, host) in [("90", "8000"), ("92", "8002"), ("99", "9000")] {
            let found = port("first", inside)?;
            expect_eq(inside, found.as_str(), &format!("0.0.0.0:{host}"))?;
        }
        for inside in ["80", "70", "71", "53/udp"] {
            let found = port("first", inside)?;
            let number: u16 = found.rsplit(':').next().unwrap_or("").parse().unwrap_or(0);
            expect(
                number > 0,
                format!("a port of the host for {inside}"),
                &found,
            )?;
        }
        // The next free one of the range.
        town.start("next", &["-p", "9000-9010:99"])?;
        expect_eq("the next", port("next", "99")?.as_str(), "0.0.0.0:9001")
    });
}

#[test]
fn a_container_shares_the_network_of_another_by_its_name() {
    check(|c| {
        let life = Life::new(c)?;
        let words = [
            "network",
            "create",
            "--attachable",
            "-o",
            "colour=red",
            "-o",
            "com.docker.network.bridge.enable_icc=true",
            "net",
        ];
        life.said(&words)?;
        expect_eq(
            "what inspect says of options",
            &*life.said(&[
                "network",
                "inspect",
                "-f",
                "{{.Attachable}} {{.Options.colour}}",
                "net",
            ])?,
            "true red",
        )?;
        life.call(&[
            "network",
            "create",
            "-o",
            "com.docker.network.bridge.enable_icc=false",
            "two",
        ])
        .run()?
        .expect_error(1, &["enable_icc"])?;
        let run = ["run", "-d", "--network", "net", "--name", "main"];
        life.said(&[&run[..], &[&life.image, "sleep", "1000"]].concat())?;
        let sleep = [life.image.as_str(), "sleep", "1000"];
        let beside = [
            "run",
            "-d",
            "--network",
            "container:main",
            "--name",
            "beside",
        ];
        life.said(&[&beside[..], &sleep].concat())?;
        let namespace = |name: &str| -> Result<std::path::PathBuf> {
            let (pid, _) = life.pids(name)?;
            std::fs::read_link(format!("/proc/{pid}/ns/net")).context("readlink")
        };
        expect_eq("its network", namespace("beside")?, namespace("main")?)?;
        // Another process is the first one now.
        life.said(&["restart", "-t", "0", "main"])?;
        life.said(&["restart", "-t", "0", "beside"])?;
        expect_eq(
            "its network after a restart",
            namespace("beside")?,
            namespace("main")?,
        )?;
        life.said(&["stop", "-t", "0", "beside", "main"])?;
        life.call(&["start", "beside"])
            .run()?
            .expect_error(1, &["cannot join network of a non running container"])?;
        life.call(
            &[
                &["run", "--rm", "--network", "container:nobody"][..],
                &sleep,
            ]
            .concat(),
        )
        .run()?
        .expect_error(125, &["nobody"])?;
        life.said(&["rm", "-f", "main", "beside"])?;
        life.said(&["network", "rm", "net"]).map(drop)
    });
}
