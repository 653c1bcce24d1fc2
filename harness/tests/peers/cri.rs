//! Kubernetes's side of containerd: the calls that a kubelet makes, in the
//! version `runtime.v1` of the Container Runtime Interface (api.proto of
//! `k8s.io/cri-api`).

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::grpc;
use super::message::{Fields, Message};

/// `NamespaceMode` of the interface.
const CONTAINER: i64 = 1;
const NODE: i64 = 2;

/// `ContainerState` of the interface.
pub(crate) const RUNNING: u64 = 1;
pub(crate) const EXITED: u64 = 2;

/// containerd, as the kubelet of a node sees it.
pub(crate) struct Cri {
    pub(crate) socket: PathBuf,
    /// The group of its pods.
    pub(crate) group: String,
}

/// What a command in a container has said, and its exit status.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) status: u64,
}

impl Cri {
    fn call(&self, method: &str, message: &Message) -> Result<Fields> {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let answer = grpc::call(&self.socket, &path, message.as_bytes())?;
        Fields::parse(&answer).with_context(|| format!("{method}: parse the answer"))
    }

    /// The network is the node's: no plug-in is needed for it. Each container
    /// has its own processes, as a kubelet asks for.
    fn namespaces() -> Message {
        Message::new().number(1, NODE).number(2, CONTAINER)
    }

    /// `PodSandboxConfig`.
    fn pod(&self) -> Message {
        let metadata = Message::new()
            .text(1, "pod")
            .text(2, "uid-1")
            .text(3, "default");
        let security = Message::new().message(1, &Self::namespaces());
        let linux = Message::new().text(1, &self.group).message(2, &security);
        Message::new().message(1, &metadata).message(8, &linux)
    }

    /// Creates and starts the first container of a pod, by the handler that a
    /// `RuntimeClass` names. Returns the pod's ID.
    pub(crate) fn run_pod_sandbox(&self, handler: &str) -> Result<String> {
        let request = Message::new().message(1, &self.pod()).text(2, handler);
        let id = self.call("RunPodSandbox", &request)?.text(1);
        ensure!(!id.is_empty(), "RunPodSandbox: no ID");
        Ok(id)
    }

    /// Creates a container in a pod, with a limit of memory in bytes.
    pub(crate) fn create_container(
        &self,
        pod: &str,
        name: &str,
        image: &str,
        command: &[&str],
        memory: i64,
    ) -> Result<String> {
        let image = Message::new().text(1, image);
        let resources = Message::new().number(4, memory);
        let security = Message::new().message(3, &Self::namespaces());
        let linux = Message::new().message(1, &resources).message(2, &security);
        let mut config = Message::new()
            .message(1, &Message::new().text(1, name))
            .message(2, &image);
        for word in command {
            config = config.text(3, word);
        }
        let config = config.message(15, &linux);
        let request = Message::new()
            .text(1, pod)
            .message(2, &config)
            .message(3, &self.pod());
        let id = self.call("CreateContainer", &request)?.text(1);
        ensure!(!id.is_empty(), "CreateContainer: no ID");
        Ok(id)
    }

    pub(crate) fn start_container(&self, id: &str) -> Result<()> {
        self.call("StartContainer", &Message::new().text(1, id))
            .map(drop)
    }

    /// The state of a container, and its exit status.
    pub(crate) fn container_status(&self, id: &str) -> Result<(u64, u64)> {
        let answer = self.call("ContainerStatus", &Message::new().text(1, id))?;
        let status = answer.message(1)?;
        Ok((status.number(3), status.number(7)))
    }

    pub(crate) fn exec_sync(&self, id: &str, command: &[&str]) -> Result<Said> {
        let mut request = Message::new().text(1, id);
        for word in command {
            request = request.text(2, word);
        }
        let answer = self.call("ExecSync", &request.number(3, 20))?;
        Ok(Said {
            stdout: answer.text(1),
            status: answer.number(3),
        })
    }

    /// Other limits for a container: `docker update` of a kubelet.
    pub(crate) fn update_container_resources(&self, id: &str, memory: i64) -> Result<()> {
        let resources = Message::new().number(4, memory);
        let request = Message::new().text(1, id).message(2, &resources);
        self.call("UpdateContainerResources", &request).map(drop)
    }

    /// Ends a container: by SIGTERM, after so many seconds by SIGKILL.
    pub(crate) fn stop_container(&self, id: &str, seconds: i64) -> Result<()> {
        let request = Message::new().text(1, id).number(2, seconds);
        self.call("StopContainer", &request).map(drop)
    }

    pub(crate) fn remove_container(&self, id: &str) -> Result<()> {
        self.call("RemoveContainer", &Message::new().text(1, id))
            .map(drop)
    }

    pub(crate) fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.call("StopPodSandbox", &Message::new().text(1, id))
            .map(drop)
    }

    pub(crate) fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.call("RemovePodSandbox", &Message::new().text(1, id))
            .map(drop)
    }
}
