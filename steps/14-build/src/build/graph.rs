//! The graph of stages: which are needed, and which may run at the same time.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Error, Result};

use crate::build::image::Image;
use crate::build::run;
use crate::build::shared::Build;
use crate::build::stage::Stage;
use crate::dockerfile::instruction::What;

impl Build<'_> {
    /// The stage that is asked for: the last one, unless the options name another.
    fn target(&self) -> Result<usize> {
        let last = self.dockerfile.stages.len();
        let Some(target) = &self.options.target else {
            return last.checked_sub(1).context("the Dockerfile has no stage");
        };
        self.stage_of_copy(target, last)
            .with_context(|| format!("target stage {target:?} could not be found"))
    }

    /// The stages that the stage `target` needs, itself included.
    // ANCHOR: needed
    pub fn needed(&self, target: usize) -> Result<BTreeSet<usize>> {
        // ANCHOR: exercise_needed
        let mut needed = BTreeSet::new();
        let mut wanted = vec![target];
        while let Some(number) = wanted.pop() {
            if !needed.insert(number) {
                continue;
            }
            let stage = &self.dockerfile.stages[number];
            let from = self.arguments.word(&stage.from)?;
            wanted.extend(self.stage(&from, number));
            for instruction in &stage.instructions {
                match &instruction.what {
                    What::Copy(copy) | What::Add(copy) => {
                        let from = copy.from.as_deref();
                        wanted.extend(from.and_then(|from| self.stage_of_copy(from, number)));
                    }
                    What::Run(run) => {
                        for from in run::sources(run) {
                            wanted.extend(self.stage_of_copy(&from, number));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(needed)
        // ANCHOR_END: exercise_needed
    }
    // ANCHOR_END: needed

    /// Builds the stages that are wanted, side by side where one does not need
    /// another, and returns the image of the last one.
    // ANCHOR: side_by_side
    pub fn run(&self) -> Result<Image> {
        let target = self.target()?;
        let needed = self.needed(target)?;
        let several = needed.len() > 1;
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        thread::scope(|scope| {
            for number in needed {
                let failed = &failed;
                scope.spawn(move || {
                    let built = Stage::new(self, number, several).and_then(Stage::fold);
                    let built = built.map_err(|error| {
                        // The first error is the cause. The others are broken off
                        // because of it.
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                        self.workers.cancel();
                    });
                    self.built(number, built);
                });
            }
        });
        if let Some(remembered) = &self.remembered
            && let Err(error) = remembered.write()
        {
            // The next build takes the digests again.
            kit::say!("{error:#}");
        }
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        self.image_of(target)
    }
    // ANCHOR_END: side_by_side
}
