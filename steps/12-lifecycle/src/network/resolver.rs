//! The resolver of a container: its monitor answers its questions, between all
//! that a monitor does.
//!
//! Names of containers are answered at once. Other questions go to the host's
//! name servers, each from a socket of its own, and whoever asked gets the
//! answer when it comes. Nothing here waits, and everything is bounded: the
//! questions under way, the connections, what is kept of each, and what is done
//! before the monitor's other work has its turn.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::cli::places::Places;
use engine::container::Record;
use net::resolver::Sockets;
use nix::unistd::Pid;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::network::dns::{Kind, Question, refuse, set_id, truncate};
use crate::network::names::{Names, Table};

/// The longest question, and the longest answer in a datagram, in bytes.
const LONGEST: usize = 4096;
/// The most questions to servers under way.
const MOST: usize = 64;
/// The most connections.
const MOST_CLIENTS: usize = 8;
/// The most datagrams that are looked at before others have their turn.
const AT_ONCE: usize = 64;
/// How long a server has for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// How many servers are asked, at most: as resolv.conf(5) has it.
const SERVERS: usize = 3;

/// A resolver.
#[derive(Debug)]
pub struct Resolver {
    sockets: Sockets,
    names: Names,
    servers: Vec<SocketAddr>,
    asked: Vec<Asked>,
    clients: Vec<Client>,
    next: u64,
}

/// A question that a server is to answer.
#[derive(Debug)]
struct Asked {
    question: Question,
    /// As the container has sent it.
    message: Vec<u8>,
    from: From,
    /// The id under which the server knows it.
    id: u16,
    /// Which of the servers is asked.
    server: usize,
    way: Way,
    until: Instant,
}

/// Who has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// By a datagram from there.
    Datagram(SocketAddr),
    /// Over the connection with that number.
    Connection(u64),
}

/// The way to a server.
#[derive(Debug)]
enum Way {
    Datagram(UdpSocket),
    Connection(Box<Stream>),
}

/// A connection, with what is still to be sent and what has come.
#[derive(Debug)]
struct Stream {
    stream: TcpStream,
    going: Vec<u8>,
    come: Vec<u8>,
}

/// A connection from the container.
#[derive(Debug)]
struct Client {
    number: u64,
    stream: Stream,
    /// Whether a question is under way: there is one at a time.
    asks: bool,
    until: Instant,
}

impl Resolver {
    /// The resolver of a container that this process has created. `pid` is its
    /// first process.
    pub fn new(places: &Places, record: &Record, pid: Pid) -> Result<Self> {
        let servers = net::servers(&record.spec.net.dns)?;
        let servers = servers.into_iter().map(|ip| SocketAddr::new(ip, 53));
        Ok(Resolver::on(
            net::resolver::open(pid)?,
            Names::new(places, &record.spec.id),
            servers.collect(),
        ))
    }

    fn on(sockets: Sockets, names: Names, mut servers: Vec<SocketAddr>) -> Self {
        servers.truncate(SERVERS);
        Resolver {
            sockets,
            names,
            servers,
            asked: Vec::new(),
            clients: Vec::new(),
            next: 0,
        }
    }

    /// What to wait for.
    pub fn waits_for(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut fds = vec![
            (self.sockets.udp.as_fd(), PollFlags::IN),
            (self.sockets.tcp.as_fd(), PollFlags::IN),
        ];
        fds.extend(self.asked.iter().map(|asked| match &asked.way {
            Way::Datagram(socket) => (socket.as_fd(), PollFlags::IN),
            Way::Connection(stream) => stream.waits_for(),
        }));
        // Whoever waits for an answer is heard again when it is there.
        let heard = self.clients.iter().filter(|client| !client.asks);
        fds.extend(heard.map(|client| client.stream.waits_for()));
        fds
    }

    /// When to work again in any case.
    pub fn due(&self) -> Option<Instant> {
        let asked = self.asked.iter().map(|asked| asked.until);
        // A question that has come already will not be announced again.
        let clients = self.clients.iter().map(|client| match client.is_heard() {
            true => Instant::now(),
            false => client.until,
        });
        asked.chain(clients).min()
    }

