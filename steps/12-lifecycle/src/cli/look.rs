//! `inspect`, `logs`, `top`, `port` and `diff`; `ps` is in [`ps`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use engine::cli::places::Places;
use engine::container::{Record, Records};
use process::Exit;
use union::archive::reader::{EntryType, Reader};
use union::archive::write::deletion;
use union::layers::finding::What;
use union::{LayerId, StorageDriver};

use crate::cli::filter::{Containers, Filters, KEYS};
use crate::cli::format::documents;
use crate::cli::ps::{self, Listed};
use crate::cli::words::table_of;
use crate::cli::{group, swept};
use crate::inspect::inspect;
use crate::log::point_in_time;
use crate::log::read::{Before, Wanted, follow, past, print};
use crate::network::attached::published as published_ports;
use crate::settings::{LogDriver, Stay};

/// The commands that look at containers.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// List containers
    Ps {
        /// Show all containers [default: only running ones]
        #[arg(short, long)]
        all: bool,
        /// Filter output based on conditions provided: status=exited, name=web,
        /// label=NAME[=VALUE], … Repeatable
        #[arg(short, long, value_name = "FILTER")]
        filter: Vec<String>,
        /// Format output: table, 'table TEMPLATE', json, or a Go template
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
        /// Show the last created container, in whatever state
        #[arg(short, long)]
        latest: bool,
        /// Show the last N created containers, in whatever state
        #[arg(short = 'n', long, value_name = "N")]
        last: Option<usize>,
        /// Do not truncate output
        #[arg(long)]
        no_trunc: bool,
        /// Only display container IDs
        #[arg(short, long)]
        quiet: bool,
        /// Display total file sizes
        #[arg(short, long)]
        size: bool,
    },
    /// Display detailed information on one or more containers, as JSON
    Inspect {
        /// Format output: json, or a Go template
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
        /// Display total file sizes
        #[arg(short, long)]
        size: bool,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Inspect changes to files or directories on a container's filesystem
    Diff {
        /// Name or ID of the container
        container: String,
    },
    /// Fetch the logs of a container
    Logs {
        /// Follow the output until the container ends
        #[arg(short, long)]
        follow: bool,
        /// Show only what was written since this time, or so long ago
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Show only what was written before this time, or so long ago
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Number of lines to show from the end of the logs
        #[arg(
            short = 'n',
            long,
            value_name = "N",
            default_value = "all",
            allow_negative_numbers = true
        )]
        tail: String,
        /// Show timestamps
        #[arg(short, long)]
        timestamps: bool,
        /// Show extra details: none are kept, which leaves their blank
        #[arg(long)]
        details: bool,
        /// Name or ID of the container
        container: String,
    },
    /// Display the running processes of a container
    Top {
        /// Name or ID of the container
        container: String,
        /// Options of ps(1) [default: -ef]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// List port mappings of a container
    Port {
        /// Name or ID of the container
        container: String,
        /// Only of this port
        #[arg(value_name = "PORT[/PROTOCOL]")]
        port: Option<String>,
    },
}

/// Runs one of the commands.
pub fn run(places: &Places, tool: Tool) -> Result<Exit> {
    let records = match &tool {
        // It sweeps by itself, and lists what that has read.
        Tool::Ps { .. } => Records::new(places),
        _ => swept(places)?,
    };
    match tool {
        Tool::Ps {
            all,
            filter,
            format,
            latest,
            last,
            no_trunc,
            quiet,
            size,
        } => {
            let wanted = Listed {
                all,
                filters: Containers::new(places, Filters::new(&filter, &KEYS)?)?,
                format,
                last: if latest { Some(1) } else { last },
                no_trunc,
                quiet,
                size,
            };
            ps::list(places, &records, &wanted)?;
        }
        Tool::Inspect {
            format,
            size,
            containers,
        } => return inspect_all(places, &records, &containers, (format.as_deref(), size)),
        Tool::Logs {
            follow,
            since,
            until,
            tail,
            timestamps,
            details,
            container,
        } => {
            let before = Before {
                timestamps,
                details,
            };
            let point = |text: Option<String>, option: &'static str| {
                text.map(|text| point_in_time(&text).context(option))
                    .transpose()
            };
            let wanted = Wanted {
                tail: lines(&tail)?,
                since: point(since, "--since")?,
                until: point(until, "--until")?,
            };
            logs(&records, &container, &wanted, follow, before)?;
        }
        Tool::Diff { container } => diff(places, &records.find(&container)?)?,
        Tool::Top { container, options } => top(&records, &container, &options)?,
        Tool::Port { container, port } => ports(&records, &container, port.as_deref())?,
    }
    Ok(Exit::Code(0))
}

