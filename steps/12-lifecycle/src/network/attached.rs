//! The networks of a container. Its record says to which it is connected; the
//! addresses there are noted at each start.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use engine::cli::places::Places;
use engine::container::{Record, Records};
use engine::spec::Spec;
use ipnet::Ipv4Net;
use kit::ProcessIdentity;
use kit::lock::Turn;
use net::{Joining, NetworkMode, Publish, RESOLVER, plugs};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::exec::hostname;
use crate::network::store::{Network, Networks};

/// The record's field for [`Attachments`].
const FIELD: &str = "networks";

/// The networks of a container besides the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachments {
    /// In the order in which they were joined.
    pub networks: Vec<Attachment>,
    /// The id of the container whose network it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The published ports of this run, if some are chosen at the start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Publish>,
}

/// A container's connection to a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// The network's id.
    pub id: String,
    /// And its name.
    pub name: String,
    /// Further names of the container there.
    pub aliases: Vec<String>,
    /// The address asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// The address of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
}

impl Attachment {
    /// A new connection to `network`.
    ///
    /// # Errors
    /// If the network gives no address that is asked for.
    pub fn new(network: &Network, aliases: Vec<String>, ip: Option<Ipv4Addr>) -> Result<Self> {
        let subnet = network.subnet.as_ref();
        if let Some(ip) = ip {
            let subnet = subnet.filter(|subnet| subnet.chosen).context(
                "user specified IP address is supported only when connecting to networks with \
                 user configured subnets",
            )?;
            ensure!(
                subnet.subnet.contains(&ip),
                "Invalid address {ip}: It does not belong to any of this network's subnets"
            );
        }
        for alias in &aliases {
            kit::name::check(alias).context("--network-alias")?;
        }
        Ok(Attachment {
            id: network.id.clone(),
            name: network.name.clone(),
            aliases,
            ip,
            address: None,
        })
    }
}

impl Attachments {
    /// Reads them from a record; none for one without.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn of(record: &Record) -> Result<Self> {
        match record.later.get(FIELD) {
            None => Ok(Attachments::default()),
            Some(value) => serde_json::from_value(value.clone())
                .with_context(|| format!("the record of {}: {FIELD}", record.spec.name)),
        }
    }

    /// Writes them into a record. One that never had any has no field for them.
    pub fn put(&self, record: &mut Record) -> Result<()> {
        if *self == Attachments::default() && !record.later.contains_key(FIELD) {
            return Ok(());
        }
        let value = serde_json::to_value(self).context("write JSON")?;
        record.later.insert(FIELD.to_owned(), value);
        Ok(())
    }

    /// The connection to a network.
    pub fn to(&self, network: &Network) -> Option<&Attachment> {
        self.networks.iter().find(|one| one.is_to(network))
    }
}

impl Attachment {
    /// Whether it is to this network: one that has been removed and made again
    /// has its name.
    fn is_to(&self, network: &Network) -> bool {
        self.id == network.id || self.name == network.name
    }

    /// The network, if it is there.
    ///
    /// # Errors
    /// If it has been removed.
    fn network(&self, networks: &Networks) -> Result<Network> {
        let found = match networks.read(&self.id)? {
            Some(network) => Some(network),
            None => {
                let mut all = networks.custom()?.into_iter();
                all.find(|network| network.name == self.name)
            }
        };
        found.with_context(|| format!("network {} not found", self.name))
    }
}

/// The published ports of a container: of this run, where they are known.
pub fn published(record: &Record) -> Vec<Publish> {
    let noted = Attachments::of(record).unwrap_or_default().ports;
    if record.is_running() && !noted.is_empty() {
        return noted;
    }
    let asked = record.spec.net.publish.iter();
    asked.filter(|port| !port.is_open()).copied().collect()
}

/// The names of a container's networks: `bridge`, `host`, `none`, or those of
/// `network create`.
pub fn names(record: &Record) -> Vec<String> {
    let attachments = Attachments::of(record).unwrap_or_default();
    let mode = record.spec.net.mode();
    let others = attachments.networks.into_iter().map(|one| one.name);
    let joins = record.later.contains_key(FIELD);
    let own = match &attachments.of {
        Some(id) => Some(format!("container:{id}")),
        None => (!joins || mode != NetworkMode::None).then(|| mode.to_string()),
    };
    own.into_iter().chain(others).collect()
}

/// A container's end of a network, as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The network's id.
    pub id: String,
    /// Its address, while it runs.
    pub address: Option<Ipv4Addr>,
    /// The subnet, while the network is there.
    pub subnet: Option<Ipv4Net>,
    /// The address of the bridge.
    pub gateway: Option<Ipv4Addr>,
    /// Further names of the container there, on a network that has names.
    pub aliases: Option<Vec<String>>,
}

