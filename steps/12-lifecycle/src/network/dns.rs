//! Messages of the DNS (RFC 1035): questions of a container, and answers to
//! them. Whatever a container or a server sends is untrusted.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use simple_dns::rdata::{A, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// The length of a message's head, in bytes.
const HEAD: usize = 12;
/// Seconds for which an answer holds: Docker's.
const TTL: u32 = 600;

/// A question, in a message with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The id of the message.
    pub(super) id: u16,
    /// The name in lower case, without the last dot. Labels that no name of a
    /// container has, such as those with a dot in them, are escaped.
    pub(super) name: String,
    /// What is asked for.
    pub(super) kind: Kind,
    /// The question as it is in the message, to compare it with that of an
    /// answer.
    section: Vec<u8>,
    flags: u16,
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses.
    A,
    /// The name of an address.
    Pointer,
    /// Anything else.
    Other,
}

/// What is wrong with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It cannot be read.
    Malformed,
    /// It is none that a resolver answers.
    Unknown,
}

/// Reads the only question of a message. Other sections are not looked at: they
/// may be of any form, and go on to a server as they are.
fn question(message: &[u8]) -> Result<Question> {
    let (head, _) = message.split_first_chunk::<HEAD>().context("no head")?;
    let [a, b, c, d, questions @ ..] = *head;
    ensure!(questions[..2] == [0, 1], "there is not one question");
    // Without the counts of the other sections, nothing is reserved for them.
    let mut alone = message.to_vec();
    alone[6..HEAD].fill(0);
    let packet = Packet::parse(&alone).context("the question")?;
    let asked = packet.questions.first().context("no question")?;
    let mut name = String::new();
    for label in asked.qname.as_bytes() {
        if !name.is_empty() {
            name.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' | 0..=b' ' | 127.. => name += &format!("\\{byte:03}"),
                plain => name.push(plain.to_ascii_lowercase() as char),
            }
        }
    }
    let kind = match asked.qtype {
        QTYPE::TYPE(TYPE::A) => Kind::A,
        QTYPE::TYPE(TYPE::PTR) => Kind::Pointer,
        _ => Kind::Other,
    };
    let plain = packet.build_bytes_vec().context("the question")?;
    let section = plain.get(HEAD..).context("the question")?.to_vec();
    // There is nothing before the first name to which it could point.
    ensure!(alone[HEAD..].starts_with(&section), "a compressed question");
    Ok(Question {
        id: u16::from_be_bytes([a, b]),
        name,
        kind,
        section,
        flags: u16::from_be_bytes([c, d]),
    })
}

impl Question {
    /// Reads a question; `None` for a message that deserves no answer.
    pub(super) fn read(message: &[u8]) -> Option<Result<Question, (u16, Refusal)>> {
        let head = message.first_chunk::<HEAD>()?;
        let id = u16::from_be_bytes([head[0], head[1]]);
        // An answer to an answer could go on for ever.
        if head[2] & 0x80 != 0 {
            return None;
        }
        if head[2] & 0x78 != 0 {
            return Some(Err((id, Refusal::Unknown)));
        }
        Some(question(message).map_err(|_| (id, Refusal::Malformed)))
    }

    /// Whether `message` is an answer to this question with that id.
    pub(super) fn is_answered_by(&self, message: &[u8], id: u16) -> bool {
        let is_answer = message.get(2).is_some_and(|flags| flags & 0x80 != 0);
        is_answer
            && question(message).is_ok_and(|its| {
                // Some servers change the case of letters.
                its.id == id && its.section.eq_ignore_ascii_case(&self.section)
            })
    }

    /// The address that a question for a name asks about: `2.0.18.172.in-addr.arpa`.
    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        let text = self.name.strip_suffix(".in-addr.arpa")?;
        let reversed: Vec<&str> = text.rsplit('.').collect();
        reversed.join(".").parse().ok()
    }

    fn reply(&self) -> Packet<'_> {
        let mut packet = Packet::new_reply(self.id);
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if self.flags & PacketFlag::RECURSION_DESIRED.bits() != 0 {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        packet
    }

    /// The bytes of a reply with this question in it.
    fn finish(&self, packet: &Packet<'_>) -> Result<Vec<u8>> {
        let built = packet.build_bytes_vec().context("an answer")?;
        let (head, rest) = built.split_at(HEAD);
        let mut bytes = head.to_vec();
        bytes[5] = 1;
        bytes.extend_from_slice(&self.section);
        bytes.extend_from_slice(rest);
        Ok(bytes)
    }

    /// An answer with these addresses; with none, the name exists and has none.
    pub(super) fn with_addresses(&self, addresses: &[Ipv4Addr]) -> Result<Vec<u8>> {
        let mut packet = self.reply();
        for address in addresses {
            let name = Name::new(&self.name).context("the name")?;
            let data = RData::A(A::from(*address));
            let record = ResourceRecord::new(name, CLASS::IN, TTL, data);
            packet.answers.push(record);
        }
        self.finish(&packet)
    }

    /// An answer with the name of the address.
    pub(super) fn with_name(&self, target: &str) -> Result<Vec<u8>> {
        let mut packet = self.reply();
        let target = Name::new(target).context("the name of a container")?;
        let name = Name::new(&self.name).context("the name")?;
        let record = ResourceRecord::new(name, CLASS::IN, TTL, RData::PTR(PTR(target)));
        packet.answers.push(record);
        self.finish(&packet)
    }

    /// An answer that the question failed.
    pub(super) fn failed(&self) -> Result<Vec<u8>> {
        let mut packet = self.reply();
        *packet.rcode_mut() = RCODE::ServerFailure;
        self.finish(&packet)
    }
}

