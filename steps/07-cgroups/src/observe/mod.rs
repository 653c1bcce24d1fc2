//! Statistics of a group, how often it reached its limits, and the freezer.
//!
//! | module | what |
//! |---|---|
//! | [`stats`], [`oom`] | the accounting files; the OOM killer's count |
//! | [`kills`] | the same, as it happens |
//! | [`freeze`] | `step-07 pause` and `resume` |
//! | [`table`], [`top`] | the output of `step-07 stats` and `top` |

pub(crate) mod freeze;
pub(crate) mod kills;
pub(crate) mod oom;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod top;
