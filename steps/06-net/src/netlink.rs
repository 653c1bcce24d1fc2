//! A client for netlink(7): send a request, wait for the kernel's answer.
//!
//! The kernel works on a request within sendto(2), so the answer is there when
//! that returns, and there is no need for threads or an event loop. A launcher
//! must not have threads: it is going to clone(2).
//!
//! An answer is an `NLMSG_ERROR` with errno 0 (acknowledged) or another
//! (refused), or messages with data, for a dump up to an `NLMSG_DONE`. With
//! `NETLINK_EXT_ACK` a refusal carries a sentence of the kernel's own.

use std::fmt;
use std::marker::PhantomData;

use anyhow::{Context, Error, Result, anyhow, bail};
use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use process::say;

/// `NLMSG_ERROR` and `NLMSG_DONE` of netlink(7).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`: the attribute of a refusal that holds the sentence.
const ATTR_MSG: u16 = 1;
/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// How often a dump is begun again because its subject changed meanwhile.
const DUMPS: usize = 10;

/// A request that the kernel refused: the cause in the chain of an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, as a number.
    pub errno: Errno,
    /// Why, in the words of the kernel, where it has any.
    pub message: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{:?}: {message}", self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

impl std::error::Error for Refused {}

/// The errno of the [`Refused`] in the chain of `error`, if there is one.
pub fn errno(error: &Error) -> Option<Errno> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Refused>())
        .map(|refused| refused.errno)
}

/// Turns the refusal `expected` into a success: for requests whose goal is
/// reached already, such as the removal of what is not there.
///
/// # Errors
/// All others.
pub fn unless(expected: Errno, done: Result<()>) -> Result<()> {
    match done {
        Err(error) if errno(&error) == Some(expected) => Ok(()),
        other => other,
    }
}

/// A netlink socket of one protocol, which exchanges messages of type `M`.
#[derive(Debug)]
pub struct Client<M> {
    socket: Socket,
    sequence: u32,
    messages: PhantomData<M>,
}

/// One message from the kernel.
struct Reply<M> {
    /// That of the request which it answers.
    sequence: u32,
    /// It is part of a dump that was overtaken by changes (`NLM_F_DUMP_INTR`).
    interrupted: bool,
    /// What it says about the request.
    answer: Result<Answer<M>>,
}

enum Answer<M> {
    Acknowledged,
    Data(M),
    Done,
}

impl<M> Client<M>
where
    M: NetlinkSerializable + NetlinkDeserializable + fmt::Debug,
    NetlinkPayload<M>: From<M>,
{
    /// A socket in the network namespace of the caller, in which it stays.
    /// `protocol` is `NETLINK_ROUTE` or another of netlink(7).
    ///
    /// # Errors
    /// Those of socket(2) and bind(2): `EPROTONOSUPPORT` where the kernel was
    /// built without the protocol.
    pub fn new(protocol: isize) -> Result<Self> {
        let mut socket = Socket::new(protocol).context("socket(AF_NETLINK)")?;
        socket.bind_auto().context("bind(AF_NETLINK)")?;
        socket
            .set_ext_ack(true)
            .context("setsockopt(NETLINK_EXT_ACK)")?;
        // Without it a refusal repeats the whole request.
        socket
            .set_cap_ack(true)
            .context("setsockopt(NETLINK_CAP_ACK)")?;
        Ok(Client {
            socket,
            sequence: 0,
            messages: PhantomData,
        })
    }

    /// Sends a request and waits until the kernel has done it. `flags` are
    /// those of netlink(7) beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    ///
    /// # Errors
    /// A [`Refused`].
    pub fn request(&mut self, message: M, flags: u16) -> Result<()> {
        self.batch(vec![(message, flags | NLM_F_ACK)])
    }

    /// Sends several messages at once, for protocols that take them as one
    /// transaction, and waits for the acknowledgement of those which ask for
    /// one by `NLM_F_ACK`.
    ///
    /// # Errors
    /// The first [`Refused`]. What became of the other messages is up to the
    /// protocol.
    pub fn batch(&mut self, messages: Vec<(M, u16)>) -> Result<()> {
        let first = self.sequence.wrapping_add(1);
        let mut due = 0;
        let mut bytes = Vec::new();
        for (message, flags) in messages {
            due += usize::from(flags & NLM_F_ACK != 0);
            bytes.extend(self.serialize(message, flags));
        }
        self.send(&bytes)?;
        while due > 0 {
            for reply in self.receive()? {
                // Sequence numbers may wrap; the distance does not.
                let ours = reply.sequence.wrapping_sub(first) <= self.sequence.wrapping_sub(first);
                if ours && matches!(reply.answer?, Answer::Acknowledged) {
                    due -= 1;
                }
            }
        }
        Ok(())
    }

    /// Sends a request for one object and returns it, `None` where the kernel
    /// has none (`ENODEV`, `ENOENT`).
    ///
    /// # Errors
    /// A [`Refused`] for any other reason.
    pub fn get(&mut self, message: M) -> Result<Option<M>> {
        let bytes = self.serialize(message, 0);
        self.send(&bytes)?;
        loop {
            for reply in self.receive()? {
                if reply.sequence != self.sequence {
                    continue;
                }
                return match reply.answer {
                    Ok(Answer::Data(object)) => Ok(Some(object)),
                    Ok(_) => Ok(None),
                    Err(error) => match errno(&error) {
                        Some(Errno::ENODEV | Errno::ENOENT) => Ok(None),
                        _ => Err(error),
                    },
                };
            }
        }
    }

    /// Sends a request for all objects of a kind (`NLM_F_DUMP`). Begins again
    /// where they change in the middle of it.
    ///
    /// # Errors
    /// A [`Refused`]; or that they never stood still.
    pub fn dump(&mut self, message: M) -> Result<Vec<M>>
    where
        M: Clone,
    {
        for _ in 0..DUMPS {
            let bytes = self.serialize(message.clone(), NLM_F_DUMP);
            self.send(&bytes)?;
            if let Some(objects) = self.rest_of_dump()? {
                return Ok(objects);
            }
        }
        bail!("what was to be listed changed {DUMPS} times meanwhile: try again");
    }

    fn rest_of_dump(&mut self) -> Result<Option<Vec<M>>> {
        let mut objects = Vec::new();
        let mut consistent = true;
        loop {
            for reply in self.receive()? {
                if reply.sequence != self.sequence {
                    continue;
                }
                consistent &= !reply.interrupted;
                match reply.answer? {
                    Answer::Data(object) => objects.push(object),
                    Answer::Acknowledged | Answer::Done => {
                        return Ok(consistent.then_some(objects));
                    }
                }
            }
        }
    }

    /// The bytes of a message, under the next sequence number.
    fn serialize(&mut self, message: M, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(Default::default(), message.into());
        message.header.flags = flags | NLM_F_REQUEST;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket
            .send_to(bytes, &SocketAddr::new(0, 0), 0)
            .context("sendto(netlink)")?;
        Ok(())
    }

    /// The messages in the next datagram.
    fn receive(&mut self) -> Result<Vec<Reply<M>>> {
        let (bytes, sender) = self.socket.recv_from_full().context("recvfrom(netlink)")?;
        // Any process may write to this socket; the kernel is port 0.
        if sender.port_number() != 0 {
            return Ok(Vec::new());
        }
        let mut replies = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest)
                .map_err(|error| anyhow!("a message from the kernel: {error}"))?;
            let length = message.length() as usize;
            if let Some(answer) = answer(&rest[..length]).transpose() {
                replies.push(Reply {
                    sequence: message.sequence_number(),
                    interrupted: message.flags() & NLM_F_DUMP_INTR != 0,
                    answer,
                });
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(replies)
    }
}