/// A refusal of a message whose question could not be read.
pub(super) fn refuse(id: u16, why: Refusal) -> Result<Vec<u8>> {
    let mut packet = Packet::new_reply(id);
    *packet.rcode_mut() = match why {
        Refusal::Malformed => RCODE::FormatError,
        Refusal::Unknown => RCODE::NotImplemented,
    };
    packet.build_bytes_vec().context("a refusal")
}

/// Gives a message another id.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(head) = message.first_chunk_mut::<2>() {
        *head = id.to_be_bytes();
    }
}

/// Cuts a message off behind its head and marks it as truncated: whoever gets it
/// asks again over a connection.
pub(super) fn truncate(question: &Question) -> Result<Vec<u8>> {
    let mut packet = question.reply();
    packet.set_flags(PacketFlag::TRUNCATION);
    question.finish(&packet)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use simple_dns::{QCLASS, Question as Asked};

    pub(crate) fn ask(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).unwrap();
        let class = QCLASS::CLASS(CLASS::IN);
        packet
            .questions
            .push(Asked::new(name, QTYPE::TYPE(kind), class, false));
        packet.build_bytes_vec().unwrap()
    }

    fn read(message: &[u8]) -> Question {
        Question::read(message).unwrap().unwrap()
    }

    #[test]
    fn a_question_is_answered_with_its_own_words() {
        let message = ask("Web.N1", TYPE::A);
        let question = read(&message);
        assert_eq!((question.name.as_str(), question.kind), ("web.n1", Kind::A));
        let address = Ipv4Addr::new(172, 18, 0, 2);
        let answer = question.with_addresses(&[address]).unwrap();
        assert!(question.is_answered_by(&answer, 7));
        assert!(!question.is_answered_by(&answer, 8));
        assert!(!question.is_answered_by(&message, 7), "it is a question");
        let other = read(&ask("other", TYPE::A)).with_addresses(&[address]);
        assert!(!question.is_answered_by(&other.unwrap(), 7));
        let packet = Packet::parse(&answer).unwrap();
        assert_eq!(packet.questions[0].qname.to_string(), "Web.N1");
        assert_eq!(packet.answers[0].rdata, RData::A(A::from(address)));
        assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
        let none = question.with_addresses(&[]).unwrap();
        assert!(Packet::parse(&none).unwrap().answers.is_empty());
        let failed = question.failed().unwrap();
        let rcode = Packet::parse(&failed).unwrap().rcode();
        assert_eq!(rcode, RCODE::ServerFailure);
    }

    #[test]
    fn a_question_about_an_address() {
        let question = read(&ask("2.0.18.172.in-addr.arpa", TYPE::PTR));
        assert_eq!(question.address(), Some(Ipv4Addr::new(172, 18, 0, 2)));
        let answer = question.with_name("web.n1").unwrap();
        assert_eq!(Packet::parse(&answer).unwrap().answers.len(), 1);
        for name in ["0.18.172.in-addr.arpa", "x.in-addr.arpa", "in-addr.arpa"] {
            assert_eq!(read(&ask(name, TYPE::PTR)).address(), None, "{name}");
        }
    }

    #[test]
    fn what_is_hostile_is_refused_or_ignored() {
        let good = ask("web", TYPE::A);
        assert_eq!(Question::read(&good[..11]), None);
        let malformed = Some(Err((7, Refusal::Malformed)));
        assert_eq!(Question::read(&good[..good.len() - 1]), malformed);
        let with = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            Question::read(&message)
        };
        assert_eq!(with(2, 0x81), None, "an answer");
        assert_eq!(with(2, 0x28), Some(Err((7, Refusal::Unknown))));
        assert_eq!(with(5, 2), malformed, "two questions");
        assert_eq!(with(5, 0), malformed, "none");
        assert!(matches!(with(6, 0xff), Some(Ok(_))), "no room is reserved");
        assert_eq!(with(12, 0xff), malformed, "a pointer to the head");
        // A name that points to itself.
        let mut loops = good[..HEAD].to_vec();
        loops.extend([0xc0, HEAD as u8, 0, 1, 0, 1]);
        assert_eq!(Question::read(&loops), malformed);
        // Labels of 63 bytes beyond the length of a name.
        let mut long = good[..HEAD].to_vec();
        for _ in 0..6 {
            long.push(63);
            long.extend([b'x'; 63]);
        }
        long.extend([0, 0, 1, 0, 1]);
        assert_eq!(Question::read(&long), malformed);
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let good = ask("a.b.c", TYPE::A);
        for _ in 0..20_000 {
            let mut message = good.clone();
            for _ in 0..next() % 8 {
                let at = usize::from(next()) % message.len();
                message[at] = next();
            }
            message.truncate(usize::from(next()) % (message.len() + 1));
            if let Some(Ok(question)) = Question::read(&message) {
                question.with_addresses(&[Ipv4Addr::LOCALHOST]).unwrap();
                question.failed().unwrap();
                assert!(!question.is_answered_by(&message, 7));
            }
        }
    }
}
