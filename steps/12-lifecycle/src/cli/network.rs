//! `network create`, `ls`, `inspect`, `rm`, `connect`, `disconnect`, `prune`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use engine::cli::places::Places;
use engine::container::{Record, Records};
use kit::lock::Turn;
use kit::{say, warn};
use net::{NetworkMode, Promises, of_host, plugs};
use process::{Exit, Failure};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cli::format::{Listing, Row, documents};
use crate::cli::run::claim;
use crate::cli::{is_sure, swept};
use crate::events::tell_of_network;
use crate::log::point_in_time;
use crate::network::attached::{Attachment, Attachments, connect, disconnect};
use crate::network::store::{Network, Networks};
use crate::network::subnet::{Wanted, choose};
use crate::protocol::{self, Answer, Order, answer, give};

/// The commands about networks.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// Create a network
    Create {
        /// Driver to manage the network; only bridge is supported
        #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
        driver: String,
        /// Subnet in CIDR format [default: the first free one of Docker's]
        #[arg(long, value_name = "NETWORK/PREFIX")]
        subnet: Option<String>,
        /// Allocate container addresses from a sub-range
        #[arg(long, value_name = "NETWORK/PREFIX")]
        ip_range: Option<String>,
        /// Address of the bridge [default: the subnet's first]
        #[arg(long, value_name = "ADDRESS")]
        gateway: Option<String>,
        /// Restrict external access to the network
        #[arg(long)]
        internal: bool,
        /// Enable manual container attachment, which is so in any case
        #[arg(long)]
        attachable: bool,
        /// Set a driver specific option. Repeatable
        #[arg(short, long = "opt", value_name = "NAME[=VALUE]")]
        options: Vec<String>,
        /// Set metadata on the network. Repeatable
        #[arg(long, value_name = "NAME[=VALUE]")]
        label: Vec<String>,
        /// Name of the network
        #[arg(value_name = "NETWORK")]
        name: String,
    },
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// Show only some: dangling, driver, id, label, name, scope, type.
        /// Repeatable
        #[arg(short, long, value_name = "NAME=VALUE")]
        filter: Vec<String>,
        /// Format output using a Go template, or json
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
        /// Do not truncate the output
        #[arg(long)]
        no_trunc: bool,
        /// Only display network IDs
        #[arg(short, long)]
        quiet: bool,
    },
    /// Display detailed information on one or more networks, as JSON
    Inspect {
        /// Format output using a Go template, or json
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
        /// Names or IDs of networks
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Do not error if a network does not exist
        #[arg(short, long)]
        force: bool,
        /// Names or IDs of networks
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Connect a container to a network
    Connect {
        /// IPv4 address there [default: the lowest free one]
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<Ipv4Addr>,
        /// Add a name for the container there. Repeatable
        #[arg(long, value_name = "NAME")]
        alias: Vec<String>,
        /// Name or ID of the network
        network: String,
        /// Name or ID of the container
        container: String,
    },
    /// Disconnect a container from a network
    Disconnect {
        /// Force the container to disconnect from a network
        #[arg(short, long)]
        force: bool,
        /// Name or ID of the network
        network: String,
        /// Name or ID of the container
        container: String,
    },
    /// Remove all networks that no running container uses
    Prune {
        /// Show only some: label, until. Repeatable
        #[arg(long, value_name = "NAME=VALUE")]
        filter: Vec<String>,
        /// Do not prompt for confirmation
        #[arg(short, long)]
        force: bool,
    },
}

/// Runs one of the commands. Errors have the exit status 1.
pub fn run(places: &Places, tool: Tool) -> Result<Exit> {
    obey(places, tool).map_err(|error| match error.downcast_ref::<Failure>() {
        Some(_) => error,
        None => Failure::new(1, format!("{error:#}")).into(),
    })
}

