//! Scripts: a packet's life as text, run in both families and in both worlds.
//!
//! ```text
//! # A sentence that says what is shown.
//! in pod1 tcp pod1:40000 > vip40:443 S                  a packet enters the node from an interface
//! -> translate NewFlow tcp pod1:40000 > remote6:8443 S  what becomes of it, to the last byte
//! out ovl it                                            what came out goes on to the next hook
//! -> ignore
//! ```
//!
//! Verdicts: `ignore`, `pass REASON`, `drop REASON`, `translate REASON PACKET`, `reply REASON PACKET`,
//! `redirect REASON INTERFACE NEXT-HOP PACKET` (with one hop less, unless its `ttl` is written). Between packets: `age SECONDS`, `evict HOOK PROTOCOL A:P > B:P`,
//! `state HOOK PROTOCOL A:P > B:P STATE`, `flows NUMBER` (in both tables), `half-open NUMBER`, `backend SERVICE INDEX dead|serving|reused`,
//! `last SERVICE out|in` (of its cluster's set), `sticks CLIENT SERVICE cluster|local INDEX|nowhere`,
//! `service SERVICE gone|back`, `snat PORTS` and `masquerade all|external|HOST` (at the beginning; all but HOST), `guest INTERFACE`, `chosen SERVICE INDEX TIMES`.

mod words;

use anyhow::{Context, Result, bail, ensure};
use proxy_common::{AffinityKey, BackendSet, BackendState, FlowKey, FlowState, Hook};
use proxy_datapath::Verdict;

use crate::decode::decode;
use crate::node::{self, Masquerade, Port, Rows};
use crate::pair::{Pair, hex};
use crate::services::SPECS;
use crate::user::{Arrival, Outcome, Program};

/// Runs a script in one family.
pub fn run(text: &str, pair: &mut Pair, v6: bool) -> Result<()> {
    let first = text.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with("# ") && first.ends_with('.'),
        "the first line is not `# ` and a sentence"
    );
    let mut stage = Stage {
        pair,
        v6,
        rows: node::rows(20_000),
        guest: None,
        last: Vec::new(),
        outcome: None,
    };
    stage.reset()?;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        stage.line(&words).with_context(|| {
            format!(
                "line {}, {}: {line}",
                number + 1,
                if v6 { "IPv6" } else { "IPv4" }
            )
        })?;
    }
    stage.pair.compare_all()
}

struct Stage<'a> {
    pair: &'a mut Pair,
    v6: bool,
    rows: Rows,
    /// An interface of no pod's.
    guest: Option<Port>,
    /// What came out of the hook before, from its IP header on.
    last: Vec<u8>,
    outcome: Option<(Arrival, Outcome)>,
}

