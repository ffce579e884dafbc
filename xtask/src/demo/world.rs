//! The world of the demo: two nodes, three backends, three clients, a folder of manifests, and an agent per node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rcgen::{Issuer, KeyPair};
use weir_lab::manifest::{Endpoint, Port, Service, node_yaml};
use weir_lab::{Host, Lab, Manifests, Node, NodeOptions, Pod, Process, Weir};

use super::ingress::Front;
use super::screen::Screen;

/// Port of the Services.
pub(super) const PORT: u16 = 80;
/// Port that the pods listen on.
pub(super) const TARGET: u16 = 8080;
/// Node port of `web`.
pub(super) const NODE_PORT: u16 = 30080;
/// Node port of `empty`.
pub(super) const EMPTY_NODE_PORT: u16 = 30081;

/// `clusterIPs` of `web`.
pub(super) const WEB: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10)),
];
/// `clusterIPs` of `empty`.
pub(super) const EMPTY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 20)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x20)),
];

const ENDPOINTS: &str = "web-endpoints.yaml";

/// Everything that runs. The agents and servers are declared before the lab, because they are dropped in this order.
pub(super) struct World {
    /// The ingress and the web servers behind it, when they are shown.
    pub(super) front: Option<Front>,
    /// Who vouches for the ingress's certificates.
    pub(super) authority: Option<Issuer<'static, KeyPair>>,
    agents: Vec<Weir>,
    servers: Vec<Process>,
    pub(super) nodes: [Node; 2],
    pub(super) backends: [Pod; 3],
    /// A client pod on each node.
    pub(super) clients: [Pod; 2],
    pub(super) outside: Host,
    pub(super) manifests: Manifests,
    /// Connections that were answered: node whose weir chose → backend → how many.
    chosen: BTreeMap<(String, String), u64>,
    pub(super) lab: Lab,
}

impl World {
    /// The machines alone: the ingress needs no agent.
    pub(super) fn bare(screen: &mut Screen) -> Result<Self> {
        screen.step("two nodes, five pods and a client outside", Self::machines)
    }

    /// Whether agents run.
    pub(super) fn has_agents(&self) -> bool {
        !self.agents.is_empty()
    }

    /// Makes it all, and returns when the agents have programmed the kernel.
    pub(super) fn build(screen: &mut Screen) -> Result<Self> {
        let mut world = screen.step("two nodes, five pods and a client outside", Self::machines)?;
        screen.step("servers in the three backends", || world.start_servers())?;
        world.write_manifests()?;
        screen.step("an agent on each node, ready", || world.start_agents())?;
        Ok(world)
    }

    fn machines() -> Result<Self> {
        let lab = Lab::new("weir-demo")?;
        let n1 = lab.node("n1", NodeOptions::default())?;
        let n2 = lab.node("n2", NodeOptions::default())?;
        let backends = [
            n1.pod("web-1", "10.244.1.11", "fd00:10:244:1::11")?,
            n2.pod("web-2", "10.244.2.12", "fd00:10:244:2::12")?,
            n2.pod("web-3", "10.244.2.13", "fd00:10:244:2::13")?,
        ];
        let clients = [
            n1.pod("client-1", "10.244.1.21", "fd00:10:244:1::21")?,
            n2.pod("client-2", "10.244.2.22", "fd00:10:244:2::22")?,
        ];
        Ok(Self {
            front: None,
            authority: None,
            agents: Vec::new(),
            servers: Vec::new(),
            backends,
            clients,
            outside: lab.outside("outside")?,
            manifests: Manifests::new(lab.dir().join("manifests"))?,
            nodes: [n1, n2],
            chosen: BTreeMap::new(),
            lab,
        })
    }

    fn start_servers(&mut self) -> Result<()> {
        for pod in &self.backends {
            self.servers.push(pod.serve(TARGET, TARGET)?);
        }
        Ok(())
    }

    fn write_manifests(&self) -> Result<()> {
        let nodes: Vec<_> = self.nodes.iter().map(node_yaml).collect();
        self.manifests.write("nodes.yaml", &nodes)?;
        let empty = Service::new(
            "empty",
            &EMPTY,
            &[Port::tcp("http", PORT, TARGET).node_port(EMPTY_NODE_PORT)],
        );
        let services = [web().to_yaml(), empty.to_yaml()];
        self.manifests.write("services.yaml", &services)?;
        self.set_backends(3)
    }

