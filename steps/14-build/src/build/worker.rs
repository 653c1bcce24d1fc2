//! A worker: the process that makes one container for a build.
//!
//! It has no threads of its own before the container is born. When its caller
//! goes away it kills the container and cleans up, so a build that was killed
//! leaves nothing.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use engine::cli::places::Places;
use engine::image::Images;
use engine::list::{Here, list};
use process::{Exit, Failure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use union::Harvest;

use crate::build::ask::caller;
use crate::build::files;
use crate::build::image::Made;
use crate::build::layer;
use crate::build::mounts;
use crate::build::order::{Answer, Keep, Order, Work};
use crate::copy;

/// Carries out the order on standard input.
pub fn main(places: &Places) -> Result<Exit> {
    let socket = caller()?;
    let mut line = Vec::new();
    BufReader::new(&socket)
        .read_until(b'\n', &mut line)
        .context("read the order")?;
    let order: Order = serde_json::from_slice(&line).context("the order")?;
    let answer = match work(places, order, &socket) {
        Ok(answer) => answer,
        Err(error) => Answer::Failed(error.chain().map(ToString::to_string).collect()),
    };
    let mut json = serde_json::to_vec(&answer).context("write JSON")?;
    json.push(b'\n');
    if let Err(error) = (&socket).write_all(&json) {
        // The build was broken off: nobody waits for an answer.
        kit::say!("write the answer: {error}");
    }
    Ok(Exit::Code(0))
}

/// A place for the layer that was harvested.
type Place = Rc<RefCell<Option<Made>>>;

fn work(places: &Places, order: Order, socket: &UnixStream) -> Result<Answer> {
    let images = Images::open(&places.root)?;
    let Order {
        mut spec,
        work,
        mut keep,
        caches,
        secrets,
    } = order;
    let _held = mounts::take(places, &caches, &mut spec, socket)?;
    let made = Place::default();
    let harvest = |keep: Keep| {
        let (made, images) = (Rc::clone(&made), images.clone());
        Harvest::new(move |driver, container| {
            made.replace(Some(layer::keep(&images, &keep, driver, container)?));
            Ok(())
        })
    };
    let ended = match work {
        Work::Run => {
            let here = Here {
                places,
                cidfile: None,
                record: None,
                ends: None,
                harvest: Some(harvest(keep)),
                secrets: (secrets.files, secrets.variables),
            };
            let (container, ending) = list(spec, here)?;
            let running = container.create().and_then(|created| created.start());
            let run = running.and_then(|running| {
                let socket = socket.try_clone().context("dup")?;
                running.wait_beside(Box::new(move |fd| until_told(fd, &socket)))
            });
            ending.note(run)
        }
        Work::Directory => files::directory(places, &spec, harvest(keep)),
        Work::Copy(job) => {
            return copy::run(places, &spec, &job, |driver, container, copied| {
                if copied.changed {
                    // It is not what its key says.
                    keep.record = None;
                }
                Ok(Answer::Made {
                    made: layer::keep(&images, &keep, driver, container)?,
                    lost: copied.lost,
                })
            });
        }
        Work::Look(job) => return Ok(Answer::Found(job.sources(places, &spec, None)?)),
    };
    match ended {
        Ok(exit) if exit != Exit::Code(0) => Ok(Answer::Ended(exit.status())),
        Ok(_) => match made.take() {
            Some(made) => Ok(Answer::Made { made, lost: false }),
            None => bail!("the layer was not kept"),
        },
        // What cannot be executed is the Dockerfile's mistake.
        Err(error) if matches!(Failure::status_of(&error), 126 | 127) => {
            kit::errln!("{error:#}");
            Ok(Answer::Ended(Failure::status_of(&error)))
        }
        Err(error) => Err(error),
    }
}

/// Waits for a signal to this process, or the end of the caller.
///
/// # Errors
/// If the caller is gone: the container ends.
// ANCHOR: until_told
fn until_told(signals: BorrowedFd<'_>, socket: &UnixStream) -> Result<()> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("poll"),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        if !fds[1].revents().is_empty() {
            bail!("the build was broken off");
        }
    }
}
// ANCHOR_END: until_told
