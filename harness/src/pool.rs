//! Work for machines that is done while more of it is built.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Result, anyhow};

/// Does `work` with each thing that `build` hands on, by as many workers at once
/// as are asked for. `build` hands on by calling what it is given, which answers
/// whether anybody is left to take it.
///
/// # Errors
/// Those of `build` and of `work`. A worker that fails takes nothing more.
pub fn feed<T: Send>(
    workers: usize,
    work: impl Fn(T) -> Result<()> + Sync,
    build: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let (to_workers, things) = channel::<T>();
        // Gone with the last worker.
        let things = Arc::new(Mutex::new(things));
        let running: Vec<_> = (0..workers)
            .map(|_| {
                let (things, work) = (Arc::clone(&things), &work);
                scope.spawn(move || until_none_is_left(&things, work))
            })
            .collect();
        drop(things);
        build(&mut |thing| to_workers.send(thing).is_ok())?;
        drop(to_workers);
        running
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn until_none_is_left<T>(
    things: &Mutex<Receiver<T>>,
    work: &impl Fn(T) -> Result<()>,
) -> Result<()> {
    loop {
        let next = things
            .lock()
            .map_err(|_| anyhow!("a thread panicked"))?
            .recv();
        let Ok(thing) = next else { return Ok(()) };
        work(thing)?;
    }
}
