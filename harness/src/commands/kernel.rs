//! `harness kernel`: makes sure that a kernel is in the cache before its first
//! use.

use std::process::ExitCode;

use anyhow::Result;

use vm::Kernel;

/// Arguments of `harness kernel`.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel: `distribution`, a version such as 6.12, `host`, or a file
    #[arg(default_value_t)]
    kernel: Kernel,
}

/// Fetches the kernel and prints its paths.
pub fn kernel(args: Args) -> Result<ExitCode> {
    let image = args.kernel.image()?;
    println!("{} ({})", image.name, image.release);
    println!("  kernel   {}", image.file.display());
    match image.modules {
        Some(dir) => println!("  modules  {}", dir.display()),
        None => println!("  modules  none"),
    }
    Ok(ExitCode::SUCCESS)
}
