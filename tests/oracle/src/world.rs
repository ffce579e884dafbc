//! A world: a lab with one node that has a proxy, and all who ask and answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use weir_lab::{Host, Lab, Node, NodeOptions, Process, ReversePath, Weir, forward};

use crate::places::{CLIENTS, Client, Place};
use crate::serve::Servers;
use crate::wire::{Batch, Report};

/// Where a node's proxy finds the API server.
const DOOR: u16 = 6443;

/// Ports of the endpoints: those of the Services, others that a slice may name, and the marker's.
const PORTS: [u16; 10] = [8001, 8002, 8003, 8004, 8005, 8006, 8007, 8008, 8101, 8102];

/// What leaves a node for an address that it should have served: the sender is told so, as often as it tries. (The kernel
/// itself tells of a missing route once a second.)
const NO_ROUTE: &str = "table inet oracle { chain arrivals { type filter hook prerouting priority 0; \
    ether daddr != 02:00:00:00:00:01 accept; \
    ip daddr { 10.96.0.0/16, 203.0.113.0/24, 198.51.100.0/24 } reject with icmp type net-unreachable; \
    ip6 daddr { fd00:10:96::/64, fd00:203:113::/64, fd00:198:51::/64 } reject with icmpv6 type no-route; }; }";

/// What node n1 may serve.
const SERVED: [(&str, &str); 3] = [
    ("10.96.0.0/16", "fd00:10:96::/64"),
    ("203.0.113.0/24", "fd00:203:113::/64"),
    ("198.51.100.0/24", "fd00:198:51::/64"),
];

/// Its pods, and the fresh addresses of those that ask.
const PODS: [(&str, &str); 3] = [
    ("10.244.1.0/24", "fd00:10:244:1::/64"),
    ("10.97.0.0/16", "fd00:10:97::/64"),
    ("10.98.0.0/16", "fd00:10:98::/64"),
];

/// Whose node it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proxy {
    /// Kubernetes'.
    KubeProxy,
    /// Ours.
    Weir,
}

/// What a world needs from outside.
pub struct Parts {
    /// For use from the machine's own namespace.
    pub kubeconfig: PathBuf,
    /// The program.
    pub kube_proxy: PathBuf,
    /// The program of the clients.
    pub client: PathBuf,
}

/// A running world. Its processes are declared before its lab, because they are dropped in this order.
pub struct World {
    talkers: Vec<(Client, Talker)>,
    proxy: Running,
    _lab: Lab,
}

enum Running {
    KubeProxy(Process),
    Weir(Weir),
}

impl World {
    /// Makes it, and starts the proxy, which knows nothing yet.
    pub fn start(proxy: Proxy, parts: &Parts) -> Result<Self> {
        let lab = Lab::new("weir-oracle")?;
        let machines = Machines::make(&lab)?;
        machines.route(&lab)?;
        machines.serve()?;
        let kubeconfig = machines.door(&lab, &parts.kubeconfig)?;
        let running = match proxy {
            Proxy::KubeProxy => {
                Running::KubeProxy(kube_proxy(&machines.n1, &lab, &parts.kube_proxy, &kubeconfig)?)
            }
            Proxy::Weir => Running::Weir(Weir::start_at(&machines.n1, &kubeconfig, &[])?),
        };
        let talkers = CLIENTS.map(|client| {
            let talker = Talker::start(machines.client(client)?, client, &parts.client)?;
            Ok((client, talker))
        });
        let talkers = talkers.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Self {
            talkers,
            proxy: running,
            _lab: lab,
        })
    }

    /// Tells a client what to ask; `hear` gives the answer.
    pub fn tell(&mut self, client: Client, batch: &Batch) -> Result<()> {
        self.talker(client)?.tell(batch)
    }

    /// What came of it.
    pub fn hear(&mut self, client: Client) -> Result<Report> {
        self.talker(client)?.hear()
    }

    /// What the proxy logged.
    pub fn log(&self) -> String {
        match &self.proxy {
            Running::KubeProxy(process) => process.log(),
            Running::Weir(weir) => weir.log(),
        }
    }

    fn talker(&mut self, wanted: Client) -> Result<&mut Talker> {
        let mut talkers = self.talkers.iter_mut();
        let found = talkers.find(|(client, _)| *client == wanted);
        found
            .map(|(_, talker)| talker)
            .context("every client has a process")
    }
}