impl Stage<'_> {
    /// All cursors at zero, so that a script can say who is next.
    fn reset(&mut self) -> Result<()> {
        for (_, next) in &mut self.rows.cursors {
            *next = 0;
        }
        self.pair.reset(&self.rows)
    }

    fn configure(&mut self, words: &[&str]) -> Result<()> {
        match words {
            ["snat", ports] => self.rows.config.snat_ports = ports.parse()?,
            ["outsiders", "served"] => self.rows.config.external_cluster_ips = 1,
            ["masquerade", whom] => return self.masquerade(whom),
            _ => bail!("not a line of a script"),
        }
        self.reset()
    }

    fn masquerade(&mut self, whom: &str) -> Result<()> {
        let masquerade = match whom {
            "all" => Masquerade::All,
            "external" => Masquerade::External,
            host => Masquerade::AllBut(words::host(host)?),
        };
        self.rows = std::mem::take(&mut self.rows).with(masquerade);
        self.reset()
    }

    fn line(&mut self, words: &[&str]) -> Result<()> {
        match words {
            [] => Ok(()),
            ["in", port, packet @ ..] => self.send(words::port(port)?, true, packet),
            ["out", port, packet @ ..] => self.send(words::port(port)?, false, packet),
            ["->", verdict @ ..] => self.expect(verdict),
            ["snat" | "outsiders" | "masquerade", _] => self.configure(words),
            ["guest", port] => {
                self.guest = Some(words::port(port)?);
                Ok(())
            }
            ["age", seconds] => self.pair.age(seconds.parse()?),
            ["evict", key @ ..] => {
                let key = self.key(key)?;
                ensure!(self.pair.memory.row(&key).is_some(), "there is no such row");
                self.pair.evict(&key)
            }
            ["state", key @ .., state] => self.state(key, state),
            ["flows", number] => {
                let flows = self.pair.memory.rows().len();
                ensure!(flows == number.parse::<usize>()?, "there are {flows} rows");
                Ok(())
            }
            ["half-open", number] => {
                let rows = self.pair.memory.half_open.borrow().len();
                ensure!(rows == number.parse::<usize>()?, "{rows} rows are half-open");
                Ok(())
            }
            ["backend", service, index, what] => self.backend(service, index.parse()?, what),
            ["chosen", service, index, times] => {
                let id = self.backend_id(service, index.parse()?)?;
                let chosen = self
                    .pair
                    .memory
                    .states
                    .borrow()
                    .get(&id)
                    .copied()
                    .unwrap_or_default()
                    .chosen;
                ensure!(chosen == times.parse::<u64>()?, "chosen {chosen} times");
                Ok(())
            }
            ["last", service, what] => {
                let id = node::service_id(Self::service_index(service)?, self.v6);
                match *what {
                    "out" => self.pair.set_last_backend(id, false),
                    "in" => self.pair.set_last_backend(id, true),
                    _ => bail!("out or in"),
                }
            }
            ["sticks", client, service, set, index] => self.sticks(client, service, set, index),
            ["service", service, what] => self.service(service, what),
            _ => bail!("not a line of a script"),
        }
    }

    fn send(&mut self, port: Port, ingress: bool, packet: &[&str]) -> Result<()> {
        ensure!(
            self.outcome.is_none(),
            "the packet before has no outcome written down"
        );
        let program = match (ingress, port) {
            (true, guest) if self.guest == Some(guest) => Program::GuestIngress,
            (true, Port::Pod1 | Port::Pod2) => Program::PodIngress,
            (true, Port::Uplink | Port::Overlay) => Program::UplinkIngress,
            (true, Port::Tunnel) => Program::UplinkL3Ingress,
            (false, Port::Pod1 | Port::Pod2) => Program::PodEgress,
            (false, Port::Uplink | Port::Overlay) => Program::UplinkEgress,
            (false, Port::Tunnel) => Program::UplinkL3Egress,
        };
        let bytes = words::packet(packet, self.v6)?.bytes(program.ethernet(), &self.last)?;
        let arrival = Arrival::at(program, port, bytes);
        let outcome = self.pair.run(&arrival)?;
        if let Some(decoded) = decode(&outcome.bytes, program.ethernet()) {
            self.last = outcome.bytes.get(decoded.l3..).unwrap_or_default().to_vec();
        }
        self.outcome = Some((arrival, outcome));
        Ok(())
    }

    fn expect(&mut self, words: &[&str]) -> Result<()> {
        let (arrival, outcome) = self.outcome.take().context("an outcome without a packet")?;
        let told = tell(&outcome);
        let (wanted, packet) = match words {
            ["ignore"] | ["pass" | "drop", _] => (words.join(" "), None),
            ["translate" | "reply", _, packet @ ..] => (
                words.iter().take(2).copied().collect::<Vec<_>>().join(" "),
                Some(packet),
            ),
            ["redirect", reason, port, next_hop, packet @ ..] => {
                let route = (words::port(port)?.index(), words::address(next_hop, self.v6)?);
                ensure!(
                    outcome.route.is_none_or(|way| way == route),
                    "redirected by {:?}",
                    outcome.route
                );
                (format!("redirect {reason}"), Some(packet))
            }
            _ => bail!("not an outcome"),
        };
        ensure!(
            told == wanted,
            "it was: {told}\n  in  {}\n  out {}",
            hex(&arrival.bytes),
            hex(&outcome.bytes)
        );
        let Some(packet) = packet else { return Ok(()) };
        let packet = if words.first() == Some(&"redirect") {
            words::sent_on(packet, self.v6)?
        } else {
            words::packet(packet, self.v6)?
        };
        let bytes = packet.bytes(arrival.program.ethernet(), &self.last)?;
        let bytes = if words.contains(&"reply") && arrival.program.ethernet() {
            link_turned(bytes)
        } else {
            bytes
        };
        ensure!(
            outcome.bytes == bytes,
            "another packet:\n  in     {}\n  out    {}\n  wanted {}",
            hex(&arrival.bytes),
            hex(&outcome.bytes),
            hex(&bytes)
        );
        Ok(())
    }

    /// `HOOK PROTOCOL A:P > B:P`.
    fn key(&self, words: &[&str]) -> Result<FlowKey> {
        let [hook, protocol, source, ">", destination] = words else {
            bail!("not a row: {}", words.join(" "));
        };
        let (source, source_port) = words::endpoint(source, self.v6)?;
        let (destination, destination_port) = words::endpoint(destination, self.v6)?;
        let hook = match *hook {
            "ingress" => Hook::Ingress,
            "egress" => Hook::Egress,
            _ => bail!("no hook {hook}"),
        };
        let protocol = match *protocol {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => bail!("no protocol {protocol}"),
        };
        Ok(FlowKey {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            hook: hook.code(),
            reserved: 0,
        })
    }

    fn state(&self, key: &[&str], wanted: &str) -> Result<()> {
        let row = self.pair.memory.row(&self.key(key)?);
        let state = row.map_or("gone", |row| FlowState::of(row.state).name());
        ensure!(state == wanted, "it is {state}");
        Ok(())
    }

    fn service_index(name: &str) -> Result<usize> {
        SPECS
            .iter()
            .position(|spec| spec.name == name)
            .with_context(|| format!("no service {name}"))
    }

    fn backend_id(&self, service: &str, index: u32) -> Result<u32> {
        Ok(node::slab(Self::service_index(service)?, self.v6) + index)
    }

    fn backend(&mut self, service: &str, index: u32, what: &str) -> Result<()> {
        let id = self.backend_id(service, index)?;
        let old = self
            .pair
            .memory
            .states
            .borrow()
            .get(&id)
            .copied()
            .unwrap_or_default();
        let new = match what {
            "dead" => BackendState { serving: 0, ..old },
            "serving" => BackendState { serving: 1, ..old },
            "reused" => BackendState {
                generation: old.generation + 1,
                ..old
            },
            _ => bail!("dead, serving or reused"),
        };
        self.pair.set_state(id, &new)
    }

    fn sticks(&self, client: &str, service: &str, set: &str, wanted: &str) -> Result<()> {
        let set = match set {
            "cluster" => BackendSet::Cluster,
            "local" => BackendSet::Local,
            _ => bail!("cluster or local"),
        };
        let key = AffinityKey {
            client: words::address(client, self.v6)?,
            service: node::service_id(Self::service_index(service)?, self.v6),
            set: u32::from(set.code()),
        };
        let row = self.pair.memory.affinity.borrow().get(&key).copied();
        let wanted = match wanted {
            "nowhere" => None,
            index => Some(self.backend_id(service, index.parse()?)?),
        };
        ensure!(row.map(|row| row.backend_id) == wanted, "it is {row:?}");
        Ok(())
    }

    fn service(&mut self, name: &str, what: &str) -> Result<()> {
        let id = node::service_id(Self::service_index(name)?, self.v6);
        for (key, row) in node::rows(1).services {
            match what {
                _ if row.id != id => {}
                "gone" => self.pair.set_service(&key, None)?,
                "back" => self.pair.set_service(&key, Some(&row))?,
                _ => bail!("gone or back"),
            }
        }
        Ok(())
    }
}

fn tell(outcome: &Outcome) -> String {
    let (word, reason) = match outcome.verdict {
        Verdict::Ignore => return "ignore".to_owned(),
        Verdict::Pass(reason) => ("pass", reason),
        Verdict::Translate(reason) => ("translate", reason),
        Verdict::Redirect(reason) => ("redirect", reason),
        Verdict::Reply(reason) => ("reply", reason),
        Verdict::Drop(reason) => ("drop", reason),
    };
    format!("{word} {}", reason.name())
}

/// With the link addresses exchanged.
fn link_turned(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some((to, from)) = bytes.get_mut(..12).and_then(|link| link.split_at_mut_checked(6)) {
        to.swap_with_slice(from);
    }
    bytes
}
