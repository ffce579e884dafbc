//! Four nodes, each with a client and a server pod, and one way between the two.
//!
//! ```text
//!            ┌─ node ───────────────────────────┐
//!  client ───┤ veth        routing         veth ├─── server        no arm has programs or rules of another
//!            └──────────────────────────────────┘
//! ```

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use weir_lab::manifest::{Endpoint, Port, Service, node_yaml};
use weir_lab::{Lab, Manifests, Node, Pod, Process, Weir, clock};
use weir_measure::machine;

use crate::worker::{self, Job, Outcome};

/// The Service's port.
const PORT: u16 = 80;
/// The endpoint's port.
const TARGET_PORT: u16 = 8080;

/// The address family that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(self, v4: IpAddr, v6: IpAddr) -> IpAddr {
        if self == Self::V4 { v4 } else { v6 }
    }

    fn cluster_ip(self) -> IpAddr {
        self.of(
            [10, 96, 0, 10].into(),
            [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10].into(),
        )
    }
}

/// A way to get to the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// By its own address: no programs, no rules, no connection tracking.
    Direct,
    /// By a ClusterIP, with the client in the node's cgroup.
    Socket,
    /// By a ClusterIP, with the client outside of the node's cgroup.
    Packet,
    /// By a ClusterIP, with one DNAT rule.
    Iptables,
}

impl Way {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Socket, Self::Packet, Self::Iptables];

    fn node_name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Socket => "socket",
            Self::Packet => "packet",
            Self::Iptables => "iptables",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Socket => "weir socket",
            Self::Packet => "weir tc",
            Self::Iptables => "iptables DNAT",
        })
    }
}

/// The lab with its arms.
pub(crate) struct Arms {
    lab: Lab,
    pub(crate) all: Vec<Arm>,
    iptables: String,
}

/// One node, with its processes.
pub(crate) struct Arm {
    pub(crate) way: Way,
    pub(crate) node: Node,
    client: Process,
    answers: BufReader<ChildStdout>,
    server: Process,
    client_pod: Pod,
    /// Kept alive: the flows of the packet path are swept by the agent.
    _weir: Option<Weir>,
}

/// Builds all arms.
pub(crate) fn build(family: Family, cpu: usize, iptables: Option<&str>) -> Result<Arms> {
    let lab = Lab::new("bench-path")?;
    let default = if family == Family::V4 {
        "iptables"
    } else {
        "ip6tables"
    };
    let iptables = iptables.unwrap_or(default).to_owned();
    let mut all = Vec::new();
    for way in Way::ALL {
        let setup = Setup {
            lab: &lab,
            way,
            family,
            cpu,
            iptables: &iptables,
        };
        all.push(setup.arm().with_context(|| format!("setting up the arm {way}"))?);
    }
    Ok(Arms { lab, all, iptables })
}

impl Arms {
    /// What the arms are made of, as (name, value).
    pub(crate) fn facts(&self) -> Result<Vec<(String, String)>> {
        let mut facts = Vec::new();
        for arm in &self.all {
            if arm.way == Way::Iptables {
                let version = arm.node.sh(&format!("{} --version", self.iptables))?;
                facts.push(machine::fact(
                    "iptables",
                    &format!("{}, one DNAT rule", version.trim()),
                ));
            }
            if arm.way == Way::Direct {
                let offloads = arm.client_pod.sh("ethtool -k eth0")?;
                facts.push(machine::fact(
                    "offloads of the pods' veth",
                    &offloads_in_short(&offloads),
                ));
            }
        }
        Ok(facts)
    }

    /// Removes everything.
    pub(crate) fn remove(self) -> Result<()> {
        drop(self.all);
        self.lab.remove()
    }
}

/// The lines of `ethtool -k` that change what a packet is.
fn offloads_in_short(features: &str) -> String {
    [
        "tx-checksumming",
        "tcp-segmentation-offload",
        "generic-segmentation-offload",
        "generic-receive-offload",
    ]
    .iter()
    .filter_map(|name| features.lines().find(|line| line.starts_with(name)))
    .map(|line| line.replace("-offload", "").replace("generic-", "g"))
    .collect::<Vec<_>>()
    .join(", ")
}

struct Setup<'a> {
    lab: &'a Lab,
    way: Way,
    family: Family,
    cpu: usize,
    iptables: &'a str,
}

