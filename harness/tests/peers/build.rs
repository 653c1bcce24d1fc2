//! The same Dockerfiles to docker and to drydock, and the images that come out:
//! every file with its type, mode, owner, links, attributes and content, the
//! configuration, the history.
//!
//! A Dockerfile with its context is a file in `build/`: what it is about, then
//! `=== NAME` before each file of the context. What may follow a name: a mode;
//! `crlf`, `bom`; `tar`, an archive of the names below, maybe `gzip`. `-> TARGET`
//! is a link, a slash at the end a directory. Before the first file may stand
//!
//! - `tag:`, the name of the image, which later ones use;
//! - `options:` of `build`;
//! - `as:` another Dockerfile that docker builds instead: one that says the same
//!   in words that Debian's docker knows. The histories are not compared then;
//! - `differs: WHAT: WHY`, where WHAT is a name of the configuration, `history`,
//!   or a path: what is not alike, and why that is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use check::workspace;
use serde_json::{Map, Value};
use serial_test::serial;

use crate::place::{Ended, Place};

/// When the files of contexts were changed: a time that no build has.
const CHANGED: u64 = 981_173_106;

/// What a container has beside the image's files.
const OF_CONTAINERS: [&str; 8] = [
    ".dockerenv",
    "dev",
    "proc",
    "sys",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab",
];

/// A Dockerfile with its context.
#[derive(Debug, Default)]
struct Case {
    name: String,
    tag: Option<String>,
    options: Vec<String>,
    reference: Option<String>,
    differs: BTreeSet<String>,
    /// Headings, each with the lines below.
    files: Vec<(String, String)>,
}

impl Case {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let mut case = Case {
            name: name.to_owned(),
            ..Case::default()
        };
        for line in text.split_inclusive('\n') {
            if let Some(heading) = line.strip_prefix("=== ") {
                case.files.push((heading.trim().to_owned(), String::new()));
                continue;
            }
            if let Some((_, content)) = case.files.last_mut() {
                content.push_str(line);
                continue;
            }
            let (key, value) = line.trim_end().split_once(": ").unwrap_or((line, ""));
            match key {
                "tag" => case.tag = Some(value.to_owned()),
                "options" => case.options = value.split(' ').map(str::to_owned).collect(),
                "as" => case.reference = Some(value.to_owned()),
                "differs" => {
                    let (what, _) = value.split_once(": ").context("differs: WHAT: WHY")?;
                    case.differs.insert(what.to_owned());
                }
                _ => ensure!(line.starts_with('#'), "{name}: {line:?}"),
            }
        }
        ensure!(!case.files.is_empty(), "{name}: no file");
        Ok(case)
    }

    /// Writes the context.
    fn write(&self, directory: &Path) -> Result<()> {
        let mut directories = BTreeSet::from([directory.to_owned()]);
        for (heading, content) in &self.files {
            let (name, how) = heading_of(heading);
            let path = directory.join(name);
            let parent = path.parent().context("no parent")?;
            fs::create_dir_all(parent).context("mkdir")?;
            directories.extend(
                parent
                    .ancestors()
                    .filter(|above| above.starts_with(directory))
                    .map(Path::to_owned),
            );
            if let Some((link, target)) = heading.split_once(" -> ") {
                symlink(target, directory.join(link)).context("symlink")?;
                continue;
            }
            if name.ends_with('/') {
                fs::create_dir(&path).context("mkdir")?;
                directories.insert(path);
                continue;
            }
            let is = |word| how.contains(&word);
            let bytes = match content {
                names if is("tar") => archive(names, is("gzip"))?,
                text if is("crlf") => text.replace('\n', "\r\n").into_bytes(),
                text if is("bom") => format!("\u{feff}{text}").into_bytes(),
                text => text.clone().into_bytes(),
            };
            fs::write(&path, bytes).context("write")?;
            let mode = how
                .iter()
                .find_map(|word| u32::from_str_radix(word, 8).ok());
            set(&path, mode.unwrap_or(0o644))?;
        }
        // Deepest first: what is made in a directory changes its time.
        for directory in directories.iter().rev() {
            set(directory, 0o755)?;
        }
        Ok(())
    }
}

/// The name in a heading, and the words that say how it is written. A name may
/// have blanks in it.
fn heading_of(heading: &str) -> (&str, Vec<&str>) {
    let words = ["crlf", "bom", "tar", "gzip"];
    let mut name = heading;
    let mut how = Vec::new();
    while let Some((before, word)) = name.rsplit_once(' ') {
        let is_mode = word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit());
        if !is_mode && !words.contains(&word) {
            break;
        }
        how.push(word);
        name = before;
    }
    (name, how)
}

fn set(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context("chmod")?;
    let file = File::open(path).context("open")?;
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED);
    file.set_modified(changed).context("utimensat")
}

