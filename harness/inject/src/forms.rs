//! The forms of `drydock run` into whose calls faults are injected.

/// One way to call `drydock run`.
pub struct Form {
    /// Name in tables.
    pub name: &'static str,
    /// The options, without `--root` and the image.
    pub options: &'static [&'static str],
    /// The ordinary user that calls it; `None` for root.
    pub user: Option<u32>,
    /// Whether the container exists afterwards.
    pub kept: bool,
    /// Options of the next container, which runs after the fault and meets its
    /// remains.
    pub next: &'static [&'static str],
}

const ALONE: &[&str] = &["--rm", "--network", "none"];

/// All forms.
pub const FORMS: [Form; 6] = [
    Form {
        name: "alone",
        options: ALONE,
        user: None,
        kept: false,
        next: ALONE,
    },
    Form {
        name: "bridge",
        options: &[
            "--rm",
            "-p",
            "127.0.0.1:18080:80",
            "-m",
            "64m",
            "--pids-limit",
            "50",
        ],
        user: None,
        kept: false,
        next: &["--rm"],
    },
    Form {
        name: "init",
        options: &["--rm", "--init", "--network", "none"],
        user: None,
        kept: false,
        next: ALONE,
    },
    Form {
        name: "rootless",
        options: ALONE,
        user: Some(1000),
        kept: false,
        next: ALONE,
    },
    Form {
        name: "kept",
        options: &[
            "--name",
            "box",
            "--network",
            "none",
            "-v",
            "vol:/data",
            "-v",
            "/anonymous",
        ],
        user: None,
        kept: true,
        next: ALONE,
    },
    Form {
        name: "mapped",
        options: &[
            "--rm",
            "--network",
            "none",
            "--uid-map",
            "0:100000:65536",
            "-v",
            "vol:/data",
            "-v",
            "/anonymous",
        ],
        user: None,
        kept: false,
        next: ALONE,
    },
];
