//! A client for netlink(7): sends a request and waits for the kernel's answer.
//!
//! The kernel handles a request within sendto(2), so the answer is there when
//! that returns, and no threads or event loop are needed. A launcher must not
//! have threads: it is going to clone(2).
//!
//! An answer is an `NLMSG_ERROR` with errno 0 (acknowledged) or another
//! (refused), or messages with data, for a dump up to an `NLMSG_DONE`. With
//! `NETLINK_EXT_ACK` a refusal carries a message of the kernel's own.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, anyhow, bail};
use kit::errno::errno_of;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

pub(crate) use crate::kernel::answer::unless;
use crate::kernel::answer::{Answer, Reply, answer};

/// The number of attempts at a dump whose objects change meanwhile.
const DUMPS: usize = 10;

/// A netlink socket of one protocol, which exchanges messages of type `M`.
#[derive(Debug)]
pub(crate) struct Client<M> {
    socket: Socket,
    sequence: u32,
    messages: PhantomData<M>,
}

impl<M> Client<M>
where
    M: NetlinkSerializable + NetlinkDeserializable + fmt::Debug,
    NetlinkPayload<M>: From<M>,
{
    /// The descriptor of the socket.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Opens a socket in the network namespace of the caller, where it stays.
    /// `protocol` is `NETLINK_ROUTE` or another of netlink(7).
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` if the kernel was built without the protocol.
    pub(crate) fn new(protocol: isize) -> Result<Self> {
        let mut socket = Socket::new(protocol).context("socket(AF_NETLINK)")?;
        socket.bind_auto().context("bind(AF_NETLINK)")?;
        socket
            .set_ext_ack(true)
            .context("setsockopt(NETLINK_EXT_ACK)")?;
        // Without this a refusal repeats the whole request.
        socket
            .set_cap_ack(true)
            .context("setsockopt(NETLINK_CAP_ACK)")?;
        Ok(Client {
            socket,
            sequence: 0,
            messages: PhantomData,
        })
    }

    /// Sends a request and waits until the kernel has done it. `flags` are the
    /// flags of netlink(7) other than `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) fn request(&mut self, message: M, flags: u16) -> Result<()> {
        self.batch(vec![(message, flags | NLM_F_ACK)])
    }

    /// Sends several messages at once, for protocols that take them as one
    /// transaction, and waits for the acknowledgement of those with the flag
    /// `NLM_F_ACK`.
    ///
    /// # Errors
    /// The first [`Refused`](kit::errno::Refused). The protocol decides what
    /// happens to the other messages.
    pub(crate) fn batch(&mut self, messages: Vec<(M, u16)>) -> Result<()> {
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

    /// Requests one object; `None` if the kernel has none (`ENODEV`, `ENOENT`).
    pub(crate) fn get(&mut self, message: M) -> Result<Option<M>> {
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
                    Err(error) => match errno_of(&error) {
                        Some(Errno::ENODEV | Errno::ENOENT) => Ok(None),
                        _ => Err(error),
                    },
                };
            }
        }
    }

    /// Requests all objects of a kind (`NLM_F_DUMP`), again if they change
    /// meanwhile. Fails after [`DUMPS`] attempts.
    pub(crate) fn dump(&mut self, message: M) -> Result<Vec<M>>
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
        bail!("the list changed {DUMPS} times while it was read: try again");
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

    /// Serializes a message under the next sequence number.
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

    /// Receives the messages of the next datagram.
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
