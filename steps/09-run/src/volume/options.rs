//! `--volume`, `--mount` and `--tmpfs` in Docker's syntax, parsed into the
//! mounts of steps 04 and 09.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cgroups::Bytes;
use serde::{Deserialize, Serialize};

use crate::cli::options::FilesArgs;
use crate::volume::beside::Viewed;

/// The source of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A path of the host.
    Host {
        /// The absolute path.
        #[serde(with = "kit::text")]
        path: PathBuf,
        /// Whether a missing directory is created: Docker does so for
        /// `--volume`, not for `--mount`.
        make: bool,
    },
    /// A volume.
    Volume {
        /// The name; 64 random hexadecimal digits if it is anonymous.
        name: String,
        /// Whether the volume is removed with the container.
        anonymous: bool,
        /// Whether an empty volume is filled with the image's files at the
        /// target.
        copy: bool,
    },
}

/// A mount of a volume, or of a path of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// The source of the files.
    pub source: MountSource,
    /// The absolute path in the container.
    #[serde(with = "kit::text")]
    pub target: PathBuf,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// Whether the mounts below a path of the host are omitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nonrecursive: bool,
}

/// The mounts of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// Directories of the host, and volumes.
    pub mounted: Vec<Mounted>,
    /// File systems in memory, as `--tmpfs` of step 04 takes them.
    pub tmpfs: Vec<String>,
    /// Whether the root is read-only; mounts in it are not affected.
    pub read_only: bool,
    /// The size of /dev/shm. `None` is step 04's default.
    pub shm_size: Option<Bytes>,
    /// Files of other images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub viewed: Vec<Viewed>,
    /// Whether the container's layer shows nothing of the places at which all
    /// these are mounted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub traceless: bool,
}

impl Files {
    /// The mounts that the options ask for, and anonymous volumes at those
    /// places of the image's that no option covers.
    ///
    /// # Errors
    /// Quotes the option and says what is wrong with it.
    pub fn parse<'a>(args: &FilesArgs, of_image: impl Iterator<Item = &'a String>) -> Result<Self> {
        // The kernel takes 0 for "no limit" (tmpfs(5)).
        ensure!(
            args.shm_size != Some(Bytes(0)),
            "--shm-size 0: use at least 1"
        );
        let mut mounts = Files {
            mounted: Vec::new(),
            tmpfs: args.tmpfs.clone(),
            read_only: args.read_only,
            shm_size: args.shm_size,
            viewed: Vec::new(),
            traceless: false,
        };
        for (n, option) in args.volume.iter().enumerate() {
            // As with Docker, the same words again say nothing new.
            if args.volume[..n].contains(option) {
                continue;
            }
            let mounted = volume(option).with_context(|| format!("--volume {option}"))?;
            mounts.mounted.push(mounted);
        }
        for option in &args.mount {
            mount(option, &mut mounts).with_context(|| format!("--mount {option}"))?;
        }
        for text in of_image {
            let target = from_root(text);
            if target.parent().is_none() || text.contains(':') {
                kit::errln!("drydock: no volume is created at {text:?}, which the image names");
                continue;
            }
            let covered = |tmpfs: &String| Path::new(before_colon(tmpfs)) == target;
            if !mounts.mounted.iter().any(|other| other.target == target)
                && !mounts.tmpfs.iter().any(covered)
            {
                mounts.mounted.push(Mounted {
                    source: anonymous(true)?,
                    target,
                    read_only: false,
                    nonrecursive: false,
                });
            }
        }
        Ok(mounts)
    }
}

/// Converts a path of an image to one from the container's root, where a
/// relative path begins. `..` is resolved before any link, as by Go's
/// filepath.Clean.
pub fn from_root(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn before_colon(text: &str) -> &str {
    text.split_once(':').map_or(text, |(before, _)| before)
}

/// Parses `[SRC:]DST[:OPTION,…]`. A source that contains a slash or begins with
/// a dot is a path.
fn volume(option: &str) -> Result<Mounted> {
    let (source, target, options) = match option.split(':').collect::<Vec<_>>()[..] {
        [target] => (None, target, ""),
        [source, target] if target.starts_with('/') => (Some(source), target, ""),
        [target, options] => (None, target, options),
        [source, target, options] => (Some(source), target, options),
        _ => bail!("use [SRC:]DST[:OPTIONS], as in data:/data:ro"),
    };
    let (mut read_only, mut copy) = (false, true);
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => copy = false,
            // Labels of SELinux, which are not set here; a consistency that only
            // matters with a virtual machine between; and what a mount is anyway.
            "z" | "Z" | "cached" | "delegated" | "consistent" | "private" | "rprivate" => {}
            "shared" | "rshared" | "slave" | "rslave" => {
                bail!("{word:?}: mounts do not propagate: use ro, rw or nocopy")
            }
            _ => bail!("{word:?} is not an option: use ro, rw or nocopy"),
        }
    }
    let source = match source {
        None => anonymous(copy)?,
        Some("") => bail!("the source is empty: omit the colon for an anonymous volume"),
        Some(path) if path.contains('/') || path.starts_with('.') => MountSource::Host {
            path: absolute(path)?,
            make: true,
        },
        Some(name) => named(name, copy)?,
    };
    Ok(Mounted {
        source,
        target: target_of(target)?,
        read_only,
        nonrecursive: false,
    })
}