/// What one message says; `None` for data of a form that is not known.
fn answer<M: NetlinkDeserializable>(bytes: &[u8]) -> Result<Option<Answer<M>>> {
    let message = NetlinkBuffer::new(bytes);
    Ok(Some(match message.message_type() {
        ERROR => match refusal(message.payload(), message.flags()) {
            Some(refused) => return Err(refused.into()),
            None => Answer::Acknowledged,
        },
        // The payload of a DONE is the dump's errno, 0 mostly.
        DONE => match refusal(message.payload(), message.flags() | NLM_F_CAPPED) {
            Some(refused) => return Err(refused.into()),
            None => Answer::Done,
        },
        _ => match NetlinkMessage::<M>::deserialize(bytes).map(|m| m.payload) {
            Ok(NetlinkPayload::InnerMessage(object)) => Answer::Data(object),
            Ok(_) => return Ok(None),
            // Newer kernels tell things that the library does not know; one
            // such object must not hide all others.
            Err(error) => {
                say!("netlink: skipped a message: {error}");
                return Ok(None);
            }
        },
    }))
}

/// Reads a `struct nlmsgerr`, and the attributes behind it: `None` for an
/// acknowledgement.
fn refusal(payload: &[u8], flags: u16) -> Option<Refused> {
    let error = ErrorBuffer::new_checked(payload).ok()?;
    let code = error.code()?;
    let request = error.payload();
    let attributes = if flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        let length = NetlinkBuffer::new_checked(request).map_or(HEADER as u32, |b| b.length());
        (length as usize).next_multiple_of(4)
    };
    let message = NlasIterator::new(request.get(attributes..).unwrap_or_default())
        .filter_map(|attribute| attribute.ok())
        .find(|attribute| attribute.kind() == ATTR_MSG)
        .map(|attribute| {
            String::from_utf8_lossy(attribute.value())
                .trim_end_matches('\0')
                .to_owned()
        });
    Some(Refused {
        errno: Errno::from_raw(code.get().saturating_neg()),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::RouteNetlinkMessage;

    /// `struct nlmsgerr` of a refusal with errno 95 and a sentence of 3 bytes.
    fn refused() -> Vec<u8> {
        let mut bytes = (-95i32).to_ne_bytes().to_vec();
        bytes.extend([16, 0, 0, 0].iter().chain(&[0; 12]));
        bytes.extend([8, 0, ATTR_MSG as u8, 0]);
        bytes.extend(b"no\0\0");
        bytes
    }

    #[test]
    fn a_refusal_has_the_words_of_the_kernel() {
        let refused = refusal(&refused(), NLM_F_CAPPED).unwrap();
        assert_eq!(refused.to_string(), "EOPNOTSUPP: no");
    }

    #[test]
    fn an_acknowledgement_is_none_and_so_is_half_a_message() {
        assert_eq!(refusal(&[0; 20], NLM_F_CAPPED), None);
        assert_eq!(refusal(&[1, 0], NLM_F_CAPPED), None);
        assert!(refusal(&refused()[..6], 0).unwrap().message.is_none());
    }

    #[test]
    fn a_refusal_is_found_below_its_context() {
        let error = Err::<(), _>(Error::new(Refused {
            errno: Errno::ENODEV,
            message: None,
        }))
        .context("RTM_DELLINK(x)");
        assert_eq!(errno(error.as_ref().unwrap_err()), Some(Errno::ENODEV));
        assert!(unless(Errno::ENODEV, error).is_ok());
    }

    #[test]
    fn what_is_not_known_is_skipped() {
        let mut bytes = vec![20, 0, 0, 0, 16, 0, 0, 0];
        bytes.resize(20, 0);
        assert!(matches!(answer::<RouteNetlinkMessage>(&bytes), Ok(None)));
    }
}
