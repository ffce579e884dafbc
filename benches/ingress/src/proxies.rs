//! The proxies: how each is started, told of a change, and asked how it is.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Serialize;
use weir_lab::{Manifests, Pod, Process, clock};

use crate::client::{Connection, connect};
use crate::handshakes::Certificate;
use crate::process;
use crate::routes::{self, CHANGING, Routes};

/// Who is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proxy {
    /// weir-ingress.
    Weir,
    /// HAProxy, which the goals compare with.
    Haproxy,
    /// nginx.
    Nginx,
}

impl Proxy {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::Weir, Self::Haproxy, Self::Nginx];

    /// The name of its pod and its folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Weir => "weir-ingress",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        })
    }
}

/// How a proxy is told of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// weir: a manifest is written.
    Manifest,
    /// HAProxy, nginx: configuration is written, and a signal makes new processes read it.
    Reload,
    /// HAProxy: the running process is told a line of its map.
    Runtime,
}

/// What all instances are started with.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) weir: &'a Path,
    pub(crate) workers: usize,
    pub(crate) cpu: usize,
    pub(crate) certificate: &'a Certificate,
}

/// A running proxy.
pub(crate) struct Instance {
    pub(crate) proxy: Proxy,
    pub(crate) routes: Routes,
    pub(crate) pod: Pod,
    dir: PathBuf,
    process: Process,
    /// How many processes it has, when no old ones are about to end.
    processes: usize,
    version: usize,
}

impl Instance {
    /// Starts it in its pod, and waits until it answers.
    pub(crate) fn start(setup: Setup<'_>, proxy: Proxy, pod: Pod, routes: Routes) -> Result<Self> {
        let dir = pod.dir().join(format!("{}-{}", pod.name(), routes.count));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut command = Command::new("taskset");
        command.args(["-c", &setup.cpu.to_string()]);
        match proxy {
            Proxy::Weir => weir(&mut command, setup, &dir, routes),
            Proxy::Haproxy => haproxy(&mut command, setup, &dir, routes),
            Proxy::Nginx => nginx(&mut command, setup, &dir, routes),
        }
        .with_context(|| format!("writing the configuration of {proxy}"))?;
        let mut instance = Self {
            proxy,
            routes,
            process: pod.spawn(command)?,
            pod,
            dir,
            processes: 0,
            version: 0,
        };
        instance.wait()?;
        instance.processes = process::family(instance.id())?.len();
        Ok(instance)
    }

    fn wait(&mut self) -> Result<()> {
        let last = self.routes.route(self.routes.count - 1);
        let (target, pod) = (self.address(80), self.pod.clone());
        let ready = clock::wait_until(Duration::from_secs(60), || {
            !self.process.is_running()
                || pod
                    .run(|| status(target, &last.0, &last.1))
                    .is_ok_and(|code| code == Some(200))
        });
        ensure!(
            ready && self.process.is_running(),
            "{} does not answer with {} routes: {}",
            self.proxy,
            self.routes.count,
            self.process.log()
        );
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip().into(), port)
    }

    /// Its pod's address.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.pod.v4()
    }

    /// The first of its processes.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The ways in which it can be told of a change.
    pub(crate) fn ways(&self) -> &'static [Way] {
        match self.proxy {
            Proxy::Weir => &[Way::Manifest],
            Proxy::Haproxy => &[Way::Reload, Way::Runtime],
            Proxy::Nginx => &[Way::Reload],
        }
    }

    /// Waits until the processes of before a reload have ended: while HAProxy loads, the next signal may be lost on it.
    pub(crate) fn settle(&self) -> Result<()> {
        let settled = clock::wait_until(Duration::from_secs(20), || {
            process::family(self.id()).is_ok_and(|family| family.len() == self.processes)
        });
        ensure!(
            settled,
            "old processes of {} do not end: {}",
            self.proxy,
            self.log()
        );
        Ok(())
    }

    /// Begins the next version of the changing route; the path that is right from now on.
    pub(crate) fn change(&mut self, way: Way) -> Result<String> {
        self.version += 1;
        let version = self.version;
        match (self.proxy, way) {
            (Proxy::Weir, _) => changing(&self.dir, version)?,
            (Proxy::Haproxy, Way::Runtime) => self.tell(version)?,
            (Proxy::Haproxy, _) => {
                fs::write(self.dir.join("routes.map"), self.routes.map(version))?;
                self.process.signal(Signal::USR2)?;
            }
            (Proxy::Nginx, _) => {
                fs::write(self.dir.join("changing.conf"), routes::changing_server(version))?;
                self.process.signal(Signal::HUP)?;
            }
        }
        Ok(routes::changing_path(version))
    }

    /// HAProxy's own way to change a route without a new process.
    fn tell(&self, version: usize) -> Result<()> {
        let map = self.dir.join("routes.map");
        let (old, new) = (routes::changing_key(version - 1), routes::changing_key(version));
        let mut socket = UnixStream::connect(self.dir.join("admin.sock")).context("HAProxy's socket")?;
        let line = format!("add map {0} {new} s0; del map {0} {old}\n", map.display());
        socket.write_all(line.as_bytes())?;
        let mut said = String::new();
        socket.read_to_string(&mut said)?;
        ensure!(said.trim().is_empty(), "HAProxy says: {said}");
        Ok(())
    }
}

