//! The kernel's messages in netlink(7): acknowledgements, refusals, data.

use anyhow::Result;
use kit::errno::{Refused, errno_of};
use kit::say;
use netlink_packet_core::{
    ErrorBuffer, NLM_F_CAPPED, NetlinkBuffer, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use nix::errno::Errno;

/// `NLMSG_ERROR` and `NLMSG_DONE` of netlink(7).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`: the attribute of a refusal that holds the kernel's
/// message.
const ATTR_MSG: u16 = 1;
/// The length of `struct nlmsghdr`, in bytes.
const HEADER: usize = 16;

/// Turns the error `expected` into a success: for requests whose goal is
/// already reached, such as the removal of a missing object.
pub(crate) fn unless(expected: Errno, done: Result<()>) -> Result<()> {
    match done {
        Err(error) if errno_of(&error) == Some(expected) => Ok(()),
        other => other,
    }
}

/// One message from the kernel.
pub(crate) struct Reply<M> {
    /// The sequence number of the request that it answers.
    pub(crate) sequence: u32,
    /// `NLM_F_DUMP_INTR`: the objects changed during the dump that it is part
    /// of.
    pub(crate) interrupted: bool,
    /// The answer, or a [`Refused`].
    pub(crate) answer: Result<Answer<M>>,
}

/// The content of a message that is not a refusal.
pub(crate) enum Answer<M> {
    /// `NLMSG_ERROR` with errno 0: the request is done.
    Acknowledged,
    /// An object that was requested.
    Data(M),
    /// `NLMSG_DONE`: the end of a dump.
    Done,
}

/// Parses one message; `None` for data of an unknown form.
pub(crate) fn answer<M: NetlinkDeserializable>(bytes: &[u8]) -> Result<Option<Answer<M>>> {
    let message = NetlinkBuffer::new(bytes);
    Ok(Some(match message.message_type() {
        ERROR => match refusal(message.payload(), message.flags()) {
            Some(refused) => return Err(refused.into()),
            None => Answer::Acknowledged,
        },
        // The payload of a DONE is the dump's errno, usually 0.
        DONE => match refusal(message.payload(), message.flags() | NLM_F_CAPPED) {
            Some(refused) => return Err(refused.into()),
            None => Answer::Done,
        },
        _ => match NetlinkMessage::<M>::deserialize(bytes).map(|m| m.payload) {
            Ok(NetlinkPayload::InnerMessage(object)) => Answer::Data(object),
            Ok(_) => return Ok(None),
            // Newer kernels send objects that the library does not know; one
            // such object must not hide all others.
            Err(error) => {
                say!("netlink: skipped a message: {error}");
                return Ok(None);
            }
        },
    }))
}

/// Parses a `struct nlmsgerr` and the attributes behind it; `None` for an
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
    use anyhow::Context;
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
        let error = Err::<(), _>(anyhow::Error::new(Refused {
            errno: Errno::ENODEV,
            message: None,
        }))
        .context("RTM_DELLINK(x)");
        assert_eq!(errno_of(error.as_ref().unwrap_err()), Some(Errno::ENODEV));
        assert!(unless(Errno::ENODEV, error).is_ok());
    }

    #[test]
    fn what_is_not_known_is_skipped() {
        let mut bytes = vec![20, 0, 0, 0, 16, 0, 0, 0];
        bytes.resize(20, 0);
        assert!(matches!(answer::<RouteNetlinkMessage>(&bytes), Ok(None)));
    }
}
