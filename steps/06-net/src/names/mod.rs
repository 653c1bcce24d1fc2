//! Name resolution in a container: /etc/resolv.conf, /etc/hosts, /etc/hostname.
//!
//! | module | what |
//! |---|---|
//! | [`resolv`] | the content of these files |
//! | [`files`] | the files on the host, mounted into the container |

pub(crate) mod files;
pub(crate) mod resolv;
