//! Marks for a student's crate, which is untrusted.
//!
//! Of a submission only the files of `src/` are taken that its modules reach.
//! The manifest, the lock file, the settings of cargo and the checks are ours,
//! so no build script and no macro of the student's can run here. The compiler
//! and the linker can read the submission, the toolchain and the libraries, and
//! no other file of this machine ([`jail`]). The program runs in a virtual
//! machine, with limits, and results are written as they come.
//!
//! | module | what |
//! |---|---|
//! | [`submission`] | the sources that are taken from a directory or zip |
//! | [`modules`] | the files that a crate's modules reach |
//! | [`sources`] | words that a source file may not contain |
//! | [`kit`] | calls of rustc, and libraries |
//! | [`jail`] | confines the compiler |
//! | [`reads`] | checks the files that the compiler and the linker have read |
//! | [`limited`] | runs the compiler, with limits on time, memory and output |
//! | [`place`] | directories in which submissions are compiled |
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
