//! Clients that are served by the one hook or the other.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use weir_lab::peer::Report;
use weir_lab::peer::connect::{ConnectOptions, connect};
use weir_lab::{Client, Host};

use crate::probe::{Finding, Probe};

/// Which hook serves a client on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The client is a process in the node's cgroup: `connect()` and `sendmsg()` are translated.
    Socket,
    /// The client is a thread of this process, which is in no node's cgroup: its packets are translated.
    Packet,
}

impl By {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Socket, Self::Packet];

    /// Opens connections from a machine, and waits for their end.
    pub fn connect(self, host: &Host, options: &ConnectOptions) -> Result<Report> {
        self.start(host, options)?.wait()
    }

    /// Starts a client that goes on by itself.
    pub fn start(self, host: &Host, options: &ConnectOptions) -> Result<Load> {
        match self {
            Self::Socket => Ok(Load::Process(host.start_client(options)?)),
            Self::Packet => {
                let (host, options) = (host.clone(), options.clone());
                let stop = Arc::new(AtomicBool::new(false));
                let stopped = Arc::clone(&stop);
                let thread = thread::spawn(move || host.run(|| connect(options, stopped))?);
                Ok(Load::Thread(stop, thread))
            }
        }
    }

    /// Runs a probe on a machine.
    pub fn probe(self, host: &Host, probe: &Probe) -> Result<Finding> {
        match self {
            Self::Socket => by_socket(host, probe),
            Self::Packet => Ok(host.run(|| probe.run())?),
        }
    }
}

fn by_socket(host: &Host, probe: &Probe) -> Result<Finding> {
    let mut command = Command::new(probe_binary()?);
    command.arg(serde_json::to_string(probe)?);
    let output = host.output(command)?;
    ensure!(
        output.status.success(),
        "the probe {probe:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("the probe did not answer in JSON")
}

/// Next to the test's own program, where cargo puts a package's programs.
fn probe_binary() -> Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("weir-node-probe"))
        .find(|path| path.is_file())
        .context("cannot find weir-node-probe next to the test")
}

/// A client in the background.
#[derive(Debug)]
pub enum Load {
    /// A process.
    Process(Client),
    /// A thread, and how to stop it.
    Thread(Arc<AtomicBool>, JoinHandle<Result<Report>>),
}

impl Load {
    /// Waits for the end of its work.
    pub fn wait(self) -> Result<Report> {
        match self {
            Self::Process(client) => client.wait(Duration::from_secs(120)),
            Self::Thread(_, thread) => join(thread),
        }
    }

    /// Ends it now.
    pub fn stop(self) -> Result<Report> {
        match self {
            Self::Process(client) => client.stop(),
            Self::Thread(stop, thread) => {
                stop.store(true, Ordering::Relaxed);
                join(thread)
            }
        }
    }
}

fn join(thread: JoinHandle<Result<Report>>) -> Result<Report> {
    thread
        .join()
        .map_err(|_| anyhow!("the client's thread panicked"))?
}