fn obey(places: &Places, tool: Tool) -> Result<Exit> {
    let networks = Networks::new(&places.root);
    match tool {
        Tool::Create {
            driver,
            subnet,
            ip_range,
            gateway,
            internal,
            attachable,
            options,
            label,
            name,
        } => {
            match driver.as_str() {
                "bridge" => {}
                "host" | "null" => {
                    bail!("only one instance of \"{driver}\" network is allowed")
                }
                _ => bail!("plugin {driver:?} not found"),
            }
            let wanted = Wanted {
                subnet,
                range: ip_range,
                gateway,
            };
            let network = Network {
                name,
                internal,
                attachable,
                options: driver_options(&options)?,
                labels: pairs(&label),
                ..Network::default()
            };
            let network = create(&networks, network, &wanted)?;
            tell_of_network(places, &network, "create", None);
            kit::outln!("{}", network.id)?;
        }
        Tool::Ls {
            filter,
            format,
            no_trunc,
            quiet,
        } => list(places, &filter, format.as_deref(), no_trunc, quiet)?,
        Tool::Inspect {
            format,
            networks: names,
        } => return inspect(places, &names, format.as_deref()),
        Tool::Rm {
            force,
            networks: names,
        } => {
            swept(places)?;
            return each(&names, &mut |name| match networks.find(name) {
                Ok(network) => {
                    remove(&networks, &network)?;
                    tell_of_network(places, &network, "destroy", None);
                    kit::outln!("{name}")?;
                    Ok(())
                }
                Err(_) if force => Ok(()),
                Err(error) => Err(error),
            });
        }
        Tool::Connect {
            ip,
            alias,
            network,
            container,
        } => {
            let records = swept(places)?;
            let (record, _claim) = held(&records, &container)?;
            let network = networks.find(&network)?;
            let attachment = Attachment::new(&network, alias, ip)?;
            connect(places, &record, &network, attachment)?;
            if record.is_running() {
                tell_of_network(places, &network, "connect", Some(&record.spec.id));
                resolve_in(&records, &record)?;
            }
        }
        Tool::Disconnect {
            force: _,
            network,
            container,
        } => {
            let records = swept(places)?;
            let (record, _claim) = held(&records, &container)?;
            let network = networks.find(&network)?;
            disconnect(places, &record, &network)?;
            if record.is_running() {
                tell_of_network(places, &network, "disconnect", Some(&record.spec.id));
            }
        }
        Tool::Prune { filter, force } => {
            swept(places)?;
            let wanted = Filters::prune(&filter)?;
            let question = "WARNING! This will remove all custom networks not used by at least one \
                            container.";
            if !force && !is_sure(question)? {
                return Ok(Exit::Code(0));
            }
            let deleted = prune_those(places, &networks, &wanted)?;
            if !deleted.is_empty() {
                kit::outln!("Deleted Networks:")?;
                for name in deleted {
                    kit::outln!("{name}")?;
                }
                kit::outln!()?;
            }
        }
    }
    Ok(Exit::Code(0))
}

/// Removes the networks that no container is on and that fit. Returns their names.
pub(super) fn prune(places: &Places, filters: &[String]) -> Result<Vec<String>> {
    let wanted = Filters::prune(filters)?;
    prune_those(places, &Networks::new(&places.root), &wanted)
}

fn prune_those(places: &Places, networks: &Networks, wanted: &Filters) -> Result<Vec<String>> {
    let mut deleted = Vec::new();
    for network in networks.all()? {
        if network.predefined || !wanted.fit(&network, false) {
            continue;
        }
        match remove(networks, &network) {
            Ok(()) => {
                tell_of_network(places, &network, "destroy", None);
                deleted.push(network.name);
            }
            Err(error) => say!("{} stays: {error:#}", network.name),
        }
    }
    Ok(deleted)
}

/// Does something with each of several networks. What fails is reported, and the
/// others have their turn.
fn each(names: &[String], work: &mut dyn FnMut(&str) -> Result<()>) -> Result<Exit> {
    let mut failed = false;
    for name in names {
        if let Err(error) = work(name) {
            kit::errln!("drydock: {}", kit::say::printable(&format!("{error:#}")));
            failed = true;
        }
    }
    Ok(Exit::Code(u8::from(failed)))
}

