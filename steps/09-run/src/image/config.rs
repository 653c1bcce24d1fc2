//! What an image says about the containers made of it: the part `config` of an
//! image configuration (OCI Image Specification, config.md).

use std::collections::BTreeMap;

use serde::Deserialize;

/// The execution parameters of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Who runs: `USER[:GROUP]`, names or numbers; empty for root.
    pub user: String,
    /// The environment, `NAME=VALUE` each.
    pub env: Vec<String>,
    /// What is always run.
    pub entrypoint: Option<Vec<String>>,
    /// What is run, or the entrypoint's arguments, where the caller gives none.
    pub cmd: Option<Vec<String>>,
    /// The working directory; empty for `/`.
    pub working_dir: String,
    /// The directories that want a volume.
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// The ports that its services listen at, `80/tcp`.
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that ends it gently, `SIGTERM` or a number.
    pub stop_signal: Option<String>,
}
