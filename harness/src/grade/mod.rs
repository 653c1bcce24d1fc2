//! Marks for a student's crate, which nobody should trust.
//!
//! Of a submission only the files `src/**/*.rs` are taken. The manifest, the
//! lock file, the settings of cargo and the checks are ours, so there is no
//! build script and no macro of the student's that could run here. What the
//! compiler itself could be made to read is refused ([`sources`]). The program
//! runs in a virtual machine, with limits, and results are written as they come.
//!
//! | module | what |
//! |---|---|
//! | [`submission`] | a directory or zip: what of it is taken |
//! | [`sources`] | what a source file may not contain |
//! | [`reads`] | what the compiler has read |
//! | [`limited`] | the compiler, with limits on time, memory and output |
//! | [`place`] | where it is built |
//! | [`grader`] | builds, checks, marks |
//! | [`marks`] | checks, points and their formats |
//! | [`class`] | a folder of submissions, and a directory of results |
//! | [`autograder`] | a grader in a zip, for Gradescope |

pub mod autograder;
pub mod class;
pub mod grader;
pub mod limited;
pub mod marks;
pub mod place;
pub mod reads;
pub mod sources;
pub mod submission;
