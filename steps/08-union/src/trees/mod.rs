//! Drivers that keep a whole tree for each layer, because their storage makes
//! copies cheap (except vfs).
//!
//! | module | what |
//! |---|---|
//! | [`whole`] | what the three have in common |
//! | [`vfs`] | a full copy |
//! | [`btrfs`] | subvolumes and snapshots |
//! | [`devicemapper`] | thin block devices and snapshots of them |
//! | [`loop_device`], [`program`] | block devices of files; programs such as mkfs.btrfs(8) |

pub(crate) mod btrfs;
pub(crate) mod devicemapper;
pub(crate) mod loop_device;
pub(crate) mod program;
pub(crate) mod vfs;
pub(crate) mod whole;
