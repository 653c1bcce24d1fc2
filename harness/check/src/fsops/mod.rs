//! Operations on files, for a plain directory and a union alike, and pictures
//! of trees to compare their results.
//!
//! | module | what |
//! |---|---|
//! | `ops` | the operations, and the kernel's answer to each |
//! | `mv` | renaming as mv(1) does |
//! | `picture` | the resulting trees, and how two of them differ |
//! | `fill` | the files that the operations work on |
//! | `time` | times of files |

mod fill;
mod mv;
mod ops;
mod picture;
mod time;

pub use fill::{fill, trees};
pub use ops::{Op, run};
pub use picture::{Node, Operated, difference, tree};
