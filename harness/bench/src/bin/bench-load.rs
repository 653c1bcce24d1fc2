//! `bench-load`: work with a measurable speed, for `just bench` and `just
//! claims`. It runs outside, in a container and in a virtual machine, and
//! prints one figure per line: name, value, unit.
//!
//! It measures itself, so that the start of its surroundings does not count.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::resource::{UsageWho, getrusage};

/// Work whose speed can be told
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Solve a dense system of linear equations, as LINPACK does
    Lu {
        /// Number of equations
        #[arg(long, default_value_t = 600)]
        size: usize,
        /// How many are solved at the same time
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// For how long, in milliseconds
        #[arg(long, default_value_t = 300)]
        millis: u64,
    },
    /// Compute a = b + s·c on arrays larger than any cache, as STREAM does
    Triad {
        /// Size of the three arrays together, in MiB, for each thread
        #[arg(long, default_value_t = 192)]
        mib: usize,
        /// How many do it at the same time
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// For how long, in milliseconds
        #[arg(long, default_value_t = 300)]
        millis: u64,
    },
    /// Write and read a large file, and make many small ones
    Files {
        /// Where
        dir: PathBuf,
        /// Size of the large file, in MiB
        #[arg(long, default_value_t = 64)]
        mib: usize,
        /// Number of small files
        #[arg(long, default_value_t = 500)]
        count: usize,
    },
    /// Run a command, and print the largest resident memory of it or its children
    Peak {
        /// The command. What it prints is dropped
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Args::parse().work {
        Work::Lu {
            size,
            threads,
            millis,
        } => {
            let flops = 2.0 / 3.0 * (size as f64).powi(3);
            let each = at_once(threads, millis, || Lu::new(size), Lu::solve)?;
            println!("lu {} Gflop/s", each * flops / 1e9);
        }
        Work::Triad {
            mib,
            threads,
            millis,
        } => {
            let numbers = mib * (1 << 20) / 3 / size_of::<f64>();
            let bytes = (numbers * 3 * size_of::<f64>()) as f64;
            let each = at_once(threads, millis, || Triad::new(numbers), Triad::compute)?;
            println!("triad {} GB/s", each * bytes / 1e9);
        }
        Work::Files { dir, mib, count } => files(&dir, mib, count)?,
        Work::Peak { command } => println!("peak {} KiB", peak(&command)?),
    }
    Ok(())
}

/// Runs a command, and returns the largest resident memory of it or of its
/// children, in KiB. That is never less than this program's own, which the child
/// has until execve(2).
fn peak(command: &[String]) -> Result<i64> {
    let (program, args) = command.split_first().context("no command")?;
    let mut child = Command::new(program);
    child.args(args).stdout(Stdio::null());
    let status = child.status().with_context(|| format!("run {program}"))?;
    if !status.success() {
        bail!("{program}: {status}");
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    Ok(usage.max_rss())
}

/// How often per second all threads together do the work, after each has done
/// it once.
fn at_once<T>(
    threads: usize,
    millis: u64,
    make: impl Fn() -> T + Sync,
    work: impl Fn(&mut T) + Sync,
) -> Result<f64> {
    let limit = Duration::from_millis(millis);
    let barrier = std::sync::Barrier::new(threads);
    let one = || {
        let mut on = make();
        work(&mut on);
        barrier.wait();
        let begun = Instant::now();
        let mut times = 0;
        while times == 0 || begun.elapsed() < limit {
            work(&mut on);
            times += 1;
        }
        f64::from(times) / begun.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let mut sum = 0.0;
        for thread in all {
            match thread.join() {
                Ok(rate) => sum += rate,
                Err(_) => bail!("a thread died"),
            }
        }
        Ok(sum)
    })
}

/// A system of linear equations, and the copy that is solved.
struct Lu {
    size: usize,
    matrix: Vec<f64>,
    copy: Vec<f64>,
}

impl Lu {
    fn new(size: usize) -> Lu {
        // Any numbers; a large diagonal keeps them from growing.
        let mut seed = 1_u64;
        let mut matrix: Vec<f64> = (0..size * size)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 40) as f64 / f64::from(1 << 24)
            })
            .collect();
        for i in 0..size {
            matrix[i * size + i] += size as f64;
        }
        Lu {
            size,
            copy: matrix.clone(),
            matrix,
        }
    }

    /// Gaussian elimination with partial pivoting, row by row.
    fn solve(&mut self) {
        let n = self.size;
        let a = &mut self.copy;
        a.copy_from_slice(&self.matrix);
        for k in 0..n {
            let pivot = (k..n)
                .max_by(|&i, &j| a[i * n + k].abs().total_cmp(&a[j * n + k].abs()))
                .unwrap_or(k);
            if pivot != k {
                for j in 0..n {
                    a.swap(k * n + j, pivot * n + j);
                }
            }
            let (above, below) = a.split_at_mut((k + 1) * n);
            let row = &above[k * n + k..];
            for line in below.chunks_exact_mut(n) {
                let factor = line[k] / row[0];
                line[k] = factor;
                for (x, y) in line[k + 1..].iter_mut().zip(&row[1..]) {
                    *x -= factor * y;
                }
            }
        }
        black_box(a);
    }
}

/// The three arrays of STREAM's triad.
struct Triad {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
}

impl Triad {
    fn new(numbers: usize) -> Triad {
        Triad {
            a: vec![0.0; numbers],
            b: vec![1.0; numbers],
            c: vec![2.0; numbers],
        }
    }

    fn compute(&mut self) {
        let scale = black_box(3.0);
        for ((a, b), c) in self.a.iter_mut().zip(&self.b).zip(&self.c) {
            *a = b + scale * c;
        }
        black_box(&mut self.a);
    }
}

fn files(dir: &Path, mib: usize, count: usize) -> Result<()> {
    // The small files first: the large file keeps the disk's journal busy
    // afterwards.
    let small = dir.join("bench-small");
    fs::create_dir(&small).with_context(|| format!("mkdir {}", small.display()))?;
    let begun = Instant::now();
    for number in 0..count {
        let file = small.join(number.to_string());
        fs::write(&file, b"small").with_context(|| format!("write {}", file.display()))?;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    println!("create {} files/s", count as f64 / elapsed);
    fs::remove_dir_all(&small).context("remove the small files")?;
    let block = vec![0x5a_u8; 1 << 20];
    let large = dir.join("bench-large");
    let begun = Instant::now();
    let mut file = File::create(&large).with_context(|| format!("create {}", large.display()))?;
    for _ in 0..mib {
        file.write_all(&block).context("write")?;
    }
    file.sync_all().context("fsync")?;
    drop(file);
    let rate = |begun: Instant| mib as f64 * 1.048_576 / begun.elapsed().as_secs_f64();
    println!("write {} MB/s", rate(begun));
    let mut file = File::open(&large).with_context(|| format!("open {}", large.display()))?;
    let mut buffer = vec![0; 1 << 20];
    let begun = Instant::now();
    while file.read(&mut buffer).context("read")? > 0 {
        black_box(&buffer);
    }
    println!("read {} MB/s", rate(begun));
    drop(file);
    fs::remove_file(&large).context("unlink")
}
