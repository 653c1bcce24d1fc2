//! Operations on files, to be done to a plain directory and to a union alike,
//! and a picture of a tree, to compare what came of them.
//!
//! | module | what |
//! |---|---|
//! | `ops` | the operations, and what the kernel said to each |
//! | `mv` | renaming as mv(1) does |
//! | `picture` | what is there afterwards, and how two trees differ |
//! | `fill` | the files on which the operations work |

mod fill;
mod mv;
mod ops;
mod picture;
mod time;

pub use fill::{fill, trees};
pub use ops::{Op, run};
pub use picture::{Node, Operated, difference, tree};
