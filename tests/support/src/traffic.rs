//! Servers and clients on a machine of the lab, as child processes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::lab::lock;
use crate::peer::connect::ConnectOptions;
use crate::peer::serve::ServeOptions;
use crate::peer::{READY, Report};
use crate::weir::target_dir;
use crate::{Host, Process, clock, workspace_root};

impl Host {
    /// Starts a server called like the machine on a TCP and a UDP port, and waits until it listens.
    pub fn serve(&self, tcp: u16, udp: u16) -> Result<Process> {
        self.serve_with(&ServeOptions {
            name: self.name().to_owned(),
            tcp: vec![tcp],
            udp: vec![udp],
            bind: None,
        })
    }

    /// Starts a server, and waits until it listens.
    pub fn serve_with(&self, options: &ServeOptions) -> Result<Process> {
        let mut command = Command::new(peer_binary()?);
        command.args(["serve", "--name", &options.name]);
        for port in &options.tcp {
            command.args(["--tcp", &port.to_string()]);
        }
        for port in &options.udp {
            command.args(["--udp", &port.to_string()]);
        }
        if let Some(bind) = options.bind {
            command.args(["--bind", &bind.to_string()]);
        }
        let mut server = self.spawn(command)?;
        let ready = clock::wait_until(Duration::from_secs(5), || {
            server.log().lines().any(|line| line == READY) || !server.is_running()
        });
        ensure!(
            ready && server.is_running(),
            "the server {} does not listen: {}",
            options.name,
            server.log()
        );
        Ok(server)
    }

    /// Opens connections from this machine, and returns what came of them.
    pub fn connect(&self, options: &ConnectOptions) -> Result<Report> {
        self.start_client(options)?.wait(Duration::from_secs(300))
    }

    /// Starts a client on this machine that goes on by itself.
    pub fn start_client(&self, options: &ConnectOptions) -> Result<Client> {
        let mut command = Command::new(peer_binary()?);
        command.arg("connect").arg(options.target.to_string());
        for (flag, value) in [
            ("--count", options.count.to_string()),
            ("--concurrency", options.concurrency.to_string()),
            ("--rate", options.rate.to_string()),
            ("--hold", options.hold.as_secs_f64().to_string()),
            ("--timeout", options.timeout.as_secs_f64().to_string()),
            ("--progress", options.progress.as_millis().to_string()),
        ] {
            command.args([flag, &value]);
        }
        if let Some(source) = options.source {
            command.args(["--source", &source.to_string()]);
        }
        for (flag, wanted) in [
            ("--udp", options.udp),
            ("--connected", options.connected),
            ("--consecutive", options.consecutive),
        ] {
            if wanted {
                command.arg(flag);
            }
        }
        Client::new(self.spawn_piped(command)?)
    }
}

/// A client that runs beside the caller. Dropping it kills it.
#[derive(Debug)]
pub struct Client {
    process: Process,
    latest: Arc<Mutex<Option<Report>>>,
    reader: Option<JoinHandle<()>>,
}

impl Client {
    fn new(mut process: Process) -> Result<Self> {
        let stdout = process
            .child()
            .stdout
            .take()
            .context("the client has no standard output")?;
        let latest = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&latest);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                *lock(&seen) = serde_json::from_str(&line).ok();
            }
        });
        Ok(Self {
            process,
            latest,
            reader: Some(reader),
        })
    }

    /// The latest snapshot; needs [`ConnectOptions::progress`].
    pub fn snapshot(&self) -> Option<Report> {
        lock(&self.latest).clone()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for the end of the client's work.
    pub fn wait(mut self, limit: Duration) -> Result<Report> {
        let status = self.process.wait(limit)?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        match self.snapshot() {
            Some(report) if status.success() => Ok(report),
            _ => bail!("the client failed ({status}): {}", self.process.log()),
        }
    }

    /// Ends the client now, and returns what came of it.
    pub fn stop(mut self) -> Result<Report> {
        if self.process.is_running() {
            self.process.signal(Signal::TERM)?;
        }
        self.wait(Duration::from_secs(30))
    }
}

/// The program `weir-lab-peer`: from `WEIR_LAB_PEER`, or built now if need be.
pub fn peer_binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build_peer().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// Cargo does not build a program of a dependency for a test, so this does, in a fraction of a second if it is fresh.
fn build_peer() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_LAB_PEER") {
        return Ok(path.into());
    }
    let root = workspace_root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(&root)
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            "weir-lab",
            "--bin",
            "weir-lab-peer",
        ])
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "cannot build weir-lab-peer: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(target_dir().join("release/weir-lab-peer"))
}
