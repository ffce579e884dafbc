//! The process under test.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use weir_lab::{Process, clock};

use crate::client;
use crate::edge::{self, Edge};

/// How long it may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A `weir-ingress serve`. Dropping it kills it, and prints its log, which is seen if the test failed.
pub struct Ingress {
    process: Process,
    number: u8,
}

impl Ingress {
    /// Starts the first process of a trial, and waits until it is ready.
    pub async fn start(edge: &Edge, extra: &[&str]) -> Result<Self> {
        let mut ingress = Self::begin(edge, 1, extra)?;
        ingress.is_ready().await?;
        Ok(ingress)
    }

    /// Starts the process with this number, at addresses of its own.
    pub fn begin(edge: &Edge, number: u8, extra: &[&str]) -> Result<Self> {
        let ip = edge::front(number);
        let mut command = Command::new(binary()?);
        command.arg("serve").arg("--manifests").arg(edge.objects.folder());
        command.args(["--http", &format!("{ip}:80"), "--https", &format!("{ip}:443")]);
        command.args(["--status-address", &format!("{ip}:10254")]);
        Self::run(edge, number, command, extra)
    }

    /// Starts it with nothing but these words.
    pub fn bare(edge: &Edge, words: &[&str]) -> Result<Self> {
        Self::run(edge, 1, Command::new(binary()?), words)
    }

    fn run(edge: &Edge, number: u8, mut command: Command, extra: &[&str]) -> Result<Self> {
        command.args(extra);
        let process = edge.host().spawn(command)?;
        Ok(Self { process, number })
    }

    /// Waits until it is ready.
    pub async fn is_ready(&mut self) -> Result<()> {
        let begun = clock::now();
        while self.readiness().await != Some(200) {
            ensure!(
                self.process.is_running(),
                "the ingress has ended:\n{}",
                self.log()
            );
            ensure!(
                begun.elapsed() < READY_WITHIN,
                "the ingress is not ready:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// What `/readyz` says; nothing if nobody answers.
    pub async fn readiness(&self) -> Option<u16> {
        let (status, _) = client::ask(self.status(), "probe.test", "/readyz").await.ok()?;
        Some(status)
    }

    /// Where HTTP is taken.
    pub fn http(&self) -> SocketAddr {
        (edge::front(self.number), 80).into()
    }

    /// Where HTTPS is taken.
    pub fn https(&self) -> SocketAddr {
        (edge::front(self.number), 443).into()
    }

    /// Where probes are answered.
    pub fn status(&self) -> SocketAddr {
        (edge::front(self.number), 10254).into()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for the end.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let begun = clock::now();
        while self.process.is_running() {
            ensure!(
                begun.elapsed() < within,
                "it has not ended after {within:?}:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.process.wait(Duration::from_secs(1))
    }

    /// From now on it may have no more open files than this.
    pub fn limit_files(&self, most: u64) -> Result<()> {
        let pid = i32::try_from(self.process.id())?;
        let pid = Pid::from_raw(pid).context("no process has the number 0")?;
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        prlimit(Some(pid), Resource::Nofile, limit).context("cannot limit open files")?;
        Ok(())
    }

    /// Files that it has open.
    pub fn files(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.process.id());
        Ok(fs::read_dir(folder)?.count())
    }

    /// Kilobytes of memory: `VmRSS` now, `VmHWM` the most so far.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let Some(word) = line.and_then(|line| line.split_whitespace().next()) else {
            bail!("/proc has no {field}");
        };
        Ok(word.parse()?)
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        println!("log of the ingress {}:\n{}", self.number, self.log());
    }
}

/// The program: from `WEIR_INGRESS_BIN`, or what `./x build` made.
pub fn binary() -> Result<PathBuf> {
    weir_lab::program("weir-ingress", "WEIR_INGRESS_BIN")
}