/// The ends of a container by the names of its networks.
///
/// # Errors
/// If the record or a network is damaged.
pub fn ends(places: &Places, record: &Record) -> Result<BTreeMap<String, End>> {
    let networks = Networks::new(&places.root);
    let runs = record.is_running();
    let mut ends = BTreeMap::new();
    for name in names(record) {
        // Not that of a container, which is nothing by itself.
        let Some(network) = networks.all()?.into_iter().find(|one| one.name == name) else {
            ends.insert(name, End::default());
            continue;
        };
        let mut end = End {
            id: network.id.clone(),
            ..End::default()
        };
        if network.predefined {
            let is_bridge = runs && name == "bridge";
            let connected = match is_bridge {
                true => plugs::look(record.launcher)?,
                false => None,
            };
            end.address = connected.and_then(|connected| connected.default);
            if end.address.is_some() {
                end.subnet = plugs::default_subnet()?;
                end.gateway = end.subnet.and_then(|subnet| subnet.hosts().next());
            }
        } else {
            let attachments = Attachments::of(record)?;
            let attachment = attachments.to(&network);
            let aliases = attachment
                .map(|one| one.aliases.clone())
                .unwrap_or_default();
            let own = record.short_id().to_owned();
            end.aliases = Some(aliases.into_iter().chain([own]).collect());
            end.address = attachment.and_then(|one| one.address).filter(|_| runs);
            let subnet = network.subnet.filter(|_| end.address.is_some());
            end.gateway = subnet.as_ref().map(|subnet| subnet.gateway);
            end.subnet = subnet.map(|subnet| subnet.subnet);
        }
        ends.insert(name, end);
    }
    Ok(ends)
}

/// The network of a running container, to be shared.
///
/// # Errors
/// If it does not run.
pub fn of_container(record: &Record) -> Result<NetworkMode> {
    ensure!(
        record.is_running() && record.pid > 0,
        "cannot join network of a non running container: {}",
        record.spec.id
    );
    format!("container:{}", record.pid).parse()
}

/// Adds to the description of a container that is about to start the bridges of
/// its networks.
///
/// # Errors
/// If one of the networks has been removed.
pub fn resolve(places: &Places, record: &Record, spec: &mut Spec) -> Result<()> {
    let networks = Networks::new(&places.root);
    let attachments = Attachments::of(record)?;
    if let Some(id) = &attachments.of {
        let other = Records::new(places).read(id)?;
        let other = other.with_context(|| format!("No such container: {id}"))?;
        spec.net.network = Some(of_container(&other)?);
    }
    for one in attachments.networks {
        spec.net.joining.push(Joining {
            bridge: one.network(&networks)?.bridge()?,
            ip: one.ip,
        });
    }
    Ok(())
}

/// Notes in the record of a container that has just been created by this process
/// which addresses and ports it has got. Others find it by its names from then
/// on.
///
/// # Errors
/// If one of the networks has been removed meanwhile.
// ANCHOR: note
pub fn note(places: &Places, record: &Record) -> Result<()> {
    let mut attachments = Attachments::of(record)?;
    let open = record.spec.net.publish.iter().any(Publish::is_open);
    if attachments.networks.is_empty() && !open {
        return Ok(());
    }
    // Some other process may be removing one of them.
    let launcher = ProcessIdentity::current()?;
    let connected = plugs::look(launcher)?.context("the container has no network")?;
    {
        let networks = Networks::new(&places.root);
        // Who removes a network looks for containers on it. From here on, this
        // one is found.
        let _lock = networks.hold(Turn::Making)?;
        for one in &mut attachments.networks {
            one.id = one.network(&networks)?.id;
            let address = connected.addresses.get(&device(&one.id)).copied();
            ensure!(address.is_some(), "network {} not found", one.name);
            one.address = address;
        }
    }
    attachments.ports = match open {
        true => connected.ports,
        false => Vec::new(),
    };
    change(places, &record.spec.id, &mut |now| {
        now.clone_from(&attachments);
    })
}
// ANCHOR_END: note

/// The name of a network's bridge.
fn device(id: &str) -> String {
    format!("{}{}", net::PREFIX, id.get(..12).unwrap_or(id))
}

/// Changes the networks in a container's record.
fn change(places: &Places, id: &str, work: &mut dyn FnMut(&mut Attachments)) -> Result<()> {
    let mut done = Ok(());
    Records::new(places).change(id, &mut |record| {
        done = Attachments::of(record).and_then(|mut attachments| {
            work(&mut attachments);
            attachments.put(record)
        });
    })?;
    done
}