/// Pairs of names and values, as `--label` has them.
fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let pairs = texts
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The options of the driver: names of others are kept, as Docker keeps them; one
/// of the bridge's that would have to do something is refused, unless it asks for
/// what is so in any case.
fn driver_options(options: &[String]) -> Result<BTreeMap<String, String>> {
    let options = pairs(options);
    for (name, value) in &options {
        let is_so = match &**name {
            "com.docker.network.bridge.enable_icc"
            | "com.docker.network.bridge.enable_ip_masquerade" => value == "true",
            "com.docker.network.bridge.host_binding_ipv4" => value == "0.0.0.0",
            "com.docker.network.driver.mtu" => value == "1500",
            name => !name.starts_with("com.docker.network."),
        };
        ensure!(
            is_so,
            "--opt {name}={value}: bridges here have no such option"
        );
    }
    Ok(options)
}

/// Makes a network like `new`, which has no id and no subnet yet.
fn create(networks: &Networks, new: Network, wanted: &Wanted) -> Result<Network> {
    let name = &new.name;
    kit::name::check(name)?;
    let _lock = networks.hold(Turn::Judging)?;
    let all = networks.all()?;
    if let Some(other) = all.iter().find(|other| other.name == *name) {
        if other.predefined {
            bail!("operation is not permitted on predefined {name} network");
        }
        bail!("network with name {name} already exists");
    }
    // From the choice until the description is there, no other engine of this
    // host chooses: it has descriptions of its own, and sees ours here.
    let promises = Promises::hold()?;
    let made = promised(networks, &all, new, &promises, wanted);
    promises.close()?;
    made
}

/// Chooses the subnet of a network, and writes its description.
// ANCHOR: promised
fn promised(
    networks: &Networks,
    others: &[Network],
    new: Network,
    promises: &Promises,
    wanted: &Wanted,
) -> Result<Network> {
    // What was promised before the host was started anew is forgotten.
    for other in others {
        if let Some(subnet) = &other.subnet {
            promises.add(&other.id, subnet.subnet, &networks.path(&other.id))?;
        }
    }
    let subnet = choose(wanted, &promises.all()?, &of_host()?)?;
    let promise = subnet.subnet;
    let network = Network {
        id: kit::random::hex::<32>()?,
        created: kit::time::now(),
        driver: "bridge".to_owned(),
        subnet: Some(subnet),
        ..new
    };
    network.bridge()?;
    networks.write(&network)?;
    promises.add(&network.id, promise, &networks.path(&network.id))?;
    Ok(network)
}
// ANCHOR_END: promised

/// Removes a network on which no container is.
// ANCHOR: remove
fn remove(networks: &Networks, network: &Network) -> Result<()> {
    let Network { name, id, .. } = network;
    ensure!(
        !network.predefined,
        "{name} is a pre-defined network and cannot be removed"
    );
    // A container that starts is in the state of step 06 before it looks, under
    // this lock, whether its networks are still there.
    let _lock = networks.hold(Turn::Judging)?;
    ensure!(
        !plugs::is_used(&network.bridge()?.device)?,
        "error while removing network: network {name} id {id} has active endpoints"
    );
    networks.remove(network)?;
    let promises = Promises::hold()?;
    promises.remove(id)?;
    promises.close()
}
// ANCHOR_END: remove

/// A container, and the claim that keeps others from starting it if it does not
/// run.
fn held(records: &Records, name: &str) -> Result<(Record, Option<std::fs::File>)> {
    let record = records.find(name)?;
    if record.is_running() {
        ensure!(
            record.pid > 0,
            "container {} is restarting, wait until the container is running",
            record.spec.name
        );
        return Ok((record, None));
    }
    let claim = claim(records, &record)?;
    let record = records.find(&record.spec.id)?;
    ensure!(
        !record.is_running(),
        "container {} has been started meanwhile",
        record.spec.name
    );
    Ok((record, Some(claim)))
}