/// The machines of a world.
struct Machines {
    n1: Node,
    n2: Node,
    pods: Vec<(Place, weir_lab::Pod)>,
    outside: Host,
}

impl Machines {
    fn make(lab: &Lab) -> Result<Self> {
        let options = || NodeOptions {
            reverse_path: ReversePath::Off,
            ..NodeOptions::default()
        };
        let (n1, n2) = (lab.node("n1", options())?, lab.node("n2", options())?);
        let pod = |place: Place| {
            let node = if place.is_local() { &n1 } else { &n2 };
            let (v4, v6) = (place.address(false).to_string(), place.address(true).to_string());
            Ok((place, node.pod(place.name(), &v4, &v6)?))
        };
        let pods = [Place::A, Place::B, Place::C, Place::D, Place::E].map(pod);
        let pods = pods.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Self {
            n1,
            n2,
            pods,
            outside: lab.outside("client")?,
        })
    }

    fn pod(&self, wanted: Place) -> Result<&weir_lab::Pod> {
        let found = self.pods.iter().find(|(place, _)| *place == wanted);
        found.map(|(_, pod)| pod).context("not a pod")
    }

    fn client(&self, client: Client) -> Result<&Host> {
        match client {
            Client::PodSocket => Ok(self.pod(Place::A)?.host()),
            Client::PodPacket => Ok(self.pod(Place::C)?.host()),
            Client::Host => Ok(self.n1.host()),
            Client::Outside => Ok(&self.outside),
        }
    }

    /// Roads for all that a client may ask, and back to all addresses that it may ask from.
    fn route(&self, lab: &Lab) -> Result<()> {
        let fabric = lab.switch("fabric")?;
        let pods = self.pods.iter().map(|(_, pod)| pod.host());
        for host in pods.chain([&fabric, self.n1.host(), self.n2.host(), &self.outside]) {
            speak_up(host)?;
        }
        // Frames between machines may pass the same hook, and are none of its business.
        fabric.ip("link set br0 address 02:00:00:00:00:01\n")?;
        fabric.sh(&format!("nft '{NO_ROUTE}'"))?;
        let n1 = (self.n1.v4(), self.n1.v6());
        for network in SERVED.iter().chain(&PODS) {
            add_route(&self.outside, network, n1)?;
        }
        for network in &PODS {
            add_route(&fabric, network, n1)?;
        }
        // The pods' own addresses are known to the lab.
        for network in PODS.iter().skip(1) {
            add_route(self.n2.host(), network, n1)?;
        }
        let outside = (self.outside.v4(), self.outside.v6());
        for host in [&fabric, self.n1.host(), self.n2.host()] {
            add_route(host, &("10.99.0.0/16", "fd00:10:99::/64"), outside)?;
        }
        self.own_networks()
    }

    /// Each client has all addresses of its network.
    fn own_networks(&self) -> Result<()> {
        for client in CLIENTS {
            let Some(number) = client.fresh_network() else {
                continue;
            };
            let host = self.client(client)?;
            host.sysctls(&[("net.ipv6.ip_nonlocal_bind", "1")])?;
            host.ip(&format!(
                "route add local 10.{number}.0.0/16 dev lo\nroute add local fd00:10:{number}::/64 dev lo\n"
            ))?;
            if let Some(place) = client.place() {
                let (pod, v4, v6) = (self.pod(place)?, place.address(false), place.address(true));
                let veth = pod.host_interface();
                self.n1.ip(&format!(
                    "route add 10.{number}.0.0/16 via {v4} dev {veth} onlink\n\
                     route add fd00:10:{number}::/64 via {v6} dev {veth} onlink\n"
                ))?;
            }
        }
        Ok(())
    }

    fn serve(&self) -> Result<()> {
        let mut servers = Servers::default();
        for (place, pod) in &self.pods {
            servers.listen(place.name(), pod, &[], &PORTS)?;
        }
        for (place, node) in [(Place::N1, &self.n1), (Place::N2, &self.n2)] {
            servers.listen(
                place.name(),
                node,
                &[place.address(false), place.address(true)],
                &PORTS,
            )?;
        }
        servers.start()
    }

    /// Joins a port of the node to the API server, and writes a kubeconfig with it.
    fn door(&self, lab: &Lab, kubeconfig: &Path) -> Result<PathBuf> {
        let text = std::fs::read_to_string(kubeconfig)
            .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let (before, rest) = text
            .split_once("https://")
            .context("a kubeconfig names its server")?;
        let (server, after) = rest.split_once('"').context("a kubeconfig is JSON here")?;
        let server: SocketAddr = server.parse().context("the server has an address")?;
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DOOR);
        let listener = self
            .n1
            .run(|| TcpListener::bind(at))?
            .context("cannot listen on the node")?;
        forward(listener, move || {
            TcpStream::connect_timeout(&server, Duration::from_secs(5))
        });
        let path = lab.dir().join("kubeconfig");
        std::fs::write(&path, format!("{before}https://{at}\"{after}"))?;
        Ok(path)
    }
}

