//! The names that a container can resolve: those of the running containers on
//! its networks. They are in the records, which are read again when one of them
//! has changed.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use engine::cli::places::Places;
use engine::container::{Record, Records};
use kit::ProcessIdentity;
use net::NetworkMode;

use crate::network::attached::Attachments;
use crate::network::store::Networks;

/// How long after a change of the directory another one may have the same time.
const COARSE: Duration = Duration::from_millis(50);

/// An address of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owned {
    address: Ipv4Addr,
    /// With which it ends.
    launcher: ProcessIdentity,
}

/// The names of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    addresses: BTreeMap<String, Vec<Owned>>,
    pointers: BTreeMap<Ipv4Addr, String>,
    /// Whether questions about other names leave the container.
    pub(super) leads_out: bool,
}

impl Table {
    /// The addresses of a name; `None` for one that no container has.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let owned = self.addresses.get(name)?.iter();
        let living = owned.filter(|one| one.launcher.is_alive());
        let found: Vec<Ipv4Addr> = living.map(|one| one.address).collect();
        (!found.is_empty()).then_some(found)
    }

    /// The name of an address, with that of its network.
    pub(super) fn name(&self, address: Ipv4Addr) -> Option<&str> {
        self.pointers.get(&address).map(String::as_str)
    }

    /// Adds a container on a network.
    // ANCHOR: add
    fn add(&mut self, record: &Record, network: &str, aliases: &[String], address: Ipv4Addr) {
        let own = [record.spec.name.as_str(), record.short_id()];
        let names = own.into_iter().chain(aliases.iter().map(String::as_str));
        for name in names {
            for name in [name.to_owned(), format!("{name}.{network}")] {
                let owned = Owned {
                    address,
                    launcher: record.launcher,
                };
                let all = self.addresses.entry(name.to_ascii_lowercase()).or_default();
                if !all.contains(&owned) {
                    all.push(owned);
                }
            }
        }
        let pointer = format!("{}.{network}", record.spec.name);
        self.pointers.insert(address, pointer);
    }
    // ANCHOR_END: add
}

/// The source of the names that one container can resolve.
#[derive(Debug)]
pub(super) struct Names {
    places: Places,
    /// The container's id.
    id: String,
    table: Table,
    /// The time of the directory's last change when it was read; `None` if it
    /// must be read again in any case.
    read: Option<SystemTime>,
}

impl Names {
    pub(super) fn new(places: &Places, id: &str) -> Self {
        Names {
            places: places.clone(),
            id: id.to_owned(),
            table: Table::default(),
            read: None,
        }
    }

    /// Names that never change.
    #[cfg(test)]
    pub(super) fn fixed(names: &[(&str, Ipv4Addr)], leads_out: bool) -> Self {
        // A directory whose records nobody changes.
        let places = Places {
            root: "/".into(),
            state: "/proc/self/ns".into(),
        };
        let mut fixed = Names::new(&places, "");
        let metadata = fs::metadata(&places.state);
        fixed.read = metadata.and_then(|metadata| metadata.modified()).ok();
        fixed.table.leads_out = leads_out;
        for (name, address) in names {
            if let Ok(launcher) = ProcessIdentity::current() {
                let address = *address;
                let owned = Owned { address, launcher };
                fixed
                    .table
                    .addresses
                    .insert((*name).to_owned(), vec![owned]);
            }
        }
        fixed
    }

    /// The names of this moment. If they cannot be read, those of the last.
    pub(super) fn now(&mut self) -> &Table {
        if let Err(error) = self.refresh() {
            kit::say!("names: {error:#}");
        }
        &self.table
    }

    // ANCHOR: refresh
    fn refresh(&mut self) -> Result<()> {
        // Every change of a record is a rename(2) in this directory.
        let directory = fs::metadata(&self.places.state).context("stat the records")?;
        let changed = directory.modified().context("stat the records")?;
        if self.read == Some(changed) {
            return Ok(());
        }
        // Before the records are read: a change from now on is noticed, unless
        // it is so soon that it has the same time.
        let age = SystemTime::now().duration_since(changed);
        let settled = age.is_ok_and(|age| age > COARSE);
        self.table = self.compose()?;
        self.read = settled.then_some(changed);
        Ok(())
    }
    // ANCHOR_END: refresh

    fn compose(&self) -> Result<Table> {
        let all = Records::new(&self.places).all()?;
        let own = all.iter().find(|record| record.spec.id == self.id);
        let own = own.context("the container has no record")?;
        let networks = Networks::new(&self.places.root);
        let mut table = Table {
            leads_out: own.spec.net.mode() == NetworkMode::Bridge,
            ..Table::default()
        };
        let running: Vec<(&Record, Attachments)> = all
            .iter()
            .filter(|record| record.is_running())
            .filter_map(|record| Some((record, Attachments::of(record).ok()?)))
            .collect();
        for attachment in Attachments::of(own)?.networks {
            let network = networks.read(&attachment.id)?;
            table.leads_out |= network.is_some_and(|network| !network.internal);
            for (record, theirs) in &running {
                let there = theirs.networks.iter().find(|one| one.id == attachment.id);
                if let Some(one) = there
                    && let Some(address) = one.address
                {
                    table.add(record, &one.name, &one.aliases, address);
                }
            }
        }
        Ok(table)
    }
}
