//! The standard world: two nodes with an agent each, three servers, clients everywhere.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weir_lab::manifest::node_yaml;
use weir_lab::{Host, Lab, Manifests, Node, NodeOptions, Pod, Process, Rights, Weir, clock};

use crate::services::{BULK_HERE, BULK_THERE, EMPTY, Known, REMOTE, SOLO, TARGET, TWIN, WEB};

/// How long a change of the manifests may take until the kernel has it; far above what it takes.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// What is not standard.
#[derive(Clone, Debug, Default)]
pub struct WorldOptions {
    /// Of both nodes.
    pub node: NodeOptions,
    /// Packets carry real checksums and lengths everywhere.
    pub no_offloads: bool,
    /// Without agents, until [`World::start_agents`].
    pub no_agents: bool,
    /// Of both agents.
    pub rights: Rights,
}

/// Two nodes, six pods, a machine outside, and the Services of [`crate::services`].
#[derive(Debug)]
pub struct World {
    // Fields are dropped in this order: what runs in the lab goes before the lab.
    agents: Vec<Weir>,
    rights: Rights,
    /// The servers, in the order of `web`.
    pub servers: [Option<Process>; 3],
    /// The folder that both agents read.
    pub manifests: Manifests,
    /// `web-1` and `web-2` on node 1, `web-3` on node 2.
    pub web: [Pod; 3],
    /// A pod without a server on node 1.
    pub client: Pod,
    /// A pod on node 1 whose processes are not the node's, as of gVisor or in a virtual machine: no socket hook sees
    /// them. For clients by [`crate::By::Packet`] beside others by the socket hook: a real pod has either.
    pub sandbox: Pod,
    /// A pod without a server on node 2.
    pub client_2: Pod,
    /// A machine that is no node.
    pub outside: Host,
    /// The node that most tests look at.
    pub n1: Node,
    /// The other node.
    pub n2: Node,
    /// All of it.
    pub lab: Lab,
}

impl World {
    /// The standard world; `prefix` names its namespaces.
    pub fn new(prefix: &str) -> Result<Self> {
        Self::with(prefix, WorldOptions::default())
    }

    /// Another world.
    pub fn with(prefix: &str, options: WorldOptions) -> Result<Self> {
        // A prefix of our own: other labs may be on this machine.
        let lab = Lab::new(&format!("wn-{prefix}"))?;
        let n1 = lab.node("n1", options.node.clone())?;
        let n2 = lab.node("n2", options.node)?;
        let web = [
            n1.pod("web-1", "10.244.1.2", "fd00:10:244:1::2")?,
            n1.pod("web-2", "10.244.1.3", "fd00:10:244:1::3")?,
            n2.pod("web-3", "10.244.2.2", "fd00:10:244:2::2")?,
        ];
        let client = n1.pod("client-1", "10.244.1.4", "fd00:10:244:1::4")?;
        let sandbox = n1.pod("sandbox", "10.244.1.5", "fd00:10:244:1::5")?;
        let client_2 = n2.pod("client-2", "10.244.2.3", "fd00:10:244:2::3")?;
        let outside = lab.outside("outside")?;
        let manifests = Manifests::new(lab.dir().join("manifests"))?;
        manifests.write("nodes.yaml", &[node_yaml(&n1), node_yaml(&n2)])?;
        let [web_1, web_2, web_3] = &web;
        WEB.write(&manifests, &[web_1, web_2, web_3])?;
        EMPTY.write(&manifests, &[])?;
        SOLO.write(&manifests, &[web_1])?;
        REMOTE.write(&manifests, &[web_3])?;
        TWIN.write(&manifests, &[web_3])?;
        BULK_HERE.write(&manifests, &[web_1])?;
        BULK_THERE.write(&manifests, &[web_3])?;
        let servers = [
            Some(web_1.serve(TARGET, TARGET)?),
            Some(web_2.serve(TARGET, TARGET)?),
            Some(web_3.serve(TARGET, TARGET)?),
        ];
        let agents = Vec::new();
        let mut world = Self {
            agents,
            rights: options.rights,
            servers,
            manifests,
            web,
            client,
            sandbox,
            client_2,
            outside,
            n1,
            n2,
            lab,
        };
        if options.no_offloads {
            world.turn_offloads_off()?;
        }
        if !options.no_agents {
            world.start_agents()?;
        }
        Ok(world)
    }