/// Every refusal must be heard, and nobody learns another way.
fn speak_up(host: &Host) -> Result<()> {
    let device = device(host);
    host.sysctls(&[
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv4.icmp_msgs_per_sec", "1000000"),
        ("net.ipv4.icmp_msgs_burst", "100000"),
        ("net.ipv6.icmp.ratelimit", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        (&format!("net.ipv4.conf.{device}.send_redirects"), "0"),
        ("net.ipv4.conf.all.accept_redirects", "0"),
        (&format!("net.ipv6.conf.{device}.accept_redirects"), "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
    ])
}

fn add_route(host: &Host, (v4, v6): &(&str, &str), via: (Ipv4Addr, Ipv6Addr)) -> Result<()> {
    let device = device(host);
    host.ip(&format!(
        "route add {v4} via {}\nroute add {v6} via {} dev {device}\n",
        via.0, via.1
    ))
}

/// The device towards the other machines.
fn device(host: &Host) -> &'static str {
    if host.name() == "fabric" { "br0" } else { "eth0" }
}

/// kube-proxy as close to "at once" as it goes: without `minSyncPeriod`, or with 0, it waits for a second.
fn kube_proxy(node: &Node, lab: &Lab, program: &Path, kubeconfig: &Path) -> Result<Process> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": kubeconfig, "qps": 200, "burst": 400 },
        // As weir sees it: who is a client of this node is told by the interface.
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": { "interfaceNamePrefix": "veth" },
        "nftables": { "minSyncPeriod": "1ms" },
        "hostnameOverride": "n1",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // The tables of connections belong to the whole machine.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    let path = lab.dir().join("kube-proxy.json");
    std::fs::write(&path, config.to_string())?;
    let mut command = Command::new(program);
    command.arg(format!("--config={}", path.display())).arg("-v=2");
    node.spawn(command).context("cannot start kube-proxy")
}

/// The process of a client.
struct Talker {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Held,
}

/// A process in the lab's cgroups, or one outside of all nodes' cgroups, which ends when its standard input does.
enum Held {
    Lab { _process: Process },
    Own { _child: Child },
}

impl Talker {
    fn start(host: &Host, client: Client, program: &Path) -> Result<Self> {
        let piped = |mut command: Command| {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit());
            command
        };
        let (input, output, process) = if client == Client::PodPacket {
            let mut command = Command::new("nsenter");
            command
                .arg(format!("--net={}", host.netns().path().display()))
                .arg(program);
            let mut child = piped(command).spawn().context("cannot start a client")?;
            (
                child.stdin.take(),
                child.stdout.take(),
                Held::Own { _child: child },
            )
        } else {
            let log = host.dir().join(format!("{}-client.log", host.name()));
            let mut process = host.start(piped(Command::new(program)), &log)?;
            let child = process.child();
            (
                child.stdin.take(),
                child.stdout.take(),
                Held::Lab { _process: process },
            )
        };
        Ok(Self {
            input: input.context("a client has an input")?,
            output: BufReader::new(output.context("a client has an output")?),
            _process: process,
        })
    }

    fn tell(&mut self, batch: &Batch) -> Result<()> {
        let mut line = serde_json::to_vec(batch)?;
        line.push(b'\n');
        self.input.write_all(&line)?;
        Ok(self.input.flush()?)
    }

    fn hear(&mut self) -> Result<Report> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("a client said {line:?}"))
    }
}
