//! Users and groups: what is done for the ones is done for the others, under
//! other names.

/// The two kinds of IDs that a user namespace maps, and what is called after
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// User IDs.
    User,
    /// Group IDs.
    Group,
}

impl Ids {
    /// What one of them is called.
    pub fn noun(self) -> &'static str {
        match self {
            Ids::User => "UID",
            Ids::Group => "GID",
        }
    }

    /// The file in `/proc/PID` that holds the map.
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

    /// The file of the ranges that users were given: subuid(5), subgid(5).
    pub fn subordinate(self) -> &'static str {
        match self {
            Ids::User => "/etc/subuid",
            Ids::Group => "/etc/subgid",
        }
    }

    /// The set-user-ID program that writes such ranges: newuidmap(1),
    /// newgidmap(1).
    pub fn helper(self) -> &'static str {
        match self {
            Ids::User => "newuidmap",
            Ids::Group => "newgidmap",
        }
    }
}