impl Setup<'_> {
    fn arm(&self) -> Result<Arm> {
        let name = self.way.node_name();
        let node = self.lab.node(name, weir_lab::NodeOptions::default())?;
        let n = node.number();
        let pod = |role: &str, last: u8| {
            let v6 = format!("fd00:10:244:{n}::{last}");
            node.pod(&format!("{role}-{name}"), &format!("10.244.{n}.{last}"), &v6)
        };
        let (client_pod, server_pod) = (pod("client", 2)?, pod("server", 3)?);
        for pod in [&client_pod, &server_pod] {
            // Plain time stamps: with random offsets, a port that comes back too early can look like the past to a
            // server that still remembers it (RFC 7323, 5.5), and costs a second of silence.
            pod.sysctls(&[
                ("net.ipv4.tcp_timestamps", "2"),
                ("net.ipv4.ip_local_port_range", "1024 65535"),
            ])?;
        }
        let endpoint = SocketAddr::new(self.address(&server_pod), TARGET_PORT);
        let server = self.server(&server_pod)?;
        let weir = match self.way {
            Way::Socket | Way::Packet => Some(self.weir(&node, endpoint.ip())?),
            Way::Direct => None,
            Way::Iptables => {
                self.iptables(&node, endpoint)?;
                None
            }
        };
        let frontend = SocketAddr::new(self.family.cluster_ip(), PORT);
        let target = if self.way == Way::Direct {
            endpoint
        } else {
            frontend
        };
        let (client, answers) = self.client(&node, &client_pod, target)?;
        Ok(Arm {
            way: self.way,
            node,
            client,
            answers,
            server,
            client_pod,
            _weir: weir,
        })
    }

    fn address(&self, pod: &Pod) -> IpAddr {
        self.family.of(pod.v4().into(), pod.v6().into())
    }

    fn server(&self, pod: &Pod) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(worker::server_arguments(self.address(pod), TARGET_PORT, self.cpu));
        let mut server = pod.spawn(command)?;
        let ready = clock::wait_until(Duration::from_secs(5), || {
            server.log().contains(worker::LISTENS) || !server.is_running()
        });
        ensure!(
            ready && server.is_running(),
            "the server does not listen: {}",
            server.log()
        );
        Ok(server)
    }

    fn client(
        &self,
        node: &Node,
        pod: &Pod,
        target: SocketAddr,
    ) -> Result<(Process, BufReader<ChildStdout>)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(worker::client_arguments(target, self.cpu));
        if self.way == Way::Packet {
            // The lab's cgroup, above the node's: programs on the node's do not see this client.
            command
                .arg("--cgroup")
                .arg(node.cgroup().parent().unwrap_or(Path::new("/")));
        }
        let log = pod.dir().join(format!("{}.log", pod.name()));
        let errors = std::fs::File::create(&log)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut client = pod.start(command, &log)?;
        let answers = client
            .child()
            .stdout
            .take()
            .context("the client has no standard output")?;
        Ok((client, BufReader::new(answers)))
    }

    /// An agent with one Service that has one endpoint.
    fn weir(&self, node: &Node, endpoint: IpAddr) -> Result<Weir> {
        let manifests = Manifests::new(self.lab.dir().join(format!("manifests-{}", node.name())))?;
        let service = Service::new(
            "bench",
            &[self.family.cluster_ip()],
            &[Port::tcp("tcp", PORT, TARGET_PORT)],
        );
        let mut documents = vec![node_yaml(node), service.to_yaml()];
        documents.extend(service.slices(&[Endpoint::new(endpoint, node.name())]));
        manifests.write("bench.yaml", &documents)?;
        Weir::start(node, manifests.dir(), &[])
    }

    /// The least that a Service can be by iptables: one rule, no chains to walk through.
    fn iptables(&self, node: &Node, endpoint: SocketAddr) -> Result<()> {
        let (command, address) = (self.iptables, self.family.cluster_ip());
        node.sh(&format!(
            "{command} -t nat -A PREROUTING -d {address} -p tcp --dport {PORT} -j DNAT --to-destination {endpoint}"
        ))?;
        Ok(())
    }
}

impl Arm {
    /// Runs one block; what came of it, and the CPU time of client and server.
    pub(crate) fn run(&mut self, job: Job) -> Result<(Outcome, u64)> {
        let way = self.way;
        self.block(job).with_context(|| {
            format!(
                "{:?} on {way}; the client says: {}",
                job.workload,
                self.client.log()
            )
        })
    }

    fn block(&mut self, job: Job) -> Result<(Outcome, u64)> {
        let before = self.cpu_nanos()?;
        let stdin = self
            .client
            .child()
            .stdin
            .as_mut()
            .context("the client has no standard input")?;
        writeln!(stdin, "{}", serde_json::to_string(&job)?)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the client has ended");
        let outcome: Outcome = serde_json::from_str(&answer)?;
        ensure!(outcome.count > 0, "nothing came back");
        Ok((outcome, self.cpu_nanos()?.saturating_sub(before)))
    }

    fn cpu_nanos(&self) -> Result<u64> {
        Ok(machine::cpu_nanos(self.client.id())? + machine::cpu_nanos(self.server.id())?)
    }
}
