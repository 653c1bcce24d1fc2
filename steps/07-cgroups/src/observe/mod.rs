//! What a group has used, whether it met its limits, and how it is stopped.
//!
//! | module | what |
//! |---|---|
//! | [`stats`], [`oom`] | the accounting files, and the OOM killer's |
//! | [`freeze`] | `step-07 pause` and `unpause` |
//! | [`table`], [`top`] | what `step-07 stats` and `top` print |

pub(crate) mod freeze;
pub(crate) mod oom;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod top;
