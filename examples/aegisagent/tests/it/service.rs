//! Starts a service for a test and talks to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use aegisagent_example::api::{Service, serve};
use aegisagent_example::{Action, Store};
use serde_json::Value;

/// A running service; stopped when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    agent: ureq::Agent,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a service over `folder/aegis.db` that backs up into `folder/backups`.
    pub(crate) fn start(folder: &Path) -> Self {
        let store = Store::open(&folder.join("aegis.db"), None).unwrap();
        let service = Arc::new(Service { store, backup_dir: folder.join("backups") });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let stopped = async {
                let _ = stopped.await;
            };
            let bound = move |address| tell.send(address).unwrap();
            runtime.block_on(serve(service, "127.0.0.1:0".parse().unwrap(), bound, stopped)).unwrap();
        });
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { address: told.recv().unwrap(), agent, stop: Some(stop), thread: Some(thread) }
    }

    /// Posts JSON and returns status and answer.
    pub(crate) fn post(&self, path: &str, body: impl serde::Serialize) -> (u16, Value) {
        let mut response = self.agent.post(format!("http://{}{path}", self.address)).send_json(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_json().unwrap())
    }

    /// Gets and returns status and answer.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let mut response = self.agent.get(format!("http://{}{path}", self.address)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_json().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// An action of a tenant.
pub(crate) fn action(tenant: &str, number: usize) -> Action {
    Action {
        tenant_id: tenant.into(),
        tool: Some("test".into()),
        resource: Some(format!("thing \"{number}\"\n")),
        source_trust: "trusted".into(),
        decision: "allow".into(),
        ..Action::default()
    }
}