/// Connects a container to a network: at once if it runs, otherwise from its
/// next start on. The caller keeps others from starting one that does not run.
///
/// # Errors
/// Docker's words.
pub fn connect(
    places: &Places,
    record: &Record,
    network: &Network,
    attachment: Attachment,
) -> Result<()> {
    let name = &record.spec.name;
    match (record.spec.net.mode(), network.name.as_str()) {
        (NetworkMode::Host, _) | (_, "host") => {
            bail!("container cannot be disconnected from host network or connected to host network")
        }
        (NetworkMode::Container(_), _) => bail!(
            "container sharing network namespace with another container or host cannot be \
             connected to any other network"
        ),
        (_, "none") => bail!(
            "container cannot be connected to multiple networks with one of the networks in \
             private (none) mode"
        ),
        (NetworkMode::Bridge, "bridge") => {
            bail!("endpoint with name {name} already exists in network bridge")
        }
        (_, "bridge") => {
            bail!("the default bridge is for containers that are started on it: --network bridge")
        }
        _ => {}
    }
    let attachments = Attachments::of(record)?;
    // Docker's containers of --network none have nothing to connect.
    if record.spec.net.mode() == NetworkMode::None && attachments.networks.is_empty() {
        ensure!(
            record.later.contains_key(FIELD),
            "container cannot be connected to multiple networks with one of the networks in \
             private (none) mode"
        );
    }
    if attachments.to(network).is_some() {
        bail!(
            "endpoint with name {name} already exists in network {}",
            network.name
        );
    }
    // In the record first: whoever is killed from here on has left something
    // that `disconnect` finds.
    change(places, &record.spec.id, &mut |attachments| {
        attachments.networks.push(attachment.clone());
    })?;
    if !record.is_running() {
        return Ok(());
    }
    let joined = join(record, network, attachment.ip);
    change(places, &record.spec.id, &mut |attachments| match &joined {
        Err(_) => attachments.networks.retain(|one| !one.is_to(network)),
        Ok(address) => {
            let mut all = attachments.networks.iter_mut();
            if let Some(one) = all.find(|one| one.is_to(network)) {
                one.address = Some(*address);
            }
        }
    })?;
    joined.map(drop)
}

/// Connects a running container at once, and returns its address.
fn join(record: &Record, network: &Network, ip: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    let joining = Joining {
        bridge: network.bridge()?,
        ip,
    };
    let child = Pid::from_raw(record.pid);
    ensure!(
        record.pid > 0 && record.launcher.is_parent_of(record.pid),
        "container {} is not running",
        record.spec.name
    );
    let address = plugs::connect(record.launcher, child, &joining)?;
    match with_resolver(record).and_then(|()| add_host(record, address)) {
        Ok(()) => Ok(address),
        Err(error) => {
            plugs::disconnect(record.launcher, child, &joining.bridge.device)?;
            Err(error)
        }
    }
}

/// Lets a running container ask the engine's resolver from now on, as Docker
/// does.
fn with_resolver(record: &Record) -> Result<()> {
    let leads = format!("nameserver {RESOLVER}");
    let text = net::for_resolver(&record.spec.net.dns)?;
    plugs::rewrite(record.launcher, "resolv.conf", &mut |before| match before
        .lines()
        .any(|line| line == leads)
    {
        true => before.to_owned(),
        false => text.clone(),
    })
}

/// Adds the container's own address to its hosts file.
fn add_host(record: &Record, address: Ipv4Addr) -> Result<()> {
    let own = hostname(record)?;
    let own = own.to_string_lossy().into_owned();
    plugs::rewrite(record.launcher, "hosts", &mut |before| {
        format!("{before}{address}\t{own}\n")
    })
}

/// Disconnects a container from a network.
///
/// # Errors
/// If it is not connected to it.
pub fn disconnect(places: &Places, record: &Record, network: &Network) -> Result<()> {
    let attachments = Attachments::of(record)?;
    let Some(attachment) = attachments.to(network) else {
        if network.name == "bridge" && record.spec.net.mode() == NetworkMode::Bridge {
            bail!("a container stays on the default bridge, if it was started on it");
        }
        bail!(
            "container {} is not connected to network {}",
            record.spec.id,
            network.name
        );
    };
    if record.is_running() && record.pid > 0 && record.launcher.is_parent_of(record.pid) {
        let child = Pid::from_raw(record.pid);
        plugs::disconnect(record.launcher, child, &device(&network.id))?;
        if let Some(address) = attachment.address {
            let begins = format!("{address}\t");
            // It is off the network already, whatever it has made of its file.
            let rewritten = plugs::rewrite(record.launcher, "hosts", &mut |before| {
                let kept = before.lines().filter(|line| !line.starts_with(&begins));
                kept.map(|line| format!("{line}\n")).collect()
            });
            if let Err(error) = rewritten {
                kit::warn!("{error:#}");
            }
        }
    }
    change(places, &record.spec.id, &mut |attachments| {
        attachments.networks.retain(|one| !one.is_to(network));
    })
}
