//! An image in the store of another driver: its layers are written there from
//! the driver that has them, so that nobody has to keep the archives.

use std::io::{BufReader, BufWriter, Seek, Write};

use anyhow::{Context, Result, bail};
use kit::say;
use union::Kind;
use union::detect::{self, has_layer};

use crate::image::Images;
use crate::image::record::Record;

impl Images {
    /// Makes the layers of an image in the store of `kind`, from those of other
    /// drivers.
    pub(super) fn copy_from_elsewhere(&self, record: &Record, kind: Kind) -> Result<()> {
        let lock = self.changing(kind)?;
        let to = detect::open(kind, &self.root)?;
        let mut below = None;
        for layer in &record.layers {
            let id = layer.chain.layer_id()?;
            if !has_layer(&self.root, kind, &id) {
                let Some(other) = Kind::ALL
                    .into_iter()
                    .find(|other| has_layer(&self.root, *other, &id))
                else {
                    bail!(
                        "layer {id} of the image is gone: load it once more, after drydock rmi {}",
                        record.id.hex()
                    );
                };
                say!("layer {id}: from {other} to {kind}");
                // The whole archive before any of it is used: half an archive
                // may look like one.
                let mut file = self.spool(&lock)?;
                let mut writer = BufWriter::new(&file);
                detect::open(other, &self.root)?.diff(&id, &mut writer)?;
                writer.flush().context("write a layer")?;
                drop(writer);
                file.rewind().context("lseek")?;
                to.import(&id, below.as_ref(), &mut BufReader::new(file))?;
            }
            below = Some(id);
        }
        Ok(())
    }
}