/// An archive of small files with these names.
fn archive(names: &str, compressed: bool) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in names.lines() {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_uid(11);
        header.set_gid(12);
        header.set_mtime(CHANGED);
        header.set_size(name.len() as u64);
        tar.append_data(&mut header, name, name.as_bytes())
            .context("write an archive")?;
    }
    let bytes = tar.into_inner().context("write an archive")?;
    if !compressed {
        return Ok(bytes);
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&bytes).context("compress")?;
    gzip.finish().context("compress")
}

fn cases() -> Result<Vec<Case>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/build");
    let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
        .context("read build/")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    // A base that others are built on comes before them.
    paths.sort_by_key(|path| !path.ends_with("00-debian.txt"));
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().context("no name")?.to_string_lossy();
            Case::parse(&name, &fs::read_to_string(path).context("read")?)
        })
        .collect()
}

/// An image, as it is compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Image {
    files: BTreeMap<String, String>,
    config: Map<String, Value>,
    history: Vec<String>,
}

struct Side<'a> {
    place: &'a Place,
    client: String,
}

impl Side<'_> {
    fn run(&self, script: &str) -> Result<Ended> {
        let mut ended = self
            .place
            .run(&["sh", "-c", &format!("D='{}'\n{script}", self.client)])?;
        ended.call = script.to_owned();
        Ok(ended)
    }

    fn said(&self, script: &str) -> Result<String> {
        Ok(self.run(script)?.status(0)?.stdout)
    }

    /// Builds the image of a case, and reads what it is.
    fn build(&self, case: &Case, context: &Path, file: Option<&str>, work: &Path) -> Result<Image> {
        let name = case
            .tag
            .clone()
            .unwrap_or_else(|| format!("case:{}", case.name));
        let file = file.map(|file| format!("-f {file}")).unwrap_or_default();
        // Both say on standard error what goes wrong.
        let ended = self.run(&format!(
            "cd {} && $D build --progress plain --network none {} {file} -t {name} .",
            context.display(),
            case.options.join(" "),
        ))?;
        let lines: Vec<&str> = ended.stderr.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
        ensure!(ended.status == 0, "status {}: {last}", ended.status);
        let exported = work.join("exported.tar");
        self.said(&format!(
            "id=$($D create --network none {name} nothing) && $D export -o {0} $id && $D rm $id",
            exported.display()
        ))?;
        let config = self.said(&format!(
            "$D image inspect --format '{{{{json .Config}}}}' {name}"
        ))?;
        let history = self.said(&format!(
            "$D history --no-trunc --format '{{{{.CreatedBy}}}}' {name}"
        ))?;
        let config: Value = serde_json::from_str(&config).context("the configuration")?;
        Ok(Image {
            files: files(&exported)?,
            config: settings(&config),
            history: history.lines().map(of_any_version).collect(),
        })
    }
}

/// An entry of the history without what BuildKit writes since the version that
/// Debian's docker has: the owner and mode of a copy, the value of an argument, the
/// interval at the start of a check.
fn of_any_version(entry: &str) -> String {
    if let Some(rest) = entry.strip_prefix("COPY ") {
        let words = rest.split(' ').filter(|word| !word.starts_with("--ch"));
        return format!("COPY {}", words.collect::<Vec<_>>().join(" "));
    }
    if let Some(rest) = entry.strip_prefix("ARG ") {
        return format!("ARG {}", rest.split('=').next().unwrap_or_default());
    }
    if let Some((command, times)) = entry.rsplit_once("] ")
        && entry.starts_with("HEALTHCHECK &{")
    {
        let mut times: Vec<&str> = times.split(' ').collect();
        if times.len() == 5 {
            times.remove(3);
        }
        return format!("{command}] {}", times.join(" "));
    }
    entry.to_owned()
}

