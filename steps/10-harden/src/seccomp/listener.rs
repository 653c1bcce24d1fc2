//! The process that decides for `SCMP_ACT_NOTIFY` (seccomp_unotify(2)): it gets
//! a descriptor of the filter, and what the container is, over the socket
//! `listenerPath` (config-linux.md of the OCI runtime specification, “Container
//! process state”).
//!
//! The kernel makes the descriptor together with the filter, in the child. From
//! then on every call of the child is subject to the filter, also sendmsg(2), by
//! which the descriptor has to be handed over: a strict profile refuses it, and
//! one that asks the listener about it would wait for an answer of somebody who
//! has not heard of the question. The child cannot leave it to another process
//! either: to tell that process, and to wait for it, takes calls too.
//!
//! So the filter itself lets this one call pass, by a password. sendmsg(2) has
//! three arguments, but a filter sees six. In the last two the child passes
//! random numbers, drawn for this container, and the filter, which begins with
//! the comparison, allows the call. After execve(2) nobody in the container
//! knows the numbers.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{random, say, sys};
use libc::sock_filter;
use nix::unistd::Pid;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with,
};
use serde_json::{Value, json};

use crate::seccomp::abi::Abi;
use crate::seccomp::action::Action;
use crate::seccomp::bpf::{Instruction, LONGEST, Test, Word};
use crate::seccomp::cache::Program;
use crate::seccomp::profile::Profile;

/// How long a listener may take to accept a connection, and to make room for
/// the message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the listener hears of the container's first process, or of a further
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Its PID is the container's.
    First,
    /// The container has a PID already.
    Further,
}

/// The connection to the process that decides.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    metadata: String,
    state: Value,
    which: Which,
    /// The numbers by which the filter lets the handing over pass.
    password: [u64; 2],
    /// The filter with that exception.
    code: Vec<sock_filter>,
    flags: u32,
    /// Carries the PID as the host sees it, which the child does not know.
    pid: Option<(PipeReader, PipeWriter)>,
    message: OnceLock<Vec<u8>>,
}

impl Listener {
    /// Connects to the process that decides for this profile. `None` if the
    /// program, which was made of it, asks nobody. `state` is the container's,
    /// in the form of the specification.
    ///
    /// # Errors
    /// If nobody listens; if the program is too long for the exception.
    pub fn connect(
        program: &Program,
        profile: &Profile,
        state: Value,
        which: Which,
    ) -> Result<Option<Listener>> {
        if !program.asks() {
            return Ok(None);
        }
        let path = &profile.listener_path;
        let socket = connected(Path::new(path))
            .with_context(|| format!("listenerPath: connect to {path:?}"))?;
        let random: [u8; 16] = random::bytes()?;
        let (low, high) = random.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let password = [number(low), number(high)];
        Ok(Some(Listener {
            socket,
            metadata: profile.listener_metadata.clone(),
            state,
            which,
            password,
            code: with_exception(&program.code, password)?,
            flags: program.flags,
            pid: Some(pipe().context("pipe")?),
            message: OnceLock::new(),
        }))
    }

    /// The descriptors that the child needs up to the end.
    pub fn keeps(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pid = self.pid.iter().map(|(reader, _)| reader.as_fd());
        pid.chain([self.socket.as_fd()])
    }

    /// The socket, which [`hand_over`](Self::hand_over) needs.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Host: tells the child its PID, and leaves the connection to it alone: the
    /// message ends with the connection.
    pub fn tell(mut self, child: Pid) -> Result<()> {
        let (_, mut writer) = self.pid.take().context("the PID is told twice")?;
        writer
            .write_all(&child.as_raw().to_le_bytes())
            .context("tell the child its PID")
    }

    /// Child: writes the message, since [`hand_over`](Self::hand_over) may not ask
    /// for memory.
    pub fn hear(&mut self) -> Result<()> {
        let (mut reader, writer) = self.pid.take().context("the PID is asked for twice")?;
        // Closed when this process was born: dropping it would close its number
        // again.
        let _closed = writer.into_raw_fd();
        let mut pid = [0; 4];
        reader.read_exact(&mut pid).context("wait for the PID")?;
        let pid = i32::from_le_bytes(pid);
        if self.which == Which::First {
            self.state["pid"] = json!(pid);
        }
        let mut message = json!({
            "ociVersion": self.state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "state": self.state,
        });
        if !self.metadata.is_empty() {
            message["metadata"] = json!(self.metadata);
        }
        let text = serde_json::to_vec(&message).context("serialise the message")?;
        ensure!(
            self.message.set(text).is_ok(),
            "the message is written twice"
        );
        say!("the listener will hear of process {pid}");
        Ok(())
    }

