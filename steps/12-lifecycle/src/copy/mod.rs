//! Copies between a container and the host.
//!
//! A tar archive goes through a pipe. At one end is this process, with the
//! caller's rights and the host's files. At the other is a child that sees the
//! container's files as the container's root does: a launch whose list mounts
//! them, or finds them mounted, and whose last part copies instead of executing
//! a command. Nothing of the container is loaded or executed, and its processes
//! cannot see the child.
//!
//! | module | what |
//! |---|---|
//! | [`list`] | the child: how it gets at the container's files |
//! | [`names`] | what a name means, there and here; Docker's rules about slashes |
//! | [`send`] | files into an archive |
//! | [`receive`] | an archive into files |
//! | [`look`] | mode, owner, time, attributes of a file |
//!
//! The files of a container belong to somebody who may change them at any time.
//! So no file is named twice: it is opened without following a link, and asked,
//! read and changed through its descriptor.

pub mod list;
pub mod look;
pub mod names;
pub mod receive;
pub mod send;
