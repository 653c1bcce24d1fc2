//! The errno of an error, whichever library has wrapped it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use anyhow::Error;
use nix::errno::Errno;

/// An error of the kernel with the kernel's message, if there is one: from
/// netlink(7) and fsconfig(2).
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The errno.
    pub errno: Errno,
    /// The message of the kernel.
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

impl StdError for Refused {}

/// The errno of the first cause in the chain of `error` that has one: an `Errno`
/// of nix or rustix, an error of the standard library, a [`Refused`].
pub fn errno_of(error: &Error) -> Option<Errno> {
    error.chain().find_map(of_cause)
}

/// Whether the errno of `error` is one of `errnos`, which are of nix or of
/// rustix.
pub fn is<E: Copy + Number>(error: &Error, errnos: &[E]) -> bool {
    let found = errno_of(error).map(Number::number);
    found.is_some_and(|found| errnos.iter().any(|errno| errno.number() == found))
}

/// An errno of a library, as a number.
pub trait Number {
    /// The number in errno(3), on this machine.
    fn number(self) -> i32;
}

impl Number for Errno {
    fn number(self) -> i32 {
        self as i32
    }
}

impl Number for rustix::io::Errno {
    fn number(self) -> i32 {
        self.raw_os_error()
    }
}

fn of_cause(cause: &(dyn StdError + 'static)) -> Option<Errno> {
    if let Some(errno) = cause.downcast_ref::<Errno>() {
        return Some(*errno);
    }
    if let Some(errno) = cause.downcast_ref::<rustix::io::Errno>() {
        return Some(nix(*errno));
    }
    if let Some(refused) = cause.downcast_ref::<Refused>() {
        return Some(refused.errno);
    }
    let error = cause.downcast_ref::<io::Error>()?;
    error.raw_os_error().map(Errno::from_raw)
}

/// Converts an errno of rustix to one of nix.
pub fn nix(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_errno_is_found_whoever_wrapped_it() {
        let all: [Error; 4] = [
            Errno::EBUSY.into(),
            rustix::io::Errno::BUSY.into(),
            io::Error::from_raw_os_error(Errno::EBUSY as i32).into(),
            Refused {
                errno: Errno::EBUSY,
                message: None,
            }
            .into(),
        ];
        for error in all {
            let error = Err::<(), _>(error).context("outer").unwrap_err();
            assert_eq!(errno_of(&error), Some(Errno::EBUSY));
            assert!(is(&error, &[Errno::EPERM, Errno::EBUSY]));
            assert!(is(&error, &[rustix::io::Errno::BUSY]));
        }
        assert_eq!(errno_of(&anyhow::anyhow!("no errno")), None);
    }
}
