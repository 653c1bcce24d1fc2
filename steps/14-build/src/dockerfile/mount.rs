//! `RUN --mount=…`: fields as in a line of CSV.

use anyhow::{Context, Result, bail, ensure};
use cgroups::Bytes;

use super::words::did_you_mean;

/// A mount of one `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunMount {
    /// What is mounted.
    pub kind: Kind,
    /// `from`: a stage or an image; the context if it is not given.
    pub from: Option<String>,
    /// `source`: a path in it, or the identity of a secret.
    pub source: Option<String>,
    /// `target`.
    pub target: Option<String>,
    /// Whether nothing can be written: a `bind` and a `secret` unless they say
    /// `rw`.
    pub readonly: bool,
    /// `id`.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Sharing,
    /// `required` of a secret.
    pub required: bool,
    /// `size` of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
    /// `env`: the variable that holds a secret.
    pub env: Option<String>,
}

/// What a mount of a `RUN` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Files of the context, a stage or an image. What is written is lost.
    #[default]
    Bind,
    /// A directory that later builds see, too.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file that no layer has.
    Secret,
    /// The socket of an agent.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All.
    #[default]
    Shared,
    /// All, each with a cache of its own.
    Private,
    /// One after the other.
    Locked,
}

const KINDS: [(&str, Kind); 5] = [
    ("bind", Kind::Bind),
    ("cache", Kind::Cache),
    ("tmpfs", Kind::Tmpfs),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
];

const SHARING: [(&str, Sharing); 3] = [
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
];

impl RunMount {
    /// Reads a mount whose variables have been expanded.
    ///
    /// # Errors
    /// With Docker's words, for what it does not know or allow.
    pub fn parse(text: &str) -> Result<Self> {
        let mut mount = Self::default();
        let mut readonly = None;
        let mut sharing = None;
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (field.to_ascii_lowercase(), None),
            };
            let kind = mount.kind;
            let wrong = || format!("invalid value for {key}: {}", value.unwrap_or_default());
            let switch = || boolean(value.unwrap_or("true")).with_context(wrong);
            match key.as_str() {
                "readonly" | "ro" => {
                    readonly = Some(switch()?);
                    continue;
                }
                "readwrite" | "rw" => {
                    readonly = Some(!switch()?);
                    continue;
                }
                "required" => {
                    ensure!(
                        matches!(kind, Kind::Secret | Kind::Ssh),
                        "unexpected key '{key}' for mount type '{}'",
                        name(kind)
                    );
                    mount.required = switch()?;
                    continue;
                }
                _ => {}
            }
            let Some(value) = value else {
                bail!("invalid field '{field}' must be a key=value pair");
            };
            let own = || Some(String::from(value));
            let number = |radix| {
                let number = u32::from_str_radix(value, radix);
                number.with_context(|| format!("invalid value {value} for {key}"))
            };
            match key.as_str() {
                "type" => mount.kind = kind_of(value)?,
                "from" => mount.from = own(),
                "source" | "src" => mount.source = own(),
                "target" | "dst" | "destination" => mount.target = own(),
                "id" => mount.id = own(),
                "env" if kind == Kind::Secret => mount.env = own(),
                "sharing" => sharing = Some(sharing_of(value)?),
                "size" if kind == Kind::Tmpfs => {
                    let size: Bytes = value.parse().with_context(wrong)?;
                    mount.size = Some(size.0);
                }
                "env" | "size" => bail!("unexpected key '{key}' for mount type '{}'", name(kind)),
                "mode" => mount.mode = Some(number(8)?),
                "uid" => mount.uid = Some(number(10)?),
                "gid" => mount.gid = Some(number(10)?),
                _ => bail!(
                    "unexpected key '{key}' in '{field}'{}",
                    did_you_mean(&key, &KEYS)
                ),
            }
        }
        mount.readonly = readonly.unwrap_or(!matches!(mount.kind, Kind::Cache | Kind::Tmpfs));
        mount.sharing = sharing.unwrap_or_default();
        mount.allow(sharing.is_some())?;
        Ok(mount)
    }

    /// Refuses what is wrong whatever its variables are.
    pub(super) fn check(text: &str) -> Result<(), String> {
        if !text.contains('$') {
            return Self::parse(text)
                .map(drop)
                .map_err(|error| format!("{error:#}"));
        }
        let fields = fields(text).map_err(|error| format!("{error:#}"))?;
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            match key.to_ascii_lowercase().as_str() {
                "type" if !value.contains('$') => {
                    kind_of(value).map_err(|error| error.to_string())?;
                }
                // Which stages are needed is known before any variable is.
                "from" if value.contains('$') => {
                    return Err(
                        "'from' doesn't support variable expansion, define alias stage instead"
                            .into(),
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn allow(&self, sharing: bool) -> Result<()> {
        let kind = name(self.kind);
        if matches!(self.kind, Kind::Bind | Kind::Tmpfs) {
            for (key, given) in [
                ("mode", self.mode.is_some()),
                ("uid", self.uid.is_some()),
                ("gid", self.gid.is_some()),
            ] {
                ensure!(!given, "{key} not allowed for {kind:?} type mounts");
            }
        }
        if self.kind == Kind::Secret {
            ensure!(self.from.is_none(), "secret mount should not have a from");
            ensure!(!sharing, "secret mount should not define sharing");
            ensure!(
                self.source.is_some() || self.target.is_some() || self.id.is_some(),
                "invalid secret mount. one of source, target required"
            );
            ensure!(
                self.source.is_none() || self.id.is_none(),
                "both source and id can't be set"
            );
        }
        ensure!(
            !sharing || self.kind == Kind::Cache,
            "invalid cache sharing set for {kind} mount"
        );
        Ok(())
    }
}

fn name(kind: Kind) -> &'static str {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or("", |(name, _)| name)
}

fn kind_of(value: &str) -> Result<Kind> {
    let lower = value.to_ascii_lowercase();
    let found = KINDS.iter().find(|(name, _)| *name == lower);
    let (_, kind) = found.with_context(|| {
        let known = KINDS.map(|(name, _)| name);
        format!(
            "unsupported mount type {value:?}{}",
            did_you_mean(value, &known)
        )
    })?;
    Ok(*kind)
}

fn sharing_of(value: &str) -> Result<Sharing> {
    let lower = value.to_ascii_lowercase();
    let found = SHARING.iter().find(|(name, _)| *name == lower);
    let (_, sharing) = found.with_context(|| {
        let known = SHARING.map(|(name, _)| name);
        format!(
            "unsupported sharing value {value:?}{}",
            did_you_mean(value, &known)
        )
    })?;
    Ok(*sharing)
}

/// A truth as Go reads it.
fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bail!("{text:?} is neither true nor false"),
    }
}