    /// Does what can be done without waiting.
    // ANCHOR: work
    pub fn work(&mut self) {
        self.accept();
        self.datagrams();
        self.connections();
        self.answers();
        self.clients.retain(|client| client.until > Instant::now());
    }
    // ANCHOR_END: work

    /// Looks at the questions that have come in datagrams.
    fn datagrams(&mut self) {
        let mut bytes = [0; LONGEST];
        for _ in 0..AT_ONCE {
            match self.sockets.udp.recv_from(&mut bytes) {
                // A longer one is cut off, and no question.
                Ok((length, from)) => self.hear(&bytes[..length], From::Datagram(from)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..MOST_CLIENTS {
            let Ok((stream, _)) = self.sockets.tcp.accept() else {
                return;
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            // The oldest one makes room.
            if self.clients.len() == MOST_CLIENTS {
                self.clients.remove(0);
            }
            self.next += 1;
            self.clients.push(Client {
                number: self.next,
                stream: Stream::new(stream),
                asks: false,
                until: Instant::now() + IDLE,
            });
        }
    }

    /// Looks at the connections from the container.
    fn connections(&mut self) {
        let mut heard = Vec::new();
        self.clients.retain_mut(|client| {
            if client.asks {
                return true;
            }
            let open = client.stream.exchange(LONGEST);
            if client.is_heard()
                && let Some(message) = client.stream.take()
            {
                client.asks = true;
                client.until = Instant::now() + IDLE;
                heard.push((client.number, message));
            }
            open || client.asks
        });
        for (number, message) in heard {
            self.hear(&message, From::Connection(number));
        }
    }

    /// Answers a question, or passes it on.
    // ANCHOR: hear
    fn hear(&mut self, message: &[u8], from: From) {
        let question = match Question::read(message) {
            None => return self.forget(from),
            Some(Err((id, why))) => return self.answer(from, refuse(id, why)),
            Some(Ok(question)) => question,
        };
        let table = self.names.now();
        if let Some(answer) = known(table, &question) {
            return self.answer(from, answer);
        }
        match table.leads_out {
            true => self.pass_on(question, message, from),
            false => self.answer(from, question.failed()),
        }
    }
    // ANCHOR_END: hear

    /// Asks the first server.
    fn pass_on(&mut self, question: Question, message: &[u8], from: From) {
        if self.asked.len() == MOST {
            return self.answer(from, question.failed());
        }
        self.ask(question, message.to_vec(), from, 0);
    }

    /// Asks a server, or the next one if that is not possible.
    fn ask(&mut self, question: Question, message: Vec<u8>, from: From, mut server: usize) {
        while let Some(address) = self.servers.get(server).copied() {
            match send(&message, address, from) {
                Ok((way, id)) => {
                    self.asked.push(Asked {
                        question,
                        message,
                        from,
                        id,
                        server,
                        way,
                        until: Instant::now() + PATIENCE,
                    });
                    return;
                }
                Err(error) => kit::say!("name server {address}: {error:#}"),
            }
            server += 1;
        }
        self.answer(from, question.failed());
    }

    /// Looks at the answers of servers.
    fn answers(&mut self) {
        let now = Instant::now();
        let mut done = Vec::new();
        let mut index = 0;
        while index < self.asked.len() {
            let asked = &mut self.asked[index];
            let heard = match asked.hear() {
                Heard::Nothing if now < asked.until => {
                    index += 1;
                    continue;
                }
                heard => heard,
            };
            done.push((self.asked.remove(index), heard));
        }
        for (asked, heard) in done {
            match heard {
                Heard::Answer(answer) => self.answer(asked.from, Ok(answer)),
                Heard::Nothing | Heard::Refusal => {
                    let next = asked.server + 1;
                    self.ask(asked.question, asked.message, asked.from, next);
                }
            }
        }
    }

    /// Sends an answer to whoever has asked, if they are still there.
    fn answer(&mut self, to: From, answer: Result<Vec<u8>>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                kit::say!("an answer: {error:#}");
                return self.forget(to);
            }
        };
        match to {
            // Without room, it is lost like any datagram.
            From::Datagram(address) => {
                if let Err(error) = self.sockets.udp.send_to(&answer, address) {
                    kit::say!("an answer is lost: {error}");
                }
            }
            From::Connection(number) => {
                let client = self.clients.iter_mut().find(|c| c.number == number);
                if let Some(client) = client {
                    client.asks = false;
                    client.stream.queue(&answer);
                    if !client.stream.exchange(LONGEST) && !client.is_heard() {
                        client.until = Instant::now();
                    }
                }
            }
        }
    }

    /// Gives no answer.
    fn forget(&mut self, to: From) {
        if let From::Connection(number) = to {
            self.clients.retain(|client| client.number != number);
        }
    }
}

/// The answer to a question about a container; `None` if it is about none.
fn known(table: &Table, question: &Question) -> Option<Result<Vec<u8>>> {
    if question.kind == Kind::Pointer {
        let name = table.name(question.address()?)?;
        return Some(question.with_name(name));
    }
    let mut addresses = table.addresses(&question.name)?;
    if question.kind == Kind::Other {
        // The name exists and has nothing of that kind.
        addresses.clear();
    }
    // Of several containers with one alias, each is the first at times.
    if let (Some(last), Ok([byte])) = (addresses.len().checked_sub(1), kit::random::bytes()) {
        addresses.rotate_left(usize::from(byte) % (last + 1));
    }
    Some(question.with_addresses(&addresses))
}

/// What a server has said.
enum Heard {
    /// Nothing yet.
    Nothing,
    /// That it does not answer.
    Refusal,
    /// An answer, with the id of the question.
    Answer(Vec<u8>),
}

impl Asked {
    fn hear(&mut self) -> Heard {
        match &mut self.way {
            Way::Datagram(socket) => {
                let mut bytes = [0; LONGEST];
                for _ in 0..AT_ONCE {
                    match socket.recv(&mut bytes) {
                        Ok(length) if length == LONGEST => {
                            return truncate(&self.question).map_or(Heard::Refusal, Heard::Answer);
                        }
                        Ok(length) => {
                            let answer = &mut bytes[..length];
                            // What somebody else has sent is not the answer.
                            if self.question.is_answered_by(answer, self.id) {
                                set_id(answer, self.question.id);
                                return Heard::Answer(answer.to_vec());
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return Heard::Refusal,
                    }
                }
                Heard::Nothing
            }
            Way::Connection(stream) => {
                let open = stream.exchange(usize::from(u16::MAX));
                match stream.take() {
                    Some(mut answer) if self.question.is_answered_by(&answer, self.id) => {
                        set_id(&mut answer, self.question.id);
                        Heard::Answer(answer)
                    }
                    Some(_) => Heard::Refusal,
                    None if open => Heard::Nothing,
                    None => Heard::Refusal,
                }
            }
        }
    }
}

/// Sends a question to a server, from a port and under an id that nobody can
/// guess.
fn send(message: &[u8], server: SocketAddr, from: From) -> Result<(Way, u16)> {
    let id = u16::from_be_bytes(kit::random::bytes()?);
    let mut message = message.to_vec();
    set_id(&mut message, id);
    let way = match from {
        From::Datagram(_) => {
            let any = match server.ip() {
                IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
                IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            };
            let socket = UdpSocket::bind(any).context("bind")?;
            socket.set_nonblocking(true).context("O_NONBLOCK")?;
            // From now on the kernel takes datagrams of this server only.
            socket.connect(server).context("connect")?;
            socket.send(&message).context("send")?;
            Way::Datagram(socket)
        }
        From::Connection(_) => {
            let mut stream = Stream::new(begin_connection(server)?);
            stream.queue(&message);
            Way::Connection(Box::new(stream))
        }
    };
    Ok((way, id))
}

/// Begins a connection, and does not wait for it.
fn begin_connection(server: SocketAddr) -> Result<TcpStream> {
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None).context("socket")?;
    match connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno).context("connect"),
    }
}

impl Client {
    /// Whether its next question is there, and its turn.
    fn is_heard(&self) -> bool {
        !self.asks && self.stream.going.is_empty() && self.stream.has_message()
    }
}

impl Stream {
    fn new(stream: TcpStream) -> Self {
        Stream {
            stream,
            going: Vec::new(),
            come: Vec::new(),
        }
    }

