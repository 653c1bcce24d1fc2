//! The two kinds of IDs, and the names that differ between them.

/// A kind of ID that a user namespace maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// User IDs.
    User,
    /// Group IDs.
    Group,
}

impl Ids {
    /// The word for one ID of this kind.
    pub fn noun(self) -> &'static str {
        match self {
            Ids::User => "UID",
            Ids::Group => "GID",
        }
    }

    /// The map's file in `/proc/PID`.
    pub fn file(self) -> &'static str {
        match self {
            Ids::User => "uid_map",
            Ids::Group => "gid_map",
        }
    }

    /// The option that sets the map.
    pub fn option(self) -> &'static str {
        match self {
            Ids::User => "--uid-map",
            Ids::Group => "--gid-map",
        }
    }

    /// The file of the subordinate ranges: subuid(5), subgid(5).
    pub fn subordinate(self) -> &'static str {
        match self {
            Ids::User => "/etc/subuid",
            Ids::Group => "/etc/subgid",
        }
    }

    /// The set-user-ID program that writes a map of such ranges: newuidmap(1),
    /// newgidmap(1).
    pub fn helper(self) -> &'static str {
        match self {
            Ids::User => "newuidmap",
            Ids::Group => "newgidmap",
        }
    }
}
