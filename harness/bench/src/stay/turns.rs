//! The engines take turns, and each has a row in every table.

use anyhow::Result;

use crate::keepers::{self, Absent, KEEPERS, Keeper};
use crate::session::Session;
use crate::table::Table;

/// How much is measured.
pub(super) struct Extent {
    /// The rounds of short commands.
    pub(super) rounds: u32,
    /// The rounds of the log.
    pub(super) logs: u32,
    /// The bytes of a log that is read.
    pub(super) log: u64,
    /// The bytes that pass through a log that is kept short.
    pub(super) long: u64,
    /// The numbers of containers at once, of drydock and of the others, each of
    /// which takes a second to start and stop, and whose clients are large.
    pub(super) many: [usize; 2],
}

impl Extent {
    pub(super) fn of(runs: u32) -> Extent {
        match runs {
            ..10 => Extent {
                rounds: runs,
                logs: 1,
                log: 2_000_000,
                long: 20_000_000,
                many: [5, 3],
            },
            _ => Extent {
                rounds: (runs / 3).clamp(4, 20),
                logs: (runs / 20).clamp(1, 3),
                log: 100_000_000,
                long: 1_000_000_000,
                many: [300, 20],
            },
        }
    }
}

/// Who takes turns, and how often.
pub(super) struct Turns<'a> {
    pub(super) session: &'a Session,
    pub(super) extent: Extent,
    pub(super) keepers: Vec<Keeper>,
    pub(super) absent: Vec<Absent>,
}

impl<'a> Turns<'a> {
    /// Prepares the engines that are here.
    pub(super) fn of(session: &'a Session) -> Result<Turns<'a>> {
        let (keepers, absent) = keepers::all(session)?;
        Ok(Turns {
            session,
            extent: Extent::of(session.runs),
            keepers,
            absent,
        })
    }
}

/// The rows of a table, one for each engine: the cells of those that have been
/// measured, the reason of the others in the last column.
pub(super) fn rows(table: &mut Table, results: &[(&str, Result<Vec<String>>)], absent: &[Absent]) {
    for name in KEEPERS {
        if let Some((_, why)) = absent.iter().find(|(other, _)| *other == name) {
            refused(table, name, why);
        }
        for (_, result) in results.iter().filter(|(other, _)| *other == name) {
            match result {
                Ok(cells) => {
                    let cells = cells.iter().map(String::as_str);
                    table.row(&[name].into_iter().chain(cells).collect::<Vec<_>>());
                }
                Err(error) => refused(table, name, &format!("{error:#}")),
            }
        }
    }
}

fn refused(table: &mut Table, name: &str, why: &str) {
    let mut row = vec![""; table.columns.len()];
    row[..2].copy_from_slice(&[name, "–"]);
    if let Some(last) = row.last_mut() {
        *last = why;
    }
    table.row(&row);
}

/// Runs `work` for each engine, in odd rounds the last first. An interrupt ends
/// the bench, another error the work of that engine, whose containers are
/// removed.
pub(super) fn each<'a, T>(
    session: &Session,
    keepers: &'a [Keeper],
    round: u32,
    work: impl Fn(&Keeper) -> Result<T>,
) -> Result<Vec<(&'a Keeper, Result<T>)>> {
    let mut all = Vec::new();
    for at in turn(round, keepers.len()) {
        let keeper = &keepers[at];
        session.scratch.stop.check()?;
        let done = work(keeper);
        session.scratch.stop.check()?;
        if done.is_err() {
            keeper.remove_all()?;
        }
        all.push((at, (keeper, done)));
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, done)| done).collect())
}

/// The order of a round: forth, or back in odd ones.
pub(super) fn turn(round: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_a_row_or_a_reason() {
        let mut table = Table::new("", &["", "ms", "x", ""]);
        let cells = vec!["1.0".to_owned(), "2".to_owned()];
        let results = [
            ("docker", Err(anyhow::anyhow!("b").context("a"))),
            ("drydock", Ok(cells)),
        ];
        rows(&mut table, &results, &[("podman", "missing".to_owned())]);
        assert_eq!(table.rows[0], ["drydock", "1.0", "2", ""]);
        assert_eq!(table.rows[1], ["podman", "–", "", "missing"]);
        assert_eq!(table.rows[2], ["docker", "–", "", "a: b"]);
    }

    #[test]
    fn few_runs_are_a_small_bench() {
        let (small, whole) = (Extent::of(3), Extent::of(60));
        assert!(small.many < whole.many && small.long < whole.long);
        assert_eq!((whole.log, whole.long), (100_000_000, 1_000_000_000));
        assert_eq!(Extent::of(10).rounds, 4);
    }
}
