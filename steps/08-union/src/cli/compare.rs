//! `step-08 compare`: what the drivers cost, measured on this machine.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write, stdout};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::StoreArgs;
use crate::detect;
use crate::driver::{Access, StorageDriver};
use crate::kind::Kind;
use crate::layers::id::LayerId;
use crate::layers::image::import_directory;
use crate::mounts::private;
use crate::tree::remove::remove;

/// What to measure with.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Size of the large file, in MB (10^6 bytes)
    #[arg(long, value_name = "MB", default_value_t = 100)]
    pub size: u64,

    /// Number of containers
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub containers: u32,

    #[command(flatten)]
    store: StoreArgs,
}

/// The measurements of one driver.
#[derive(Debug)]
struct Figures {
    create: Duration,
    first_write: Duration,
    copied: u64,
    containers: u64,
    throughput: f64,
}

/// Prints the table, one line per driver; a driver that does not work here is
/// listed with the reason. Works in a temporary directory below the state
/// directory.
pub fn run(args: CompareArgs) -> Result<()> {
    kit::set_verbose(args.store.verbose);
    let root = args.store.root()?;
    let work = root
        .join("run")
        .join(format!("compare-{}", std::process::id()));
    kit::own::make(&work, 0o700)?;
    private::enter()?;
    let printed = table(&args, &work);
    let removed = remove(&work);
    printed.and(removed)
}

fn table(args: &CompareArgs, work: &Path) -> Result<()> {
    let image = work.join("image");
    kit::own::make(&image, 0o755)?;
    let big = image.join("big");
    fill(&big, args.size * 1_000_000)?;
    let plain = throughput(&big)?;
    let mut out = stdout().lock();
    let containers = format!("space, {} more", args.containers);
    writeln!(
        out,
        "{:<13} {:>9} {:>12} {:>12} {containers:>14} {:>10} {:>9}",
        "driver", "create", "first write", "copied", "read", "of plain"
    )
    .context("write")?;
    for kind in Kind::ALL {
        if args.store.driver.is_some_and(|only| only != kind) {
            continue;
        }
        let name = kind.as_str();
        let state = work.join(name);
        if let Some(reason) = detect::unsupported(kind, &state)? {
            writeln!(out, "{name:<13} unsupported: {reason}").context("write")?;
            continue;
        }
        let driver = detect::open(kind, &state)?;
        let f = measure(&*driver, &image, args).with_context(|| kind.to_string())?;
        writeln!(
            out,
            "{name:<13} {:>6.1} ms {:>9.1} ms {:>9.3} MB {:>11.3} MB {:>5.0} MB/s {:>7.0} %",
            f.create.as_secs_f64() * 1e3,
            f.first_write.as_secs_f64() * 1e3,
            f.copied as f64 / 1e6,
            f.containers as f64 / 1e6,
            f.throughput / 1e6,
            100.0 * f.throughput / plain
        )
        .context("write")?;
        out.flush().context("write")?;
        drop(driver);
        remove(&state)?;
    }
    writeln!(
        out,
        "create: a container's layers and its mount. first write: 1 byte into a file of {} MB; \
         copied: what the disk then holds more. read: that file again, from the cache; the plain \
         directory gives {:.0} MB/s",
        args.size,
        plain / 1e6
    )
    .context("write")
}

fn measure(driver: &dyn StorageDriver, image: &Path, args: &CompareArgs) -> Result<Figures> {
    let base: LayerId = "image".parse()?;
    import_directory(driver, &base, None, image)?;
    let id: LayerId = "c0".parse()?;

    let start = Instant::now();
    let mounted = container(driver, &id, &base)?;
    let create = start.elapsed();

    let big = mounted.path().join("big");
    // The first reading fills the cache, as it did for the plain file.
    throughput(&big)?;
    let throughput = throughput(&big)?;

    let before = driver.space()?;
    let start = Instant::now();
    write_byte(&big)?;
    let first_write = start.elapsed();
    mounted.sync()?;
    let copied = driver.space()?.saturating_sub(before);

    let before = driver.space()?;
    let mut more = Vec::new();
    for n in 1..=args.containers {
        let id: LayerId = format!("c{n}").parse()?;
        more.push(container(driver, &id, &base)?);
    }
    let containers = driver.space()?.saturating_sub(before);
    drop(more);
    Ok(Figures {
        create,
        first_write,
        copied,
        containers,
        throughput,
    })
}

/// A container's view, mounted as long as this value lives.
struct Mounted {
    root: std::os::fd::OwnedFd,
    _view: Box<dyn crate::driver::View>,
}

impl Mounted {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }

    fn sync(&self) -> Result<()> {
        let root = File::open(self.path()).context("open the view")?;
        rustix::fs::syncfs(root).context("syncfs")
    }
}

fn container(driver: &dyn StorageDriver, id: &LayerId, base: &LayerId) -> Result<Mounted> {
    let init = id.init()?;
    driver.create(&init, Some(base))?;
    driver.create(id, Some(&init))?;
    let mut view = driver.view(id, Access::ReadWrite)?;
    Ok(Mounted {
        root: view.detached()?,
        _view: view,
    })
}

fn fill(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("open({path:?}, O_CREAT)"))?;
    // Incompressible and without holes, so that no file system can store it in
    // less space.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left = bytes;
    while left > 0 {
        let mut block = Vec::with_capacity(1 << 20);
        while block.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_ne_bytes());
        }
        let now = left.min(block.len() as u64) as usize;
        file.write_all(&block[..now])
            .with_context(|| format!("write {path:?}"))?;
        left -= now as u64;
    }
    file.sync_all().with_context(|| format!("fsync({path:?})"))
}

fn write_byte(path: &Path) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| format!("open({path:?}, O_WRONLY)"))?;
    file.seek(SeekFrom::Start(4096)).context("lseek")?;
    file.write_all(b"x").context("write")?;
    file.sync_all().context("fsync")
}

/// Reads a file to its end, and returns the throughput in bytes per second.
fn throughput(path: &Path) -> Result<f64> {
    let mut file = File::open(path).with_context(|| format!("open({path:?})"))?;
    let mut buffer = vec![0; 1 << 20];
    let start = Instant::now();
    let mut bytes = 0;
    loop {
        match file
            .read(&mut buffer)
            .with_context(|| format!("read {path:?}"))?
        {
            0 => break,
            n => bytes += n,
        }
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}