/// The number of `--tail`; `None` for all. A negative one is all, as Docker's.
fn lines(text: &str) -> Result<Option<usize>> {
    if text == "all" {
        return Ok(None);
    }
    let number: i64 = text
        .parse()
        .with_context(|| format!("--tail {text}: give a number, or all"))?;
    Ok(usize::try_from(number).ok())
}

fn logs(
    records: &Records,
    container: &str,
    wanted: &Wanted,
    follows: bool,
    before: Before,
) -> Result<()> {
    let record = records.find(container)?;
    let directory = records.directory(&record.spec.id);
    ensure!(
        Stay::of(&record)?.log.driver != LogDriver::None,
        "the log driver of {container} is none: its output went to those who were attached"
    );
    let mut show = |entry: &crate::log::Entry| print(entry, before);
    if !follows {
        past(&directory, wanted, &mut show)?;
        return Ok(());
    }
    let path = records.file(&record.spec.id);
    let id = &record.spec.id;
    follow(
        &directory,
        wanted,
        &path,
        &mut || {
            let record = records.read(id)?;
            Ok(record
                .filter(Record::is_running)
                .map(|record| record.launcher))
        },
        &mut show,
    )
}

/// Prints those that there are; the exit status is 1 if one is missing, as
/// Docker's.
fn inspect_all(
    places: &Places,
    records: &Records,
    names: &[String],
    (format, size): (Option<&str>, bool),
) -> Result<Exit> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match records.find(name) {
            Ok(record) => found.push(inspect(places, &record, size)?),
            Err(error) => missing.push(error),
        }
    }
    kit::out!("{}", documents(format, &found)?)?;
    for error in &missing {
        kit::errln!("drydock: {}", kit::say::printable(&format!("{error:#}")));
    }
    Ok(Exit::Code(u8::from(!missing.is_empty())))
}

fn ports(records: &Records, container: &str, wanted: Option<&str>) -> Result<()> {
    let record = records.find(container)?;
    let mut any = false;
    for one in &published_ports(&record) {
        let name = format!("{}/{}", one.port, one.protocol);
        let host = format!("{}:{}", one.ip, one.host_port);
        match wanted {
            None => kit::outln!("{name} -> {host}")?,
            Some(wanted) if wanted == name || format!("{wanted}/tcp") == name => {
                kit::outln!("{host}")?
            }
            Some(_) => continue,
        }
        any = true;
    }
    if let Some(wanted) = wanted
        && !any
    {
        bail!("no public port '{wanted}' published for {container}");
    }
    Ok(())
}

