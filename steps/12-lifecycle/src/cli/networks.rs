//! The options of `run` and `create` about networks and ports.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::Args;
use engine::cli::options::RunArgs;
use engine::cli::places::Places;
use engine::container::Records;
use engine::image::Images;
use engine::spec::Spec;
use net::{NetworkMode, Protocol, Publish};

use crate::network::attached::{self, Attachment, Attachments};
use crate::network::store::Networks;

/// The options about networks. `--network` and `--publish` stand for those of
/// step 06, which know one bridge and single ports.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Networks (step 12)")]
pub struct NetworkArgs {
    /// Connect the container to a network: bridge, none, host,
    /// container:NAME or PID, or one of `drydock network create`, also as name=NETWORK,alias=NAME,ip=ADDRESS.
    /// Repeatable for the latter [default: bridge for root, else none]
    #[arg(
        id = "networks",
        long = "network",
        visible_alias = "net",
        value_name = "NETWORK"
    )]
    networks: Vec<NetworkOption>,

    /// Add a name for the container on its first network. Repeatable
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,

    /// Publish a container's port, or a range of ports, to the host. Without
    /// HOSTPORT, to any free port. Repeatable
    #[arg(
        id = "ports",
        short = 'p',
        long = "publish",
        value_name = "[[IP:][HOSTPORT]:]PORT[/udp]"
    )]
    ports: Vec<PortOption>,

    /// Publish all exposed ports to free ports of the host
    #[arg(short = 'P', long)]
    publish_all: bool,

    /// Expose a port, or a range of ports, for --publish-all. Repeatable
    #[arg(long, value_name = "PORT[/udp]")]
    expose: Vec<ExposeOption>,
}

/// A value of `--network`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NetworkOption {
    /// As step 06 has it.
    Mode(NetworkMode),
    /// That of a container, by its name or id.
    Of(String),
    /// A network by its name.
    Named {
        name: String,
        aliases: Vec<String>,
        ip: Option<Ipv4Addr>,
    },
}

impl FromStr for NetworkOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "default" {
            return Ok(NetworkOption::Mode(NetworkMode::Bridge));
        }
        if let Some(container) = text.strip_prefix("container:")
            && !container.is_empty()
            && !container.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Ok(NetworkOption::Of(container.to_owned()));
        }
        if matches!(text, "none" | "host" | "bridge") || text.starts_with("container:") {
            return Ok(NetworkOption::Mode(text.parse()?));
        }
        ensure!(!text.is_empty(), "give the name of a network");
        if !text.contains('=') {
            return Ok(NetworkOption::Named {
                name: text.to_owned(),
                aliases: Vec::new(),
                ip: None,
            });
        }
        let (mut name, mut aliases, mut ip) = (None, Vec::new(), None);
        for field in text.split(',') {
            let pair = field.split_once('=');
            let (key, value) = pair.with_context(|| format!("invalid field {field}"))?;
            match key {
                "name" => name = Some(value.to_owned()),
                "alias" => aliases.push(value.to_owned()),
                "ip" => {
                    let address = value.parse();
                    ip = Some(address.with_context(|| format!("invalid IPv4 address: {value}"))?);
                }
                _ => bail!("invalid field key {key}"),
            }
        }
        Ok(NetworkOption::Named {
            name: name.context("network name is required")?,
            aliases,
            ip,
        })
    }
}

/// A value of `--publish`: one port or several.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PortOption(Vec<Publish>);

