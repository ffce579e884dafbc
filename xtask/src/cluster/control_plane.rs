//! etcd, the API server, the controller manager and the scheduler, on a machine of their own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use weir_lab::{Host, Lab, forward};

use super::kubectl::Kubectl;
use super::options::{API_PORT, Options, api_server_names};
use super::pki::Pki;
use super::programs::Programs;
use super::wait::Part;

const ETCD: &str = "http://127.0.0.1:2379";

/// How long the API server may take on a busy machine; a quiet one needs six seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The running control plane.
pub(super) struct ControlPlane {
    pub(super) pki: Pki,
    pub(super) kubectl: Kubectl,
    pub(super) parts: Vec<Part>,
}

impl ControlPlane {
    /// Starts it; `kubeconfig` is written for use from the machine's own namespace.
    pub(super) fn start(
        programs: &Programs,
        lab: &Lab,
        host: &Host,
        options: Options,
        kubeconfig: &Path,
    ) -> Result<Self> {
        let mut plane = Self::start_api(programs, lab, host, options, kubeconfig)?;
        let manager = controller_manager(programs, options, &plane.pki)?;
        let scheduler = scheduler(programs, &plane.pki)?;
        for (name, command) in [
            ("kube-controller-manager", manager),
            ("kube-scheduler", scheduler),
        ] {
            plane.parts.push(Part::start(name, host, command)?);
        }
        Ok(plane)
    }

    /// Starts an API server with nobody who acts on what it holds.
    pub(super) fn start_api(
        programs: &Programs,
        lab: &Lab,
        host: &Host,
        options: Options,
        kubeconfig: &Path,
    ) -> Result<Self> {
        let address = SocketAddr::new(IpAddr::V4(host.v4()), API_PORT);
        let folder = lab.dir().join("pki");
        let names = api_server_names(host.v4(), host.v6());
        let pki = Pki::create(&folder, &format!("https://{address}"), names)?;
        let door = door(host, address)?;
        pki.admin(kubeconfig, &format!("https://{door}"))?;
        let kubectl = Kubectl::new(programs, kubeconfig);

        let etcd = Part::start("etcd", host, etcd(programs, lab))?;
        let mut api_server = Part::start("kube-apiserver", host, api_server(programs, host, options, &pki))?;
        api_server.wait("the API server is ready", PATIENCE, || {
            kubectl.succeeds(&["get", "--raw", "/readyz"])
        })?;
        let parts = vec![etcd, api_server];
        Ok(Self { pki, kubectl, parts })
    }

    /// Waits for what every pod needs.
    pub(super) fn wait_for_controllers(&mut self) -> Result<()> {
        let kubectl = self.kubectl.clone();
        let manager = self
            .parts
            .iter_mut()
            .find(|part| part.name == "kube-controller-manager")
            .context("there is a controller manager")?;
        manager.wait("the default service account is there", PATIENCE, || {
            kubectl.succeeds(&["-n", "default", "get", "serviceaccount", "default"])
        })
    }
}

/// A port on the machine's loopback that leads to this address in the host's namespace.
fn door(host: &Host, address: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on the loopback")?;
    let door = listener.local_addr()?;
    let host = host.clone();
    forward(listener, move || {
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5));
        host.run(connect).map_err(io::Error::other)?
    });
    Ok(door)
}

/// A cluster's data is worth nothing after its end, so nothing waits for the disk.
fn etcd(programs: &Programs, lab: &Lab) -> Command {
    let mut etcd = programs.command("etcd");
    etcd.arg("--data-dir").arg(lab.dir().join("etcd")).args([
        "--listen-client-urls",
        ETCD,
        "--advertise-client-urls",
        ETCD,
        "--listen-peer-urls",
        "http://127.0.0.1:2380",
        "--quota-backend-bytes",
        "4294967296",
        "--unsafe-no-fsync",
    ]);
    etcd
}

fn api_server(programs: &Programs, host: &Host, options: Options, pki: &Pki) -> Command {
    let mut command = programs.command("kube-apiserver");
    command.args([
        format!("--etcd-servers={ETCD}"),
        "--bind-address=::".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={}", host.v4()),
        format!("--service-cluster-ip-range={}", options.service_networks()),
    ]);
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.path(name).display());
    command.args([
        file("tls-cert-file", "apiserver.crt"),
        file("tls-private-key-file", "apiserver.key"),
        file("client-ca-file", "ca.crt"),
        file("service-account-key-file", "sa.pub"),
        file("service-account-signing-key-file", "sa.key"),
        file("kubelet-client-certificate", "apiserver-kubelet.crt"),
        file("kubelet-client-key", "apiserver-kubelet.key"),
        file("requestheader-client-ca-file", "front-proxy-ca.crt"),
        file("proxy-client-cert-file", "front-proxy.crt"),
        file("proxy-client-key-file", "front-proxy.key"),
    ]);
    command.args([
        "--service-account-issuer=https://kubernetes.default.svc",
        "--kubelet-preferred-address-types=InternalIP",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        // Room for end-to-end tests in parallel.
        "--max-requests-inflight=1500",
        "--max-mutating-requests-inflight=1000",
    ]);
    command
}

fn controller_manager(programs: &Programs, options: Options, pki: &Pki) -> Result<Command> {
    let kubeconfig = pki.kubeconfig("kcm", "system:kube-controller-manager", None)?;
    let mut command = programs.command("kube-controller-manager");
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.path(name).display());
    command.args([
        format!("--kubeconfig={}", kubeconfig.display()),
        file("service-account-private-key-file", "sa.key"),
        file("root-ca-file", "ca.crt"),
        file("cluster-signing-cert-file", "ca.crt"),
        file("cluster-signing-key-file", "ca.key"),
        format!("--service-cluster-ip-range={}", options.service_networks()),
    ]);
    command.args([
        "--bind-address=127.0.0.1",
        "--use-service-account-credentials",
        // The nodes have fixed networks, as their routes do.
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]);
    Ok(command)
}

fn scheduler(programs: &Programs, pki: &Pki) -> Result<Command> {
    let kubeconfig = pki.kubeconfig("scheduler", "system:kube-scheduler", None)?;
    let mut command = programs.command("kube-scheduler");
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
    Ok(command)
}