/// Prints what the container's own layer changes of the layers below: `A` for
/// what it adds, `C` for what it changes, `D` for what it deletes.
fn diff(places: &Places, record: &Record) -> Result<()> {
    let id: LayerId = record.spec.id.parse()?;
    let (kind, root) = (record.spec.driver, places.root.clone());
    let driver = union::detect::open(kind, &root)?;
    if !driver.exists(&id)? {
        // It has never run.
        return Ok(());
    }
    let parents = driver.parents(&id)?;
    let parent = parents.first().context("a layer without a parent")?;
    let (from, mut to) = std::io::pipe().context("pipe")?;
    let layer = id.clone();
    // A thread of its own, with a driver of its own: the archive of a layer can
    // be large, and is read as it is written.
    let writer = thread::spawn(move || union::detect::open(kind, &root)?.diff(&layer, &mut to));
    let mut changes = BTreeMap::new();
    // What stands in place of a directory below, and shows nothing of it.
    let mut hiding = Vec::new();
    let mut entries = Reader::new(from);
    while let Some(entry) = entries.next().context("read the layer")? {
        let path = PathBuf::from(OsStr::from_bytes(entry.path_bytes()));
        let path = path.strip_prefix(".").unwrap_or(&path).to_owned();
        let (mark, path) = match deletion(&path) {
            // An opaque directory: it is in the archive itself, too.
            Some(path) if path.ends_with("*") => {
                hiding.extend(path.parent().map(Path::to_owned));
                continue;
            }
            Some(path) => ('D', path),
            None if path.as_os_str().is_empty() => continue,
            None => {
                let below = below(&*driver, parent, &path)?;
                if below == Some(Below::Directory) && entry.entry_type() != EntryType::Directory {
                    hiding.push(path.clone());
                }
                (if below.is_some() { 'C' } else { 'A' }, path)
            }
        };
        changes.insert(path, mark);
    }
    match writer.join() {
        Ok(written) => written?,
        Err(_) => bail!("the thread that reads the layer has panicked"),
    }
    for path in hiding {
        delete_hidden(&*driver, parent, &path, &mut changes)?;
    }
    for (path, mark) in changes {
        let path = path.display().to_string();
        kit::outln!("{mark} /{}", kit::say::printable(&path))?;
    }
    Ok(())
}

/// What the layers below show at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Directory,
    File,
}

fn below(driver: &dyn StorageDriver, parent: &LayerId, path: &Path) -> Result<Option<Below>> {
    let findings = driver.lookup(parent, path)?;
    Ok(findings.iter().find_map(|finding| match finding.what {
        What::File { .. } => Some(Below::File),
        What::Directory | What::Opaque { found: true, .. } => Some(Below::Directory),
        _ => None,
    }))
}

/// Adds what the layers below have in a directory and the container's own layer
/// has not, where that layer hides all of the directory.
fn delete_hidden(
    driver: &dyn StorageDriver,
    parent: &LayerId,
    directory: &Path,
    changes: &mut BTreeMap<PathBuf, char>,
) -> Result<()> {
    for name in driver.names(parent, directory)? {
        let path = directory.join(name);
        // A mark of AUFS is not a file.
        if deletion(&path).is_some() {
            continue;
        }
        let Some(below) = below(driver, parent, &path)? else {
            continue;
        };
        match changes.get(&path) {
            None => drop(changes.insert(path, 'D')),
            Some('D') => {}
            Some(_) if below == Below::Directory => {
                delete_hidden(driver, parent, &path, changes)?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Shows what ps(1) says of the processes in the container's groups.
fn top(records: &Records, container: &str, options: &[String]) -> Result<()> {
    let record = records.find(container)?;
    let pids: Vec<String> = group(&record)?
        .processes()?
        .iter()
        .map(ToString::to_string)
        .collect();
    let default = ["-ef".to_owned()];
    let options = match options.is_empty() {
        true => &default[..],
        false => options,
    };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context("execute ps: apt install procps")?;
    if !output.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = head
        .iter()
        .position(|name| name == "PID")
        .context("ps shows no column PID: choose other options")?;
    let mut rows = vec![head.clone()];
    for line in lines {
        let mut rest = line.trim_start();
        let mut cells = Vec::new();
        while cells.len() + 1 < head.len() && !rest.is_empty() {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            cells.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
        cells.push(rest.trim_end().to_owned());
        if cells.get(column).is_some_and(|pid| pids.contains(pid)) {
            rows.push(cells);
        }
    }
    kit::out!("{}", table_of(&rows, 20))?;
    Ok(())
}
