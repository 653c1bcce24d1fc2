//! Marks for a student's crate, which nobody should trust.
//!
//! Of a submission only the files of `src/` are taken that its modules reach. The
//! manifest, the lock file, the settings of cargo and the checks are ours, so
//! there is no build script and no macro of the student's that could run here.
//! The compiler and the linker can read the submission, the toolchain and the
//! libraries, and no other file of this machine ([`jail`]). The program runs in a
//! virtual machine, with limits, and results are written as they come.
//!
//! | module | what |
//! |---|---|
//! | [`submission`] | a directory or zip: what of it is taken |
//! | [`modules`] | which files a crate's modules reach |
//! | [`sources`] | what a source file may not contain |
//! | [`kit`] | what it is compiled with: calls of rustc, and libraries |
//! | [`jail`] | what the compiler can reach |
//! | [`reads`] | what the compiler and the linker have read |
//! | [`limited`] | the compiler, with limits on time, memory and output |
//! | [`place`] | where it is compiled |
//! | [`grader`] | builds, checks, marks |
//! | [`marks`] | checks, points and their formats |
//! | [`class`] | a folder of submissions, and a directory of results |
//! | [`autograder`] | a grader in a zip, for Gradescope |

pub mod autograder;
pub mod class;
pub mod grader;
pub mod jail;
pub mod kit;
pub mod limited;
pub mod marks;
pub mod modules;
pub mod place;
pub mod reads;
pub mod sources;
pub mod submission;
