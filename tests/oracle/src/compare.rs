//! One state: the same questions in both worlds, and what differs.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::expected::{Expected, Verdict};
use crate::outcome::Outcome;
use crate::places::CLIENTS;
use crate::probes::{By, Probe};
use crate::state::State;
use crate::wire::{Ask, Batch, Report, Said};
use crate::world::World;

/// How a probe is looked at: first in a hurry, then, where the answers differ, with care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// As many connections as show all endpoints most of the time.
    Glance,
    /// So many that an endpoint is missed in one of some millions.
    Stare,
    /// The same, later.
    Again,
}

impl Look {
    const fn timeout(self) -> Duration {
        match self {
            Self::Glance => Duration::from_millis(110),
            Self::Stare => Duration::from_millis(300),
            Self::Again => Duration::from_secs(3),
        }
    }

    fn connections(self, endpoints: usize) -> usize {
        match (self, endpoints) {
            (Self::Glance, 0 | 1) => 1,
            (Self::Glance, 2) => 5,
            (Self::Glance, _) => 8,
            (_, 0 | 1) => 4,
            _ => 48,
        }
    }
}

/// Counts addresses and ports, so that no question looks like the continuation of an earlier one.
///
/// The kernel's choice of ports comes back to one too soon: then kube-proxy's node goes by what its connection tracking
/// remembers, and not by what is so now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources {
    addresses: u32,
    ports: u32,
}

impl Sources {
    /// Addresses and ports for the connections of a probe.
    fn take(&mut self, probe: &Probe, count: usize, primary: bool) -> Vec<SocketAddr> {
        let v6 = probe.target.is_ipv6();
        let mut next = || {
            if primary {
                self.ports = self.ports.wrapping_add(1);
                let port = 33_000 + u16::try_from(self.ports % 27_000).unwrap_or_default();
                return SocketAddr::new(probe.client.primary(v6), port);
            }
            self.addresses = self.addresses.wrapping_add(1);
            let number = u16::try_from(self.addresses & 0x7fff).unwrap_or_default();
            SocketAddr::new(probe.client.fresh(v6, probe.upper, number), 0)
        };
        (0..count).map(|_| next()).collect()
    }
}

/// A probe with what both sides said.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The probe.
    pub probe: Probe,
    /// kube-proxy's node.
    pub kube: Outcome,
    /// weir's.
    pub weir: Outcome,
    /// What that means.
    pub verdict: Verdict,
}

/// What one state came to.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// All its probes.
    pub compared: Vec<Compared>,
    /// How many needed a second look.
    pub stared: usize,
    /// Those that differed at the second look, and no more at the third.
    pub late: Vec<Compared>,
    /// Connections that were made, in each world.
    pub connections: usize,
}

/// Both worlds, and what is known of their differences.
pub struct Judge {
    /// kube-proxy's world and weir's.
    pub worlds: [World; 2],
    /// The list.
    pub expected: Expected,
    /// Of all questions.
    pub sources: Sources,
}

/// A probe, and where its connections come from.
struct Question<'a> {
    probe: &'a Probe,
    sticky: bool,
    from: Vec<SocketAddr>,
}

impl Judge {
    /// Asks all, and again where the answers differ.
    pub fn judge(&mut self, state: &State, probes: &[Probe]) -> Result<Findings> {
        let mut findings = Findings::default();
        findings.compared = self.look(state, probes, Look::Glance, &mut findings.connections)?;
        for look in [Look::Stare, Look::Again, Look::Again] {
            let is_different = |compared: &&mut Compared| compared.verdict == Verdict::Different;
            let mut different: Vec<_> = findings.compared.iter_mut().filter(is_different).collect();
            if different.is_empty() {
                break;
            }
            if look == Look::Again {
                thread::sleep(Duration::from_millis(500));
            } else {
                findings.stared += different.len();
            }
            let probes: Vec<_> = different.iter().map(|compared| compared.probe.clone()).collect();
            let seen = self.look(state, &probes, look, &mut findings.connections)?;
            for (before, now) in different.iter_mut().zip(seen) {
                if look == Look::Again && now.verdict != Verdict::Different {
                    findings.late.push(before.clone());
                }
                **before = now;
            }
        }
        Ok(findings)
    }