    /// Child: loads the filter, and returns its descriptor.
    pub fn load(&self) -> Result<OwnedFd> {
        sys::seccomp::install_listener(&self.code, self.flags)
    }

    /// Child: hands the descriptor over. The command may follow at once: its
    /// calls wait for the listener.
    ///
    /// # Errors
    /// `EPIPE` if the listener has gone.
    pub fn hand_over(&self, descriptor: BorrowedFd<'_>) -> Result<()> {
        let message = self.message.get().context("the message is not written")?;
        sys::seccomp::hand_over(self.socket(), message, descriptor, self.password)
            .context("listenerPath: sendmsg(SCM_RIGHTS)")
    }

    /// Ends the connection, after a process of the caller's has handed its
    /// descriptor over: the listener reads up to the end.
    pub fn end(&self) -> Result<()> {
        shutdown(&self.socket, Shutdown::Both).context("listenerPath: shutdown")
    }
}

fn connected(path: &Path) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // Of connect(2) too, if nobody accepts (unix(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// A program that begins with the exception for the handing over.
// ANCHOR: with_exception
fn with_exception(code: &[sock_filter], password: [u64; 2]) -> Result<Vec<sock_filter>> {
    let sendmsg = Abi::NATIVE.number("sendmsg").context("no such call")?;
    let [a, b] = password;
    let words = [
        (Word::Number, sendmsg),
        (Word::Arch, Abi::NATIVE.audit_arch()),
        (Word::Low(4), a as u32),
        (Word::High(4), (a >> 32) as u32),
        (Word::Low(5), b as u32),
        (Word::High(5), (b >> 32) as u32),
    ];
    let mut all = Vec::new();
    for (n, (word, with)) in words.into_iter().enumerate() {
        // Two instructions for each further word, and the return.
        let rest = 2 * (words.len() - 1 - n) + 1;
        all.push(Instruction::Load(word));
        all.push(Instruction::Jump {
            test: Test::Equal,
            with,
            yes: 0,
            no: rest as u8,
        });
    }
    all.push(Instruction::Return(Action::Allow.value()));
    let mut all: Vec<sock_filter> = all.into_iter().map(Instruction::encode).collect();
    all.extend_from_slice(code);
    ensure!(
        all.len() <= LONGEST,
        "the filter has {} instructions, and the kernel takes {LONGEST}",
        all.len()
    );
    Ok(all)
}
// ANCHOR_END: with_exception

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::interpret::{Call, run};

    #[test]
    fn one_call_passes_and_all_others_are_as_before() {
        let kill = [Instruction::Return(Action::KillProcess.value()).encode()];
        let code = with_exception(&kill, [0x1111_2222_3333_4444, 5]).unwrap();
        let with = |name: &str, arguments: [u64; 6]| Call {
            arch: Abi::NATIVE.audit_arch(),
            number: Abi::NATIVE.number(name).unwrap(),
            arguments,
            ..Call::default()
        };
        let right = [1, 2, 3, 0, 0x1111_2222_3333_4444, 5];
        let action = |call: &Call| run(&code, call).unwrap().action;
        assert_eq!(action(&with("sendmsg", right)), Action::Allow);
        assert_eq!(action(&with("sendto", right)), Action::KillProcess);
        let foreign = Call {
            arch: 3,
            ..with("sendmsg", right)
        };
        assert_eq!(action(&foreign), Action::KillProcess);
        for n in 0..64 {
            for argument in [4, 5] {
                let mut wrong = right;
                wrong[argument] ^= 1 << n;
                assert_eq!(action(&with("sendmsg", wrong)), Action::KillProcess);
            }
        }
        assert!(with_exception(&vec![kill[0]; LONGEST], [1, 2]).is_err());
    }
}