    fn waits_for(&self) -> (BorrowedFd<'_>, PollFlags) {
        let events = match self.going.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::OUT,
        };
        (self.stream.as_fd(), events)
    }

    /// Queues a message behind its length.
    fn queue(&mut self, message: &[u8]) {
        let Ok(length) = u16::try_from(message.len()) else {
            return;
        };
        self.going.extend_from_slice(&length.to_be_bytes());
        self.going.extend_from_slice(message);
    }

    /// Sends and receives what it can, at most one message of `most` bytes.
    /// Nothing is received before all is sent: of one who asks and does not read,
    /// no more is kept. Returns whether the connection is open.
    fn exchange(&mut self, most: usize) -> bool {
        while !self.going.is_empty() {
            match self.stream.write(&self.going) {
                Ok(length) => drop(self.going.drain(..length)),
                Err(error) if is_not_yet(&error) => return true,
                Err(_) => return false,
            }
        }
        let mut bytes = [0; LONGEST];
        while self.come.len() < most + 2 {
            let room = bytes.len().min(most + 2 - self.come.len());
            match self.stream.read(&mut bytes[..room]) {
                Ok(0) => return false,
                Ok(length) => self.come.extend_from_slice(&bytes[..length]),
                Err(error) if is_not_yet(&error) => return true,
                Err(_) => return false,
            }
        }
        // A message that is longer ends the connection.
        self.has_message()
    }