/// Has the monitor of a container answer its questions for names.
fn resolve_in(records: &Records, record: &Record) -> Result<()> {
    let stream = protocol::connect(&records.directory(&record.spec.id))?;
    let said = match stream {
        None => None,
        Some(stream) => {
            give(&stream, &Order::Names)?;
            answer(&stream)?
        }
    };
    match said {
        Some(Answer::Refused(why)) => bail!("{why}"),
        Some(_) => Ok(()),
        None => {
            warn!(
                "{} runs in somebody's foreground: it resolves no names of containers",
                record.spec.name
            );
            Ok(())
        }
    }
}

/// What `--filter` asks for.
struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    fn parse(filters: &[String], known: &[&str]) -> Result<Self> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for filter in filters {
            let pair = filter.split_once('=');
            let (name, value) =
                pair.with_context(|| format!("invalid argument {filter:?}: give NAME=VALUE"))?;
            ensure!(known.contains(&name), "Invalid filter '{name}'");
            all.entry(name.to_owned())
                .or_default()
                .push(value.to_owned());
        }
        Ok(Filters(all))
    }

    fn list(filters: &[String]) -> Result<Self> {
        let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
        let filters = Filters::parse(filters, &known)?;
        for (name, good) in [
            ("type", &["custom", "builtin"][..]),
            ("dangling", &["true", "false", "1", "0"]),
        ] {
            let values = filters.0.get(name).into_iter().flatten();
            for value in values {
                ensure!(
                    good.contains(&value.as_str()),
                    "invalid filter: '{name}'='{value}'"
                );
            }
        }
        Ok(filters)
    }

    fn prune(filters: &[String]) -> Result<Self> {
        let mut filters = Filters::parse(filters, &["label", "label!", "until"])?;
        for value in filters.0.get_mut("until").into_iter().flatten() {
            let point = point_in_time(value).context("--filter until")?;
            *value = humantime::format_rfc3339_nanos(point).to_string();
        }
        Ok(filters)
    }

    /// Whether a network is one of those asked for.
    fn fit(&self, network: &Network, is_used: bool) -> bool {
        self.0.iter().all(|(name, values)| {
            let has = |label: &String| match label.split_once('=') {
                None => network.labels.contains_key(label),
                Some((name, value)) => network.labels.get(name).is_some_and(|v| v == value),
            };
            let mut each = values.iter();
            match name.as_str() {
                "driver" => each.any(|value| *value == network.driver),
                "id" => each.any(|value| network.id.starts_with(value)),
                "name" => each.any(|value| network.name.contains(value)),
                "scope" => each.any(|value| value == "local"),
                "type" => each.any(|value| (value == "builtin") == network.predefined),
                "label" => each.all(has),
                "label!" => !each.any(has),
                "until" => each.all(|value| {
                    let point = |text| humantime::parse_rfc3339(text).ok();
                    let made = point(&network.created).unwrap_or(SystemTime::UNIX_EPOCH);
                    point(value).is_some_and(|until| made < until)
                }),
                _ => each.any(|value| {
                    let dangling = !network.predefined && !is_used;
                    matches!(value.as_str(), "true" | "1") == dangling
                }),
            }
        })
    }
}

const LISTING: Listing = Listing {
    usual: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    heads: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

fn list(
    places: &Places,
    filters: &[String],
    format: Option<&str>,
    no_trunc: bool,
    quiet: bool,
) -> Result<()> {
    let filters = Filters::list(filters)?;
    let asks_use = filters.0.contains_key("dangling");
    let mut rows = Vec::new();
    for network in Networks::new(&places.root).all()? {
        let is_used = asks_use && !network.predefined && plugs::is_used(&network.bridge()?.device)?;
        if !filters.fit(&network, is_used) {
            continue;
        }
        let id = match no_trunc {
            true => network.id.clone(),
            false => network.short_id().to_owned(),
        };
        let labels = network.labels.iter();
        let labels: Vec<String> = labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        rows.push(Row {
            cells: BTreeMap::from([
                ("ID", id),
                ("Name", network.name),
                ("Driver", network.driver),
                ("Scope", "local".to_owned()),
                ("IPv6", "false".to_owned()),
                ("Internal", network.internal.to_string()),
                ("Labels", labels.join(",")),
                ("CreatedAt", network.created),
            ]),
            labels: network.labels,
        });
    }
    match (quiet, format) {
        (true, None) => rows
            .iter()
            .try_for_each(|row| kit::outln!("{}", row.cells["ID"])),
        _ => kit::out!("{}", LISTING.print(format, &rows)?),
    }
}

/// A network as Docker describes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    name: String,
    id: String,
    created: String,
    scope: &'static str,
    driver: String,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: BTreeMap<&'static str, &'static str>,
    config_only: bool,
    containers: BTreeMap<String, There>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: &'static str,
    options: Option<BTreeMap<String, String>>,
    config: Vec<IpamConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    ip_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
}