/// The status that a new connection is answered with.
pub(crate) fn status(target: SocketAddr, host: &str, path: &str) -> Option<u16> {
    let mut connection = Connection::new(connect(target).ok()?);
    connection.get(host, path, true).ok().map(|answer| answer.status)
}

fn weir(command: &mut Command, setup: Setup<'_>, dir: &Path, routes: Routes) -> Result<()> {
    let manifests = Manifests::new(dir.join("manifests"))?;
    let (certificate, key) = &setup.certificate.pem;
    manifests.write("common.yaml", &routes::common_manifests(certificate, key))?;
    for (file, documents) in routes.manifests() {
        manifests.write(&file, &documents)?;
    }
    changing(dir, 0)?;
    command
        .arg(setup.weir)
        .arg("serve")
        .arg("--manifests")
        .arg(manifests.dir());
    command.args([
        "--http",
        "0.0.0.0:80",
        "--https",
        "0.0.0.0:443",
        "--default-certificate",
        "default/tls",
    ]);
    command.args(["--workers", &setup.workers.to_string(), "--log", "warn"]);
    // All clients of the benchmark come from one address.
    command.args([
        "--max-connections-per-client",
        "20000",
        "--max-connections",
        "20000",
    ]);
    Ok(())
}

fn changing(dir: &Path, version: usize) -> Result<()> {
    let manifests = Manifests::new(dir.join("manifests"))?;
    manifests.write("changing.yaml", &[routes::changing_manifest(version)])
}

fn haproxy(command: &mut Command, setup: Setup<'_>, dir: &Path, routes: Routes) -> Result<()> {
    fs::write(dir.join("haproxy.cfg"), include_str!("../peers/haproxy.cfg"))?;
    fs::write(dir.join("backends.cfg"), routes.backends())?;
    fs::write(dir.join("routes.map"), routes.map(0))?;
    certificate(dir, setup.certificate)?;
    command
        .args(["haproxy", "-W", "-q", "-f"])
        .arg(dir.join("haproxy.cfg"));
    command.arg("-f").arg(dir.join("backends.cfg"));
    command.env("DIR", dir).env("THREADS", setup.workers.to_string());
    Ok(())
}

fn nginx(command: &mut Command, setup: Setup<'_>, dir: &Path, routes: Routes) -> Result<()> {
    fs::write(dir.join("nginx.conf"), include_str!("../peers/nginx.conf"))?;
    fs::write(dir.join("routes.conf"), routes.servers())?;
    fs::write(dir.join("changing.conf"), routes::changing_server(0))?;
    certificate(dir, setup.certificate)?;
    let workers = format!("daemon off; worker_processes {};", setup.workers);
    nginx_at(command, dir, "nginx.conf", &workers);
    Ok(())
}

fn nginx_at(command: &mut Command, dir: &Path, file: &str, directives: &str) {
    command.args(["nginx", "-e", "nginx.log", "-p"]).arg(dir);
    command.args(["-c", file, "-g", directives]);
}

fn certificate(dir: &Path, certificate: &Certificate) -> Result<()> {
    let (chain, key) = &certificate.pem;
    fs::write(dir.join("certificate.pem"), format!("{chain}{key}"))?;
    Ok(())
}

/// The backend of all, on every CPU but the measured one.
pub(crate) fn backend(pod: &Pod) -> Result<Process> {
    let dir = pod.dir().join("backend");
    fs::create_dir_all(dir.join("files"))?;
    fs::write(dir.join("files/1k"), "x".repeat(1024))?;
    fs::write(dir.join("files/64k"), "x".repeat(64 * 1024))?;
    fs::write(dir.join("backend.conf"), include_str!("../peers/backend.conf"))?;
    let mut command = Command::new("env");
    nginx_at(&mut command, &dir, "backend.conf", "daemon off;");
    let mut process = pod.spawn(command)?;
    let target = SocketAddr::new(pod.v4().into(), routes::BACKEND_PORT);
    let ready = clock::wait_until(Duration::from_secs(10), || {
        pod.run(|| status(target, CHANGING, "/"))
            .is_ok_and(|code| code == Some(200))
    });
    ensure!(
        ready && process.is_running(),
        "the backend does not answer: {}",
        process.log()
    );
    Ok(process)
}