    /// Starts the agents of both nodes.
    pub fn start_agents(&mut self) -> Result<()> {
        let begin = clock::now();
        for node in [&self.n1, &self.n2] {
            let agent = Weir::start_with(self.rights, node, self.manifests.dir(), &[])?;
            self.agents.push(agent);
        }
        println!("both agents ready after {} ms", begin.elapsed().as_millis());
        Ok(())
    }

    /// The agent of node 1.
    pub fn weir(&mut self) -> Result<&mut Weir> {
        self.agents.first_mut().context("the agents are not started")
    }

    /// All pods.
    pub fn pods(&self) -> [&Pod; 6] {
        let [web_1, web_2, web_3] = &self.web;
        [web_1, web_2, web_3, &self.client, &self.sandbox, &self.client_2]
    }

    /// All machines that are ends of connections or ways between them.
    pub fn hosts(&self) -> Vec<&Host> {
        let mut hosts: Vec<&Host> = self.pods().into_iter().map(weir_lab::Pod::host).collect();
        hosts.extend([self.n1.host(), self.n2.host(), &self.outside]);
        hosts
    }

    /// A node port of node 1, seen from outside of it.
    pub fn at_n1(&self, port: u16) -> [SocketAddr; 2] {
        self.n1.addresses().map(|address| SocketAddr::new(address, port))
    }

    /// Checksums and segments are made by software, and each packet is what it claims to be.
    pub fn turn_offloads_off(&self) -> Result<()> {
        for pod in self.pods() {
            pod.set_offloads("eth0", false)?;
            pod.node().set_offloads(pod.host_interface(), false)?;
        }
        for host in [self.n1.host(), self.n2.host(), &self.outside] {
            host.set_offloads("eth0", false)?;
        }
        Ok(())
    }

    /// Waits until node 1 serves `service` by exactly these pods, in both families.
    pub fn settled(&self, service: Known, pods: &[&Pod]) -> Result<Duration> {
        let mut wanted: Vec<IpAddr> = pods.iter().flat_map(|pod| pod.addresses()).collect();
        wanted.sort();
        let begin = clock::now();
        let mut last = Vec::new();
        let done = clock::wait_until(SETTLED_WITHIN, || {
            last = backends(&self.n1, service).unwrap_or_default();
            last == wanted
        });
        if !done {
            bail!(
                "{} has {last:?} after {SETTLED_WITHIN:?}, not {wanted:?}",
                service.name
            );
        }
        Ok(begin.elapsed())
    }

    /// Waits until node 1 does not know the Service.
    pub fn settled_gone(&self, service: Known) -> Result<()> {
        let mut rows = Vec::new();
        let gone = clock::wait_until(SETTLED_WITHIN, || {
            rows = services_json(&self.n1).unwrap_or_default();
            !rows.iter().any(|row| text(row, "name") == service.name)
        });
        ensure!(
            gone,
            "{} is still there after {SETTLED_WITHIN:?}: {rows:?}",
            service.name
        );
        Ok(())
    }

    /// How often each endpoint of a Service's TCP port was chosen on node 1, as `weir services` shows it.
    pub fn chosen(&self, service: Known, frontend: SocketAddr) -> Result<Vec<(IpAddr, u64)>> {
        let rows = services_json(&self.n1)?;
        let row = rows.iter().find(|row| {
            text(row, "name") == service.name
                && text(row, "address") == frontend.ip().to_string()
                && row.get("port").and_then(Value::as_u64) == Some(frontend.port().into())
        });
        let endpoints = row.and_then(|row| row.get("endpoints")?.as_array());
        let endpoints = endpoints.with_context(|| format!("weir services shows no {frontend}: {rows:?}"))?;
        let one = |row: &Value| Some((text(row, "address").parse().ok()?, row.get("chosen")?.as_u64()?));
        Ok(endpoints.iter().filter_map(one).collect())
    }
}

/// `weir services -A --output json` on a node.
pub fn services_json(node: &Node) -> Result<Vec<Value>> {
    let rows: Value = serde_json::from_str(&node.weir(&["services", "-A", "--output", "json"])?)?;
    let items = rows.get("items").unwrap_or(&rows).as_array();
    items.cloned().context("weir services answers with no list")
}

/// The endpoints of a Service's TCP port on a node, both families, sorted.
fn backends(node: &Node, service: Known) -> Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for row in services_json(node)? {
        if text(&row, "name") == service.name
            && text(&row, "portName") == "http"
            && text(&row, "type") == "ClusterIP"
        {
            for endpoint in row
                .get("endpoints")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                found.push(text(endpoint, "address").parse()?);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A member of a JSON object as text.
fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}
