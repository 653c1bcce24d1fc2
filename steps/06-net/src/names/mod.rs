//! How a container finds names: /etc/resolv.conf, /etc/hosts, /etc/hostname.
//!
//! | module | what |
//! |---|---|
//! | [`resolv`] | what is in these files |
//! | [`files`] | the files on the host, shown to the container |

pub(crate) mod files;
pub(crate) mod resolv;
