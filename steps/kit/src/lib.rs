//! What the steps share and no step is about.
//!
//! | module | what |
//! |---|---|
//! | [`sys`] | system calls without a safe wrapper: all `unsafe` of the engine |
//! | [`errno`] | the errno of an error, whichever library has wrapped it |
//! | [`descriptor`] | file descriptors, for people to read |
//! | [`mod@say`] | [`say!`], for what is done, and [`warn!`] |
//! | [`signal_number`] | signals by their numbers, real-time ones too |
//! | [`lock`] | locks, also of what may vanish; who makes and who sweeps |
//! | [`own`], [`atomic_file`] | files that are the engine's own; files that are there whole or not at all |
//! | [`process_identity`] | a process, in a way that outlives it |
//! | [`mountinfo`] | the mounts of a process |
//! | [`name`], [`random`], [`time`] | names of people, random bytes, points in time |
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