    fn has_message(&self) -> bool {
        let length = self.come.first_chunk::<2>();
        length.is_some_and(|length| self.come.len() >= 2 + usize::from(u16::from_be_bytes(*length)))
    }

    /// Takes a whole message.
    fn take(&mut self) -> Option<Vec<u8>> {
        if !self.has_message() {
            return None;
        }
        let (length, _) = self.come.split_first_chunk::<2>()?;
        let end = 2 + usize::from(u16::from_be_bytes(*length));
        let message = self.come[2..end].to_vec();
        self.come.drain(..end);
        Some(message)
    }
}

fn is_not_yet(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::dns::tests::ask;
    use simple_dns::{Packet, RCODE, TYPE};
    use std::net::TcpListener;

    /// A resolver on loopback, its address, and a server that it asks.
    fn resolver(leads_out: bool) -> (Resolver, UdpSocket, UdpSocket) {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(udp.local_addr().unwrap()).unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let servers = vec![server.local_addr().unwrap()];
        let names = Names::fixed(&[("web", Ipv4Addr::new(172, 18, 0, 2))], leads_out);
        let resolver = Resolver::on(Sockets { udp, tcp }, names, servers);
        (resolver, client, server)
    }

    fn heard(socket: &UdpSocket) -> Vec<u8> {
        let mut bytes = [0; LONGEST];
        let length = socket.recv(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    #[test]
    fn names_of_containers_are_answered_and_others_passed_on() {
        let (mut resolver, client, server) = resolver(true);
        client.send(&ask("WEB", TYPE::A)).unwrap();
        resolver.work();
        let answer = heard(&client);
        assert_eq!(Packet::parse(&answer).unwrap().answers.len(), 1);
        client.send(&ask("web", TYPE::AAAA)).unwrap();
        resolver.work();
        let answer = heard(&client);
        let packet = Packet::parse(&answer).unwrap();
        assert_eq!((packet.answers.len(), packet.rcode()), (0, RCODE::NoError));

        client.send(&ask("example.org", TYPE::A)).unwrap();
        resolver.work();
        assert!(resolver.due().is_some());
        let mut bytes = [0; LONGEST];
        let (length, from) = server.recv_from(&mut bytes).unwrap();
        // An answer to another question, one under another id, and no answer.
        let mut other = ask("example.com", TYPE::A);
        other[2] |= 0x80;
        other[..2].copy_from_slice(&bytes[..2]);
        let mut guess = bytes[..length].to_vec();
        guess[2] |= 0x80;
        guess[0] ^= 1;
        for wrong in [&other[..], &guess, &bytes[..length], b"x"] {
            server.send_to(wrong, from).unwrap();
        }
        resolver.work();
        assert_eq!(resolver.asked.len(), 1, "none of these was the answer");
        // A stranger's is not even received.
        let mut right = bytes[..length].to_vec();
        right[2] |= 0x80;
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(&right, from).unwrap();
        resolver.work();
        assert_eq!(resolver.asked.len(), 1);
        server.send_to(&right, from).unwrap();
        resolver.work();
        assert!(resolver.asked.is_empty());
        assert_eq!(heard(&client)[..2], [0, 7], "under the container's own id");
    }

    #[test]
    fn nothing_leaves_an_internal_network() {
        let (mut resolver, client, server) = resolver(false);
        client.send(&ask("example.org", TYPE::A)).unwrap();
        resolver.work();
        let answer = heard(&client);
        let rcode = Packet::parse(&answer).unwrap().rcode();
        assert_eq!(rcode, RCODE::ServerFailure);
        server.set_nonblocking(true).unwrap();
        assert!(server.recv(&mut [0; 1]).is_err());
    }

    #[test]
    fn a_flood_is_bounded_and_refused() {
        let (mut resolver, client, _server) = resolver(true);
        for _ in 0..3 {
            for _ in 0..MOST {
                client.send(&ask("example.org", TYPE::A)).unwrap();
            }
            resolver.work();
        }
        assert_eq!(resolver.asked.len(), MOST);
        let answer = heard(&client);
        let rcode = Packet::parse(&answer).unwrap().rcode();
        assert_eq!(rcode, RCODE::ServerFailure);
        // Containers are still found.
        client.send(&ask("web", TYPE::A)).unwrap();
        resolver.work();
        let mut found = false;
        client.set_nonblocking(true).unwrap();
        let mut bytes = [0; LONGEST];
        while let Ok(length) = client.recv(&mut bytes) {
            found |= Packet::parse(&bytes[..length]).unwrap().answers.len() == 1;
        }
        assert!(found);
        for asked in &mut resolver.asked {
            asked.until = Instant::now();
        }
        resolver.work();
        assert!(resolver.asked.is_empty(), "nobody waits for ever");
    }

    #[test]
    fn a_connection_has_its_answers_in_order() {
        let (mut resolver, _client, _server) = resolver(false);
        let address = resolver.sockets.tcp.local_addr().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let question = ask("web", TYPE::A);
        let mut bytes = (question.len() as u16).to_be_bytes().to_vec();
        bytes.extend_from_slice(&question);
        // In pieces, two questions at once, and then rubbish.
        stream.write_all(&bytes[..5]).unwrap();
        resolver.work();
        stream.write_all(&bytes[5..]).unwrap();
        stream.write_all(&bytes).unwrap();
        for _ in 0..2 {
            resolver.work();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(Packet::parse(&answer).unwrap().answers.len(), 1);
        }
        stream.write_all(&[0xff; 2 * LONGEST]).unwrap();
        for _ in 0..4 {
            resolver.work();
        }
        assert!(resolver.clients.is_empty(), "too long for a question");
        let many: Vec<TcpStream> = (0..3 * MOST_CLIENTS)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for _ in 0..4 {
            resolver.work();
        }
        assert!(resolver.clients.len() <= MOST_CLIENTS);
        drop(many);
        resolver.work();
        resolver.work();
        assert!(resolver.clients.is_empty());
    }
}