/// The fields of a line of CSV.
fn fields(text: &str) -> Result<Vec<String>> {
    ensure!(!text.is_empty(), "failed to parse csv mounts: EOF");
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => match rest.split_once(',') {
                Some((field, tail)) => (field.into(), Some(tail)),
                None => (rest.into(), None),
            },
        };
        ensure!(
            rest.starts_with('"') || !field.contains('"'),
            "failed to parse csv mounts: bare \" in non-quoted field"
        );
        fields.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

/// A field in quotes, after the first one, and what follows its comma.
fn unquoted(text: &str) -> Result<(String, Option<&str>)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let wrong = "failed to parse csv mounts: extraneous or missing \" in quoted field";
        let (part, tail) = rest.split_once('"').context(wrong)?;
        field.push_str(part);
        rest = match tail.strip_prefix('"') {
            Some(tail) => {
                field.push('"');
                tail
            }
            None if tail.is_empty() => return Ok((field, None)),
            None => return Ok((field, Some(tail.strip_prefix(',').context(wrong)?))),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, RunMount, Sharing};

    #[test]
    fn mounts_are_read() {
        let cache = RunMount::parse("type=cache,target=/c,id=x,sharing=locked,mode=0700,uid=5");
        assert_eq!(
            cache.unwrap(),
            RunMount {
                kind: Kind::Cache,
                target: Some("/c".into()),
                id: Some("x".into()),
                sharing: Sharing::Locked,
                mode: Some(0o700),
                uid: Some(5),
                ..RunMount::default()
            }
        );
        let bind = RunMount::parse("\"target=/a,b\",FROM=stage,src=/x").unwrap();
        assert_eq!((bind.kind, bind.readonly), (Kind::Bind, true));
        assert_eq!(bind.target.as_deref(), Some("/a,b"));
        assert!(!RunMount::parse("target=/a,rw").unwrap().readonly);
        assert!(!RunMount::parse("target=/a,ro=false").unwrap().readonly);
        let tmpfs = RunMount::parse("type=tmpfs,target=/t,size=1m").unwrap();
        assert_eq!((tmpfs.size, tmpfs.readonly), (Some(1 << 20), false));
        let secret = RunMount::parse("type=secret,id=x,required,env=X").unwrap();
        assert!(secret.required && secret.readonly);
        assert_eq!(secret.env.as_deref(), Some("X"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (text, error) in [
            ("", "failed to parse csv mounts: EOF"),
            ("\"a", "failed to parse csv mounts"),
            ("a\"b", "failed to parse csv mounts"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("type=nfs", "unsupported mount type \"nfs\""),
            (
                "typ3=cache",
                "unexpected key 'typ3' in 'typ3=cache' (did you mean type?)",
            ),
            (
                "target=/a,size=1",
                "unexpected key 'size' for mount type 'bind'",
            ),
            (
                "target=/a,required",
                "unexpected key 'required' for mount type 'bind'",
            ),
            (
                "target=/a,mode=0700",
                "mode not allowed for \"bind\" type mounts",
            ),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,ro=maybe", "invalid value for ro: maybe"),
            ("type=cache,sharing=shred", "(did you mean shared?)"),
            (
                "type=bind,sharing=shared",
                "invalid cache sharing set for bind mount",
            ),
            ("type=secret", "one of source, target required"),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            (
                "type=secret,id=a,from=b",
                "secret mount should not have a from",
            ),
        ] {
            let is = format!("{:#}", RunMount::parse(text).unwrap_err());
            assert!(is.contains(error), "{text}: {is}");
        }
        assert!(RunMount::check("type=$x,target=$y").is_ok());
        assert!(RunMount::check("type=caches,target=$y").is_err());
        assert!(RunMount::check("from=$x,target=/y").is_err());
    }
}
