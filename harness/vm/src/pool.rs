//! A pool of workers that take items while more are being built.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Result, anyhow};

/// Does `work` with each item that `build` hands on, in `workers` threads.
/// `build` hands an item on by calling its argument, which returns whether a
/// worker is left to take it. A worker that fails takes no more items.
pub fn feed<T: Send>(
    workers: usize,
    work: impl Fn(T) -> Result<()> + Sync,
    build: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let (to_workers, things) = channel::<T>();
        // Dropped with the last worker.
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