    /// Makes the first `count` backends the endpoints of `web`.
    pub(super) fn set_backends(&self, count: usize) -> Result<()> {
        let endpoints: Vec<_> = self
            .backends
            .iter()
            .take(count)
            .flat_map(|pod| {
                pod.addresses()
                    .map(|address| Endpoint::new(address, pod.node().name()))
            })
            .collect();
        self.manifests.write(ENDPOINTS, &web().slices(&endpoints))
    }

    fn start_agents(&mut self) -> Result<()> {
        let dir = self.manifests.dir();
        let started: Vec<Result<Weir>> = thread::scope(|scope| {
            let threads = self
                .nodes
                .each_ref()
                .map(|node| scope.spawn(move || Weir::start(node, dir, &[])));
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(anyhow!("the thread that starts it panicked")))
                })
                .collect()
        });
        for agent in started {
            self.agents.push(agent.context("starting an agent")?);
        }
        Ok(())
    }

    /// The first node.
    pub(super) fn n1(&self) -> &Node {
        let [n1, _] = &self.nodes;
        n1
    }

    /// The second node.
    pub(super) fn n2(&self) -> &Node {
        let [_, n2] = &self.nodes;
        n2
    }

    /// The client pod on the first node.
    pub(super) fn client_1(&self) -> &Pod {
        let [one, _] = &self.clients;
        one
    }

    /// The client pod on the second node.
    pub(super) fn client_2(&self) -> &Pod {
        let [_, two] = &self.clients;
        two
    }

    /// Names of the backends, with the node that each one is on.
    pub(super) fn backend_names(&self) -> Vec<(String, String)> {
        self.backends
            .iter()
            .map(|pod| (pod.name().to_owned(), pod.node().name().to_owned()))
            .collect()
    }

    /// Remembers where connections went that `node`'s weir placed.
    pub(super) fn remember(&mut self, node: &str, backends: &BTreeMap<String, u64>) {
        for (backend, count) in backends {
            *self.chosen.entry((node.to_owned(), backend.clone())).or_default() += count;
        }
    }

    /// How many connections of `node`'s weir went to the backend.
    pub(super) fn remembered(&self, node: &str, backend: &str) -> u64 {
        let key = (node.to_owned(), backend.to_owned());
        self.chosen.get(&key).copied().unwrap_or(0)
    }

    /// The drawing.
    pub(super) fn map(&self) -> Vec<String> {
        let [n1, n2] = self.nodes.each_ref().map(|node| node.v4().to_string());
        let outside = self.outside.v4();
        let mut map = vec![
            "          node n1                        node n2                     client".to_owned(),
            format!("          {n1:<31}{n2:<28}{outside}"),
            "  ───────────┬────────────────────────────┬────────────────────────────┬──── fabric".to_owned(),
            "        ┌────┴─────┐             ┌────────┼────────┐                outside".to_owned(),
            "     web-1     client-1        web-2    web-3   client-2".to_owned(),
        ];
        if self.has_agents() {
            map.extend(services());
        }
        map
    }

    /// Removes it all.
    pub(super) fn remove(self) -> Result<()> {
        drop((self.front, self.agents, self.servers));
        self.lab.remove()
    }
}

/// The Service that has backends.
fn web() -> Service {
    let ports = [
        Port::tcp("http", PORT, TARGET).node_port(NODE_PORT),
        Port::udp("echo", PORT, TARGET),
    ];
    Service::new("web", &WEB, &ports)
}

/// The node port of a node.
pub(super) fn node_port(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// The Services of the scenes, under the drawing.
fn services() -> [String; 3] {
    [
        String::new(),
        format!(
            "  Service web     {}:{PORT}  [{}]:{PORT}  node port {NODE_PORT}   →  web-1 web-2 web-3",
            WEB[0], WEB[1]
        ),
        format!(
            "  Service empty   {}:{PORT}  [{}]:{PORT}  node port {EMPTY_NODE_PORT}   →  nobody",
            EMPTY[0], EMPTY[1]
        ),
    ]
}