impl FromStr for PortOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (ports, protocol) = protocol(text)?;
        ensure!(
            !text.contains('['),
            "ports are published on IPv4 addresses only"
        );
        let (ip, host, inside) = match ports.split(':').collect::<Vec<_>>()[..] {
            [inside] => ("", "", inside),
            [host, inside] => ("", host, inside),
            [ip, host, inside] => (ip, host, inside),
            _ => bail!("invalid publish opts format {text}: give [[IP:][HOSTPORT]:]PORT[/udp]"),
        };
        let ip: Ipv4Addr = match ip {
            "" => Ipv4Addr::UNSPECIFIED,
            ip => ip
                .parse()
                .ok()
                .with_context(|| format!("invalid IP address: {ip}"))?,
        };
        ensure!(!inside.is_empty(), "no port specified: {text}<empty>");
        let inside = range(inside).with_context(|| format!("invalid containerPort: {inside}"))?;
        let one = |host_port: u16, to: Option<u16>, port: u16| Publish {
            ip,
            host_port,
            to,
            port,
            protocol,
        };
        if host.is_empty() {
            return Ok(PortOption(inside.map(|port| one(0, None, port)).collect()));
        }
        let hosts = range(host).with_context(|| format!("invalid hostPort: {host}"))?;
        let (few, many) = (inside.len(), hosts.len());
        if few != many {
            // Any of them leads to the one.
            ensure!(
                few == 1,
                "invalid ranges specified for container and host Ports: {}-{} and {host}",
                inside.start(),
                inside.end()
            );
            let (first, last) = (*hosts.start(), *hosts.end());
            return Ok(PortOption(vec![one(first, Some(last), *inside.start())]));
        }
        let pairs = hosts.zip(inside);
        Ok(PortOption(
            pairs.map(|(host, port)| one(host, None, port)).collect(),
        ))
    }
}

/// A value of `--expose`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ExposeOption(Vec<(u16, Protocol)>);

impl FromStr for ExposeOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (ports, protocol) = protocol(text)?;
        let ports = range(ports).with_context(|| format!("invalid port: {ports}"))?;
        Ok(ExposeOption(ports.map(|port| (port, protocol)).collect()))
    }
}

fn protocol(text: &str) -> Result<(&str, Protocol)> {
    match text.split_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((ports, "tcp")) => Ok((ports, Protocol::Tcp)),
        Some((ports, "udp")) => Ok((ports, Protocol::Udp)),
        Some((_, other)) => bail!("invalid proto: {other}"),
    }
}

/// One port, or `FIRST-LAST`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// What the options ask for.
pub(super) struct Asked {
    /// The networks of the container.
    pub(super) attachments: Attachments,
    /// The ports of `--expose`.
    exposed: Vec<(u16, Protocol)>,
    /// Whether these and the image's are published at free ports.
    publish_all: bool,
    /// Whether a port is chosen at the start.
    is_open: bool,
}

impl NetworkArgs {
    /// Looks the networks up, and puts the rest among the options of the other
    /// steps.
    ///
    /// # Errors
    /// Docker's words.
    pub(super) fn apply(self, places: &Places, run: &mut RunArgs) -> Result<Asked> {
        let mut attachments = Attachments::default();
        let mut mode = None;
        let store = Networks::new(&places.root);
        let mut modes = 0;
        for network in self.networks {
            match network {
                NetworkOption::Mode(given) => {
                    modes += 1;
                    mode = Some(given);
                }
                NetworkOption::Of(container) => {
                    modes += 1;
                    let record = Records::new(places).find(&container)?;
                    attachments.of = Some(record.spec.id.clone());
                    mode = Some(attached::of_container(&record)?);
                }
                NetworkOption::Named { name, aliases, ip } => {
                    let network = store.find(&name)?;
                    if network.predefined {
                        modes += 1;
                        mode = Some(network.name.parse()?);
                        continue;
                    }
                    ensure!(
                        attachments.to(&network).is_none(),
                        "network {name} is specified multiple times"
                    );
                    let attachment = Attachment::new(&network, aliases, ip)?;
                    attachments.networks.push(attachment);
                }
            }
        }
        let with_others = mode.is_none() || mode == Some(NetworkMode::Bridge);
        ensure!(
            modes < 2 && (with_others || attachments.networks.is_empty()),
            "conflicting options: cannot attach both user-defined and non-user-defined \
             network-modes"
        );
        match attachments.networks.first_mut() {
            None => ensure!(
                self.network_alias.is_empty(),
                "network-scoped aliases are only supported for user-defined networks"
            ),
            Some(first) => {
                let network = store.find(&first.id)?;
                first.aliases.extend(self.network_alias);
                // On the default bridge it is the default bridge's.
                if mode.is_none() {
                    first.ip = run.net.ip.take().or(first.ip);
                }
                *first = Attachment::new(&network, first.aliases.clone(), first.ip)?;
            }
        }
        run.net.network = match (mode, attachments.networks.is_empty()) {
            (None, false) => Some(NetworkMode::None),
            (mode, _) => mode,
        };
        let ports = self.ports.into_iter().flat_map(|option| option.0);
        run.net.publish.extend(ports);
        let exposed = self.expose.into_iter().flat_map(|option| option.0);
        Ok(Asked {
            attachments,
            exposed: exposed.collect(),
            publish_all: self.publish_all,
            is_open: run.net.publish.iter().any(Publish::is_open),
        })
    }
}

