//! An archive as a context.

/// A directory of ours, which is removed in the end.
#[derive(Debug)]
pub struct Spool;