fn named(name: &str, copy: bool) -> Result<MountSource> {
    kit::name::check(name)?;
    Ok(MountSource::Volume {
        name: name.to_owned(),
        anonymous: false,
        copy,
    })
}

fn anonymous(copy: bool) -> Result<MountSource> {
    Ok(MountSource::Volume {
        name: kit::random::hex::<32>()?,
        anonymous: true,
        copy,
    })
}

fn absolute(path: &str) -> Result<PathBuf> {
    ensure!(
        !path.contains(':'),
        "{path:?} contains a colon, which separates the parts of a mount: use another path"
    );
    std::path::absolute(path).with_context(|| format!("the source {path:?}"))
}

fn target_of(target: &str) -> Result<PathBuf> {
    ensure!(
        target.starts_with('/') && !target.contains(':'),
        "the target {target:?} is not an absolute path: name it from the container's root, as in \
         /data"
    );
    Ok(target.into())
}

/// Parses `KEY=VALUE,…` with the keys of `docker run --mount`.
fn mount(option: &str, mounts: &mut Files) -> Result<()> {
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut copy, mut nonrecursive) = (false, true, false);
    let mut tmpfs = Vec::new();
    let words = fields(option)?;
    for word in &words {
        let (key, value) = word
            .split_once('=')
            .map_or((&**word, None), |(key, value)| (key, Some(value)));
        let needed = || value.with_context(|| format!("{key} needs a value: {key}=…"));
        match &*key.to_ascii_lowercase() {
            "type" => kind = needed()?,
            "source" | "src" => source = Some(needed()?),
            "target" | "destination" | "dst" => target = Some(needed()?),
            "readonly" | "ro" => read_only = flag(key, value)?,
            "volume-nocopy" => copy = !flag(key, value)?,
            "tmpfs-size" => tmpfs.push(format!("size={}", needed()?)),
            "tmpfs-mode" => tmpfs.push(format!("mode={}", needed()?)),
            "bind-nonrecursive" => nonrecursive = flag(key, value)?,
            "bind-recursive" => match needed()? {
                "enabled" => nonrecursive = false,
                "disabled" => nonrecursive = true,
                other => bail!("bind-recursive={other}: use enabled or disabled"),
            },
            // It only matters with a virtual machine between.
            "consistency" => match needed()? {
                "default" | "consistent" | "cached" | "delegated" => {}
                other => bail!("consistency={other}: use consistent, cached or delegated"),
            },
            "bind-propagation" if matches!(value, Some("private" | "rprivate")) => {}
            _ => bail!(
                "{word:?} is not a key: the keys are type, src, dst, readonly, volume-nocopy, \
                 tmpfs-size and tmpfs-mode"
            ),
        }
    }
    let target = target.context("it needs dst=PATH, a place in the container")?;
    let source = match (kind, source) {
        ("tmpfs", None) => {
            if read_only {
                tmpfs.push("ro".into());
            }
            target_of(target)?;
            mounts.tmpfs.push(match tmpfs[..] {
                [] => target.to_owned(),
                _ => format!("{target}:{}", tmpfs.join(",")),
            });
            return Ok(());
        }
        ("tmpfs", Some(_)) => bail!("a tmpfs has no src"),
        (_, _) if !tmpfs.is_empty() => bail!("tmpfs-size and tmpfs-mode need type=tmpfs"),
        ("bind", Some(path)) => MountSource::Host {
            path: absolute(path)?,
            make: false,
        },
        ("bind", None) => bail!("type=bind needs src=PATH, a path of the host"),
        ("volume", Some(name)) => named(name, copy)?,
        ("volume", None) => anonymous(copy)?,
        _ => bail!("type={kind}: use bind, volume or tmpfs"),
    };
    mounts.mounted.push(Mounted {
        source,
        target: target_of(target)?,
        read_only,
        nonrecursive,
    });
    Ok(())
}