/// A container on a network.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct There {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

fn inspect(places: &Places, names: &[String], format: Option<&str>) -> Result<Exit> {
    let records = swept(places)?;
    let networks = Networks::new(&places.root);
    let mut running = records.all()?;
    running.retain(Record::is_running);
    let mut found = Vec::new();
    let status = each(names, &mut |name| {
        found.push(describe(&networks.find(name)?, &running)?);
        Ok(())
    })?;
    kit::out!("{}", documents(format, &found)?)?;
    Ok(status)
}

fn describe(network: &Network, running: &[Record]) -> Result<Described> {
    let is_default = network.predefined && network.name == "bridge";
    let config = match &network.subnet {
        Some(subnet) => Some(IpamConfig {
            subnet: subnet.subnet.to_string(),
            ip_range: subnet.range.map(|range| range.to_string()),
            gateway: Some(subnet.gateway.to_string()),
        }),
        None if is_default => plugs::default_subnet()?.map(|subnet| IpamConfig {
            subnet: subnet.to_string(),
            ip_range: None,
            gateway: None,
        }),
        None => None,
    };
    let prefix = config
        .as_ref()
        .and_then(|config| config.subnet.split_once('/'));
    let prefix = prefix.map_or_else(String::new, |(_, length)| format!("/{length}"));
    let mut containers = BTreeMap::new();
    for record in running {
        let address = match is_default {
            true if record.spec.net.mode() == NetworkMode::Bridge => {
                plugs::look(record.launcher)?.and_then(|connected| connected.default)
            }
            true => None,
            false => {
                let attachments = Attachments::of(record)?;
                let to = attachments.networks.iter();
                let mut to = to.filter(|one| one.id == network.id);
                to.find_map(|one| one.address)
            }
        };
        let on_host = network.predefined
            && match record.spec.net.mode() {
                NetworkMode::Host => network.name == "host",
                NetworkMode::None => {
                    network.name == "none" && Attachments::of(record)?.networks.is_empty()
                }
                _ => false,
            };
        if address.is_none() && !on_host {
            continue;
        }
        let endpoint = Sha256::digest(format!("{} {}", network.id, record.spec.id));
        let there = There {
            name: record.spec.name.clone(),
            endpoint_id: endpoint.iter().map(|byte| format!("{byte:02x}")).collect(),
            mac_address: address.map(plugs::mac).unwrap_or_default(),
            ipv4_address: address.map_or_else(String::new, |ip| format!("{ip}{prefix}")),
            ipv6_address: String::new(),
        };
        containers.insert(record.spec.id.clone(), there);
    }
    Ok(Described {
        name: network.name.clone(),
        id: network.id.clone(),
        created: network.created.clone(),
        scope: "local",
        driver: network.driver.clone(),
        enable_ipv6: false,
        ipam: Ipam {
            driver: "default",
            options: (!network.predefined).then(BTreeMap::new),
            config: config.into_iter().collect(),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: BTreeMap::from([("Network", "")]),
        config_only: false,
        containers,
        options: match is_default {
            true => [
                ("com.docker.network.bridge.default_bridge", "true"),
                ("com.docker.network.bridge.name", "drydock0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            false => network.options.clone(),
        },
        labels: network.labels.clone(),
    })
}
