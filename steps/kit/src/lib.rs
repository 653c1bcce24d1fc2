//! Utilities that the steps share.
//!
//! | module | what |
//! |---|---|
//! | [`sys`] | system calls without a safe wrapper: all `unsafe` of the engine |
//! | [`errno`] | the errno of an error, whichever library has wrapped it |
//! | [`descriptor`] | the names of file descriptors in messages |
//! | [`mod@say`] | messages on standard error: [`say!`] and [`warn!`] |
//! | [`signal_number`] | signals by number, including real-time signals |
//! | [`lock`] | flock(2), for directories that several processes clean up |
//! | [`own`], [`atomic_file`] | files that only the engine changes; atomic writes |
//! | [`process_identity`] | a process, by its PID and start time |
//! | [`mountinfo`] | the mounts of a process |
//! | [`name`], [`random`], [`time`] | names from users, random bytes, the time |
//! | [`text`] | values and names in documents |

pub mod atomic_file;
pub mod descriptor;
pub mod errno;
pub mod lock;
pub mod mountinfo;
pub mod name;
pub mod own;
pub mod process_identity;
pub mod random;
pub mod say;
pub mod signal_number;
pub mod sys;
pub mod text;
pub mod time;

pub use process_identity::ProcessIdentity;
pub use say::set_verbose;
pub use signal_number::{SignalNumber, SignalSet};