/// The fields of a line of comma-separated values (RFC 4180): in quotation marks
/// a comma belongs to the field, and a doubled mark is one.
fn fields(line: &str) -> Result<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        let begun = fields.last().is_none_or(|field| !field.is_empty());
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_none() => {
                quoted = false;
                let next = characters.peek();
                ensure!(
                    next.is_none_or(|next| *next == ','),
                    "a comma has to follow the closing quotation mark"
                );
                continue;
            }
            '"' if !quoted => {
                ensure!(!begun, "a quotation mark has to begin the whole KEY=VALUE");
                quoted = true;
                continue;
            }
            ',' if !quoted => {
                fields.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(field) = fields.last_mut() {
            field.push(character);
        }
    }
    ensure!(!quoted, "a quotation mark is not closed");
    Ok(fields)
}

fn flag(key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => bail!("{key}={other}: use true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(volumes: &[&str], mounts: &[&str]) -> Result<Files> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let args = FilesArgs {
            volume: owned(volumes),
            mount: owned(mounts),
            ..FilesArgs::default()
        };
        Files::parse(&args, ["/data".to_owned(), "/logs".to_owned()].iter())
    }

    #[test]
    fn both_options_say_the_same() {
        let short = parse(&["one:/data:ro", "/srv:/srv"], &[]).unwrap();
        let long = parse(
            &[],
            &[
                "src=one,dst=/data,readonly",
                "type=bind,source=/srv,target=/srv",
            ],
        )
        .unwrap();
        assert_eq!(short.mounted[0], long.mounted[0]);
        assert_eq!(short.mounted[1].target, long.mounted[1].target);
        // The image's /data is taken; its /logs gets a volume of the container.
        assert_eq!(short.mounted.len(), 3);
        assert_eq!(short.mounted[2].target, Path::new("/logs"));
    }

    #[test]
    fn volumes_of_an_image_begin_at_its_root() {
        let of_image = ["data", "/data/", "./logs/../logs", "../up", ".", "a:b"];
        let of_image = of_image.map(str::to_owned);
        let mounts = Files::parse(&FilesArgs::default(), of_image.iter()).unwrap();
        let targets: Vec<_> = mounts
            .mounted
            .iter()
            .map(|mounted| &mounted.target)
            .collect();
        assert_eq!(targets, ["/data", "/logs", "/up"].map(Path::new));
    }

    #[test]
    fn a_tmpfs_is_one_of_step_04() {
        let mounts = parse(&[], &["type=tmpfs,dst=/data,tmpfs-size=1m,ro"]).unwrap();
        assert_eq!(mounts.tmpfs, ["/data:size=1m,ro"]);
        assert_eq!(mounts.mounted.len(), 1);
    }

    #[test]
    fn options_that_mean_nothing_here_are_taken() {
        for option in ["one:/data:z", "one:/data:cached,Z", "one:/data:rprivate"] {
            let mounts = parse(&[option, option], &[]).unwrap();
            assert_eq!(mounts.mounted.len(), 2, "{option}");
        }
        let mounts = parse(&[], &["consistency=cached,src=one,dst=/data"]).unwrap();
        assert!(!mounts.mounted[0].nonrecursive);
    }

    #[test]
    fn a_mount_is_a_line_of_comma_separated_values() {
        let option = r#"Type=bind,"source=/a,""b""",dst=/data,bind-recursive=disabled"#;
        let mounts = parse(&[], &[option]).unwrap();
        let path = "/a,\"b\"".into();
        assert_eq!(
            mounts.mounted[0].source,
            MountSource::Host { path, make: false }
        );
        assert!(mounts.mounted[0].nonrecursive);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (option, why) in [
            ("one:/a:loud", "ro, rw or nocopy"),
            (":/a", "empty"),
            ("one:/a:shared", "propagate"),
            ("a:b:c:d", "[SRC:]DST"),
            ("x", "absolute"),
            ("-x:/a", "not a name"),
        ] {
            let error = format!("{:#}", parse(&[option], &[]).unwrap_err());
            assert!(error.contains(why), "{option}: {error}");
        }
        for (option, why) in [
            ("type=bind,dst=/a", "src=PATH"),
            ("type=disk,dst=/a", "bind, volume or tmpfs"),
            ("src=one", "dst=PATH"),
            ("dst=/a,color=red", "is not a key"),
            ("dst=/a,tmpfs-size=1", "type=tmpfs"),
            ("\"dst=/a", "not closed"),
            ("dst=\"/a\"", "has to begin"),
            ("\"dst=/a\"x", "a comma"),
        ] {
            let error = format!("{:#}", parse(&[], &[option]).unwrap_err());
            assert!(error.contains(why), "{option}: {error}");
        }
    }
}
