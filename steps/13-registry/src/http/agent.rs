//! Connections. A library carries HTTP and TLS; here is what it trusts, and how
//! long it waits.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kit::say;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::http::url::Scheme;
use crate::reference::is_loopback;
use crate::settings;

/// The files in which systems keep the certificates that they trust.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Makes an agent for the registry `host`.
pub fn agent(host: &str, scheme: Scheme, insecure: bool, patience: Duration) -> Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // Redirects are followed by us: a token must not go with them.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("drydock/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(patience))
        .timeout_per_read(Some(patience))
        .timeout_per_write(Some(patience))
        .timeout_recv_response(Some(patience * 2))
        .max_response_header_size(32 << 10)
        .max_idle_connections_per_host(4);
    if is_loopback(host) {
        config = config.proxy(None);
    }
    if scheme == Scheme::Https {
        config = config.tls_config(tls(host, insecure)?);
    }
    Ok(Agent::with_parts(
        config.build(),
        DefaultConnector::default(),
        InThisThread,
    ))
}

fn tls(host: &str, insecure: bool) -> Result<TlsConfig> {
    let mut roots = Vec::new();
    if let Some(path) = env::var_os("SSL_CERT_FILE").map(PathBuf::from) {
        roots.extend(certificates(&path)?);
    } else if let Some(path) = BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()) {
        roots.extend(certificates(&path)?);
    }
    let mut client = None;
    for directory in directories(host) {
        for path in listed(&directory)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => roots.extend(certificates(&path)?),
                Some("cert") => client = Some(identity(&path)?),
                _ => {}
            }
        }
    }
    say!("{} certificates are trusted for {host}", roots.len());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(client)
        .disable_verification(insecure)
        .build())
}

/// The directories with certificates for one registry: Docker's, and the same
/// beside `registries.toml`.
fn directories(host: &str) -> Vec<PathBuf> {
    let mut directories = vec![PathBuf::from("/etc/docker/certs.d")];
    directories.extend(
        settings::directories()
            .into_iter()
            .map(|one| one.join("certs.d")),
    );
    directories.into_iter().map(|one| one.join(host)).collect()
}

fn listed(directory: &PathBuf) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {directory:?}")),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(|| format!("read {directory:?}"))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn certificates(path: &PathBuf) -> Result<Vec<Certificate<'static>>> {
    let pem = fs::read(path).with_context(|| format!("read {path:?}"))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.with_context(|| format!("{path:?}"))? {
            found.push(certificate);
        }
    }
    Ok(found)
}

/// The client's certificate in `NAME.cert`, and its key in `NAME.key`.
fn identity(path: &PathBuf) -> Result<ClientCert> {
    let key_path = path.with_extension("key");
    let pem = fs::read(&key_path).with_context(|| format!("read {key_path:?}"))?;
    let key = PrivateKey::from_pem(&pem).with_context(|| format!("{key_path:?}"))?;
    Ok(ClientCert::new_with_certs(&certificates(path)?, key))
}

/// A resolver that makes no thread: the launcher of a container, which this
/// process may become, has none when it clones. The C library's own time limits
/// apply (resolv.conf(5)).
#[derive(Debug)]
struct InThisThread;

impl Resolver for InThisThread {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let scheme = uri.scheme().ok_or(ureq::Error::HostNotFound)?;
        let authority = uri.authority().ok_or(ureq::Error::HostNotFound)?;
        let name = DefaultResolver::host_and_port(scheme, authority);
        let name = name.ok_or(ureq::Error::HostNotFound)?;
        let mut found = self.empty();
        for address in name.to_socket_addrs()?.take(16) {
            found.push(address);
        }
        match found.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(found),
        }
    }
}
