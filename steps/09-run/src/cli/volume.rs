//! `drydock volume`.

use anyhow::{Result, bail};
use clap::Subcommand;
use process::Exit;

use crate::cli::places::Places;
use crate::container::Records;
use crate::volume::Volumes;

/// The commands about volumes.
#[derive(Subcommand, Clone, Debug)]
pub enum VolumeTool {
    /// Create a volume, unless it exists, and print its name
    Create {
        /// Name of the volume [default: random]
        name: Option<String>,
    },
    /// List volumes
    Ls {
        /// Only display volume names
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove one or more volumes that no container uses
    Rm {
        /// Names of volumes
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Display detailed information on one or more volumes, as JSON
    Inspect {
        /// Names of volumes
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Runs one of the commands.
///
/// # Errors
/// Names the volume that does not exist, or the container that uses it.
pub fn run(places: &Places, tool: VolumeTool) -> Result<Exit> {
    let volumes = Volumes::new(&places.root);
    match tool {
        VolumeTool::Create { name } => kit::outln!("{}", volumes.create(name.as_deref())?)?,
        VolumeTool::Ls { quiet } => {
            if !quiet {
                kit::outln!("{:<64}  {:<9}  CREATED", "NAME", "KIND")?;
            }
            for volume in volumes.all()? {
                match quiet {
                    true => kit::outln!("{}", volume.name)?,
                    false => kit::outln!(
                        "{:<64}  {:<9}  {}",
                        volume.name,
                        if volume.anonymous {
                            "anonymous"
                        } else {
                            "named"
                        },
                        volume.created_at
                    )?,
                }
            }
        }
        VolumeTool::Rm { names } => {
            let records = Records::new(places);
            records.sweep()?;
            let all = records.all()?;
            for name in names {
                volumes.get(&name)?;
                let user = all
                    .iter()
                    .find(|record| record.spec.volumes().any(|volume| volume.name == name));
                if let Some(user) = user {
                    bail!(
                        "the volume {name:?} is used by the container {}: remove the container \
                         first",
                        user.spec.name
                    );
                }
                if !volumes.remove(&name)? {
                    bail!("the volume {name:?} is held by a container that starts or ends");
                }
                kit::outln!("{name}")?;
            }
        }
        VolumeTool::Inspect { names } => {
            let found = names
                .iter()
                .map(|name| volumes.get(name))
                .collect::<Result<Vec<_>>>()?;
            kit::outln!("{}", serde_json::to_string_pretty(&found)?)?;
        }
    }
    Ok(Exit::Code(0))
}