impl Asked {
    /// Whether a launcher in the foreground is enough: nobody asks for names, and
    /// nothing is to be noted.
    pub(super) fn is_plain(&self) -> bool {
        let attachments = &self.attachments;
        let is_plain = attachments.networks.is_empty() && attachments.of.is_none();
        is_plain && self.exposed.is_empty() && !self.publish_all && !self.is_open
    }

    /// The ports of `--expose`, `80/tcp` each.
    pub(super) fn exposed(&self) -> Vec<String> {
        let ports = self.exposed.iter();
        ports.map(|(port, of)| format!("{port}/{of}")).collect()
    }

    /// Publishes all exposed ports, if that was asked for.
    pub(super) fn finish(&self, places: &Places, image: &OsStr, spec: &mut Spec) -> Result<()> {
        if !self.publish_all {
            return Ok(());
        }
        let image = image.to_str().context("the image's name")?;
        let image = Images::open(&places.root)?.ready(image, spec.driver)?;
        let mut all = self.exposed.clone();
        for text in image.config.exposed_ports.keys() {
            let ports: ExposeOption = text
                .parse()
                .with_context(|| format!("the image exposes {text:?}"))?;
            all.extend(ports.0);
        }
        all.sort_by_key(|(port, protocol)| (*port, protocol.number()));
        all.dedup();
        for (port, protocol) in all {
            let publish = &mut spec.net.publish;
            if !publish
                .iter()
                .any(|one| one.port == port && one.protocol == protocol)
            {
                publish.push(Publish {
                    ip: Ipv4Addr::UNSPECIFIED,
                    host_port: 0,
                    to: None,
                    port,
                    protocol,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<(u16, Option<u16>, u16)> {
        let ports: PortOption = text.parse().unwrap();
        let ports = ports.0.iter();
        ports.map(|p| (p.host_port, p.to, p.port)).collect()
    }

    #[test]
    fn ports_and_ranges_are_dockers() {
        assert_eq!(ports("80"), [(0, None, 80)]);
        assert_eq!(ports("8080:80"), [(8080, None, 80)]);
        assert_eq!(ports("127.0.0.1::80/udp"), [(0, None, 80)]);
        assert_eq!(
            ports("8000-8002:90-92"),
            [(8000, None, 90), (8001, None, 91), (8002, None, 92)]
        );
        assert_eq!(ports("9000-9010:99"), [(9000, Some(9010), 99)]);
        assert_eq!(ports("70-71"), [(0, None, 70), (0, None, 71)]);
        for (text, words) in [
            (
                "8000-8002:90-91",
                "invalid ranges specified for container and host Ports: 90-91",
            ),
            ("80-70:80-70", "invalid containerPort: 80-70"),
            ("70000:80", "invalid hostPort: 70000"),
            ("x:80", "invalid hostPort: x"),
            ("0:80", "invalid hostPort: 0"),
            ("80:", "no port specified"),
            ("80/sctp", "invalid proto: sctp"),
            ("1:2:3:4", "invalid publish opts"),
            ("[::1]:80:80", "IPv4 addresses only"),
            ("localhost:80:80", "invalid IP address"),
        ] {
            let error = text.parse::<PortOption>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_network_is_a_mode_a_name_or_fields() {
        let parse = |text: &str| text.parse::<NetworkOption>();
        assert_eq!(
            parse("host").unwrap(),
            NetworkOption::Mode(NetworkMode::Host)
        );
        assert!(matches!(parse("web").unwrap(), NetworkOption::Named { .. }));
        let NetworkOption::Named { name, aliases, ip } =
            parse("name=web,alias=a,alias=b,ip=10.0.0.9").unwrap()
        else {
            panic!("not named");
        };
        assert_eq!(
            (name.as_str(), aliases.len(), ip.is_some()),
            ("web", 2, true)
        );
        for bad in [
            "",
            "alias=a",
            "name=a,colour=red",
            "name=a,ip=x",
            "container:0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
