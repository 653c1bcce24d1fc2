//! The course around the checks: what learners get, what they hand in, and what
//! proves the checks.
//!
//! | module | what |
//! |---|---|
//! | [`exercise`] | exercises: regions of our sources, skeletons, work/ |
//! | [`handout`] | a repository for students |
//! | [`grade`] | marks for submissions that nobody should trust |
//! | [`hostile`] | hostile submissions, which prove that nobody is marked for more than they did |
//! | [`mutant`] | our steps, changed at one place by chance, which show what no check notices |
//! | [`tour`] | the first hour: experiments with a question before each |
//! | [`wrong`] | wrong solutions, which prove that the checks can fail |

pub mod exercise;
pub mod grade;
pub mod handout;
pub mod hostile;
pub mod mutant;
pub mod tour;
pub mod wrong;