/// The settings of an image that are set to something.
fn settings(config: &Value) -> Map<String, Value> {
    // What docker says of every container and of none.
    let not = ["Hostname", "Image", "Domainname", "ArgsEscaped"];
    let is_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(_) => false,
    };
    config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| !not.contains(&name.as_str()) && !is_nothing(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The files of an archive: a line for each.
fn files(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(File::open(path).context("open the archive")?);
    let mut files = BTreeMap::new();
    for entry in archive.entries().context("read the archive")? {
        let mut entry = entry.context("read the archive")?;
        let name = entry.path().context("a name")?.display().to_string();
        let name = name
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        let of_containers = OF_CONTAINERS
            .iter()
            .any(|one| name == *one || name.starts_with(&format!("{one}/")));
        if of_containers || name.is_empty() || name == "etc" {
            continue;
        }
        let mut attributes = String::new();
        if let Some(extensions) = entry.pax_extensions().context("PAX")? {
            for extension in extensions {
                let extension = extension.context("PAX")?;
                let key = extension.key().unwrap_or_default();
                if key.starts_with("SCHILY.xattr.") {
                    attributes.push_str(&format!(" {key}={:?}", extension.value_bytes()));
                }
            }
        }
        let header = entry.header();
        let link = match entry.link_name().context("a link")? {
            Some(target) => format!(
                " -> {}",
                target.display().to_string().trim_start_matches("./")
            ),
            None => String::new(),
        };
        let mut line = format!(
            "{:?} {:o} {}:{}{link}{attributes}",
            header.entry_type(),
            header.mode().context("a mode")? & 0o7777,
            header.uid().context("an owner")?,
            header.gid().context("a group")?,
        );
        // What came from a context has its time.
        if header.entry_type().is_file() && header.mtime().context("a time")? == CHANGED {
            line.push_str(" unchanged");
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).context("read")?;
        line.push_str(&format!(" {} bytes", content.len()));
        if content.len() < 400 {
            line.push_str(&format!(" {:?}", String::from_utf8_lossy(&content)));
        }
        files.insert(name, line);
    }
    // Which of several names comes first is nobody's business.
    Ok(files)
}

/// What differs, in words.
fn compare(case: &Case, theirs: &Image, own: &Image) -> Vec<String> {
    let mut differences = Vec::new();
    let mut note = |what: &str, theirs: String, own: String| {
        if theirs != own && !case.differs.contains(what) {
            differences.push(format!("{what}\n    docker:  {theirs}\n    drydock: {own}"));
        }
    };
    let names: BTreeSet<&String> = theirs.files.keys().chain(own.files.keys()).collect();
    for name in names {
        let of = |image: &Image| image.files.get(name).cloned().unwrap_or_default();
        note(&format!("/{name}"), of(theirs), of(own));
    }
    let names: BTreeSet<&String> = theirs.config.keys().chain(own.config.keys()).collect();
    for name in names {
        let of = |image: &Image| {
            image
                .config
                .get(name)
                .map(Value::to_string)
                .unwrap_or_default()
        };
        note(name, of(theirs), of(own));
    }
    if case.reference.is_none() {
        note(
            "history",
            theirs.history.join("\n             "),
            own.history.join("\n             "),
        );
    }
    differences
}

#[test]
#[serial]
fn docker_and_drydock_build_alike() -> Result<()> {
    let mut place = Place::new(&[("dockerd", "docker.io"), ("docker", "docker.io")])?;
    let host = place.dockerd()?;
    let (root, net) = (place.path("root"), place.path("net"));
    let archive = place.rootfs()?;
    let program = workspace::bin().join("step-14");
    ensure!(
        program.exists(),
        "{program:?} is missing: run ./just build first"
    );
    // Debian's client has BuildKit in it; a newer one somewhere else needs a
    // plugin.
    let client = match Path::new("/usr/bin/docker").exists() {
        true => "/usr/bin/docker",
        false => "docker",
    };
    let docker = Side {
        client: format!("env DOCKER_BUILDKIT=1 {client} --host {host}"),
        place: &place,
    };
    let ours = Side {
        client: format!(
            "env DRYDOCK_STATE={} {} --root {}",
            net,
            program.display(),
            root
        ),
        place: &place,
    };
    for side in [&docker, &ours] {
        side.run(&format!(
            "$D import --change 'CMD [\"sh\"]' {archive} box:latest"
        ))?
        .status(0)?;
    }
    let only = std::env::var("DRYDOCK_CASE").unwrap_or_default();
    let wanted = |case: &Case| case.name.starts_with("00-") || case.name.contains(&only);
    let cases: Vec<Case> = cases()?.into_iter().filter(wanted).collect();
    for case in &cases {
        case.write(&place.dir().join("contexts").join(&case.name))?;
    }
    let all = |side: &Side<'_>, name: &str, other: bool| -> Result<Vec<Result<Image>>> {
        let work = place.dir().join(name);
        fs::create_dir(&work).context("mkdir")?;
        let cases = cases.iter();
        Ok(cases
            .map(|case| {
                let context = place.dir().join("contexts").join(&case.name);
                let file = case.reference.as_deref().filter(|_| other);
                side.build(case, &context, file, &work)
            })
            .collect())
    };
    let (theirs, own) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| all(&docker, "theirs", true));
        let own = all(&ours, "ours", false);
        (theirs.join(), own)
    });
    let theirs = theirs.map_err(|_| anyhow::Error::msg("a thread has panicked"))??;
    let mut alike = 0;
    let mut report = Vec::new();
    for ((case, theirs), own) in cases.iter().zip(theirs).zip(own?) {
        let differences = match (theirs, own) {
            (Ok(theirs), Ok(own)) => compare(case, &theirs, &own),
            (theirs, own) => {
                let said = |image: Result<Image>| match image {
                    Ok(_) => "builds it".to_owned(),
                    Err(error) => format!("{error:#}"),
                };
                vec![format!(
                    "docker:  {}\n  drydock: {}",
                    said(theirs),
                    said(own)
                )]
            }
        };
        match differences.is_empty() {
            true => alike += 1,
            false => report.push(format!("{}\n  {}", case.name, differences.join("\n  "))),
        }
    }
    println!("{alike} of {} images are alike", cases.len());
    ensure!(report.is_empty(), "{}", report.join("\n"));
    place.end()
}