    fn look(
        &mut self,
        state: &State,
        probes: &[Probe],
        look: Look,
        count: &mut usize,
    ) -> Result<Vec<Compared>> {
        let questions: Vec<_> = probes
            .iter()
            .map(|probe| self.question(state, probe, look))
            .collect();
        *count += questions
            .iter()
            .map(|question| question.from.len())
            .sum::<usize>();
        let all: Vec<_> = questions.iter().collect();
        let first = self.ask(&all, look.timeout())?;
        // Clients that should stick ask again, when all have been answered.
        let sticky: Vec<_> = questions.iter().filter(|question| question.sticky).collect();
        let second = self.ask(&sticky, look.timeout())?;
        let mut outcomes = Vec::new();
        for (first, second) in first.iter().zip(&second) {
            let mut again = second.iter();
            let outcome = |(question, said): (&Question<'_>, &Vec<Said>)| {
                let from: Vec<IpAddr> = question.from.iter().map(SocketAddr::ip).collect();
                let mut outcome = Outcome::new(said, &from);
                if question.sticky
                    && let Some(second) = again.next()
                {
                    outcome.again(said, second);
                }
                outcome
            };
            outcomes.push(questions.iter().zip(first).map(outcome).collect::<Vec<_>>());
        }
        let [kube, weir] = <[_; 2]>::try_from(outcomes)
            .ok()
            .context("there are two worlds")?;
        let compared = probes
            .iter()
            .zip(kube.into_iter().zip(weir))
            .map(|(probe, (kube, weir))| {
                let verdict = self.expected.judge((state, probe), &kube, &weir);
                Compared {
                    probe: probe.clone(),
                    kube,
                    weir,
                    verdict,
                }
            });
        Ok(compared.collect())
    }

    fn question<'a>(&mut self, state: &State, probe: &'a Probe, look: Look) -> Question<'a> {
        let service = probe.service(state);
        let endpoints = service.map_or(0, |service| service.endpoints(probe.target.is_ipv6()));
        let sticky = service.is_some_and(|service| service.affinity.is_some());
        let primary = probe.has_one_source(state) || (probe.primary && !sticky);
        let from = self.sources.take(probe, look.connections(endpoints), primary);
        Question { probe, sticky, from }
    }

    /// Asks in both worlds, all clients at the same time.
    fn ask(&mut self, questions: &[&Question<'_>], timeout: Duration) -> Result<Vec<Report>> {
        let mut reports = Vec::new();
        let of = |client| {
            questions
                .iter()
                .filter(move |question| question.probe.client == client)
        };
        for world in &mut self.worlds {
            for client in CLIENTS {
                let asks: Vec<_> = of(client).map(|question| question.ask()).collect();
                if !asks.is_empty() {
                    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                    world.tell(client, &Batch { timeout_ms, asks })?;
                }
            }
        }
        for world in &mut self.worlds {
            let mut heard = Vec::new();
            for client in CLIENTS {
                let said = if of(client).next().is_some() {
                    world.hear(client)?
                } else {
                    Report::new()
                };
                heard.push((client, said.into_iter()));
            }
            let mut next = |question: &&Question<'_>| {
                let mut all = heard.iter_mut();
                all.find(|(client, _)| *client == question.probe.client)?.1.next()
            };
            let report: Option<Report> = questions.iter().map(&mut next).collect();
            reports.push(report.context("a client did not answer every question")?);
        }
        Ok(reports)
    }
}

impl Question<'_> {
    fn ask(&self) -> Ask {
        Ask {
            target: self.probe.target,
            udp: self.probe.by != By::Tcp,
            connected: self.probe.by == By::Udp,
            from: self.from.clone(),
        }
    }
}
