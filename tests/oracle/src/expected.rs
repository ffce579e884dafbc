//! `expected.toml`: in what weir differs from kube-proxy on purpose.
//!
//! A rule says what weir answers *instead of* one of kube-proxy's answers, and where. So a rule hides nothing but
//! the one answer that it names, and weir must give the other one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::outcome::{Answer, Outcome, Seen};
use crate::places::{Client, Place};
use crate::probes::{By, Frontend, Probe};
use crate::service::Service;
use crate::state::State;

/// The list.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Each of those that fit is one more answer that weir may give.
    #[serde(default)]
    pub difference: Vec<Rule>,
}

/// A difference that is meant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What is different, and why weir is right.
    pub reason: String,
    /// A test of ours, or an issue of Kubernetes.
    pub see: String,
    /// Who asks; empty: anybody.
    #[serde(default)]
    client: Vec<Client>,
    /// Where; empty: everywhere.
    #[serde(default)]
    frontend: Vec<Frontend>,
    /// What the Service must say.
    external_policy: Option<Policy>,
    /// Whether weir leaves a pod's connection to its packets.
    by_packet: Option<bool>,
    /// Whether the Service is another proxy's.
    foreign: Option<bool>,
    /// Whether the client is an endpoint of which nobody says that it is on this node.
    unplaced: Option<bool>,
    /// Which endpoint answers kube-proxy's client.
    server: Option<Server>,
    /// kube-proxy's answer.
    kube_proxy: Vec<Kind>,
    /// weir's.
    weir: Kind,
    /// Whether weir may say the same as kube-proxy, too.
    #[serde(default)]
    sometimes: bool,
}

/// `externalTrafficPolicy`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
enum Policy {
    Local,
    Cluster,
}

/// Where the endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Server {
    /// On the node, as its slice says.
    Local,
    /// The client itself.
    Client,
    /// Anybody but the client.
    Another,
}

/// A kind of answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// An endpoint that sees the client's address.
    ServedOwn,
    /// An endpoint that sees an address of the node.
    ServedNode,
    /// An endpoint that sees another address.
    ServedOther,
    /// The client itself, whatever it sees.
    ServedClient,
    Refused,
    Silent,
    Unreachable,
    NoRoute,
    /// What should not be.
    Other,
}

/// What comparing comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Both said the same.
    Same,
    /// What differs is in the list: these rules.
    Listed(BTreeSet<usize>),
    /// Something else.
    Different,
}

impl Expected {
    /// The list of this version.
    pub fn read() -> Result<Self> {
        Self::parse(include_str!("../expected.toml")).context("tests/oracle/expected.toml")
    }

    fn parse(text: &str) -> Result<Self> {
        let expected: Self = toml::from_str(text)?;
        for rule in &expected.difference {
            ensure!(
                !rule.reason.is_empty() && !rule.see.is_empty(),
                "a difference needs a reason, and a test or an issue"
            );
        }
        Ok(expected)
    }

    /// Compares what the two nodes said.
    pub fn judge(&self, (state, probe): (&State, &Probe), kube: &Outcome, weir: &Outcome) -> Verdict {
        let service = probe.service(state);
        let affinity = service.is_some_and(|service| service.affinity.is_some());
        // One client sees one endpoint, and each node has its own. If that is the client itself, and nobody says where it
        // is, kube-proxy's client hears nothing.
        let itself = is_unplaced(service, probe, probe.client.place()) && kube.answers.len() == 1;
        let one = kube.one_endpoint() || itself;
        if affinity && probe.has_one_source(state) && one && weir.one_endpoint() {
            return Verdict::Same;
        }
        let mut used = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for answer in &kube.answers {
            let rules: Vec<_> = self.rules((state, probe), answer).collect();
            // A rule that stands for nothing any more is noticed, too.
            let equal = rules.iter().all(|(_, rule)| rule.sometimes);
            let mut answered = false;
            for other in &weir.answers {
                let rule = rules.iter().find(|(_, rule)| rule.allows(probe, answer, other));
                used.extend(rule.map(|(at, _)| *at));
                if rule.is_some() || (equal && answer == other) {
                    answered = true;
                    seen.insert(other);
                }
            }
            if !answered {
                return Verdict::Different;
            }
        }
        if seen.len() != weir.answers.len() || kube.sticky != weir.sticky {
            return Verdict::Different;
        }
        if used.is_empty() {
            Verdict::Same
        } else {
            Verdict::Listed(used)
        }
    }

    /// Those that stand for this answer of kube-proxy.
    fn rules(
        &self,
        (state, probe): (&State, &Probe),
        answer: &Answer,
    ) -> impl Iterator<Item = (usize, &Rule)> {
        let rules = self.difference.iter().enumerate();
        rules.filter(move |(_, rule)| rule.fits((state, probe), answer))
    }
}

impl Rule {
    fn fits(&self, (state, probe): (&State, &Probe), answer: &Answer) -> bool {
        let service = probe.service(state);
        let is = |wanted: Option<bool>, what: &dyn Fn(&Service) -> bool| {
            wanted.is_none_or(|wanted| service.is_some_and(|service| what(service) == wanted))
        };
        let local = self.external_policy.map(|policy| policy == Policy::Local);
        let server = self.server.is_none_or(
            |wanted| matches!(answer, Answer::Served { by, .. } if wanted.fits(*by, probe, service)),
        );
        server
            && is(local, &|service| service.external_local)
            && is(self.foreign, &|service| service.foreign)
            && is(self.unplaced, &|service| {
                is_unplaced(Some(service), probe, probe.client.place())
            })
            && is(self.by_packet, &|service| is_by_packet(service, probe))
            && (self.client.is_empty() || self.client.contains(&probe.client))
            && (self.frontend.is_empty() || self.frontend.contains(&probe.frontend))
            && self.kube_proxy.iter().any(|kind| kind.is(answer, probe.client))
    }

    /// Whether weir may say the other in place of the one.
    fn allows(&self, probe: &Probe, one: &Answer, other: &Answer) -> bool {
        let who = |answer: &Answer| match answer {
            Answer::Served { by, port, .. } => Some((*by, *port)),
            _ => None,
        };
        // An endpoint stays the same one.
        let same = who(one).is_none() || who(other).is_none() || who(one) == who(other);
        same && self.weir.is(other, probe.client)
    }
}

/// What a socket cannot decide for a pod: its address, by which clients are told apart, and an endpoint that can change.
fn is_by_packet(service: &Service, probe: &Probe) -> bool {
    let v6 = probe.target.is_ipv6();
    let guarded = probe.frontend == Frontend::LoadBalancer && service.is_guarded(v6);
    probe.by == By::Udp || service.affinity.is_some() || guarded
}

/// Whether a slice has this endpoint without the name of its node.
fn is_unplaced(service: Option<&Service>, probe: &Probe, place: Option<Place>) -> bool {
    let slices = service.into_iter().flat_map(|service| &service.slices);
    let slices = slices.filter(|slice| slice.v6 == probe.target.is_ipv6());
    let mut endpoints = slices.flat_map(|slice| &slice.endpoints);
    endpoints.any(|endpoint| !endpoint.node && Some(endpoint.place) == place)
}

impl Server {
    fn fits(self, place: Place, probe: &Probe, service: Option<&Service>) -> bool {
        match self {
            Self::Local => place.is_local() && !is_unplaced(service, probe, Some(place)),
            Self::Client => probe.client.place() == Some(place),
            Self::Another => probe.client.place() != Some(place),
        }
    }
}

impl Kind {
    fn is(self, answer: &Answer, client: Client) -> bool {
        match answer {
            Answer::Served { by, .. } if self == Self::ServedClient => client.place() == Some(*by),
            Answer::Served { seen: Seen::Own, .. } => self == Self::ServedOwn,
            Answer::Served {
                seen: Seen::Node(_), ..
            } => self == Self::ServedNode,
            Answer::Served {
                seen: Seen::Other(_), ..
            } => self == Self::ServedOther,
            Answer::Refused => self == Self::Refused,
            Answer::Silent => self == Self::Silent,
            Answer::Unreachable => self == Self::Unreachable,
            Answer::NoRoute => self == Self::NoRoute,
            Answer::Other(_) => self == Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;
    use crate::places::is_of_the_node;

    const LIST: &str = r#"
        [[difference]]
        reason = "a client outside keeps its address"
        see = "k8s#1"
        client = ["outside"]
        external_policy = "Cluster"
        server = "local"
        kube_proxy = ["served-node"]
        weir = "served-own"

        [[difference]]
        reason = "a drop is heard"
        see = "k8s#2"
        client = ["host"]
        kube_proxy = ["silent"]
        weir = "unreachable"
        sometimes = true
    "#;

    /// A Service with policy Cluster and without affinity, whose endpoints are all known to be where they are.
    fn state() -> State {
        let mut service = generate::service(1, 0);
        service.external_local = false;
        service.affinity = None;
        service.slices.clear();
        State {
            number: 0,
            zone: "zone-a",
            services: vec![service],
        }
    }

    fn probe(client: Client) -> Probe {
        Probe {
            client,
            target: "172.30.0.11:30100".parse().unwrap(),
            by: By::Tcp,
            frontend: Frontend::NodePort,
            service: Some(0),
            primary: false,
            upper: false,
        }
    }

    fn served(by: Place, seen: &str) -> Answer {
        let seen = match seen {
            "own" => Seen::Own,
            address => Seen::Node(address.parse().unwrap()),
        };
        assert!(matches!(seen, Seen::Own) || matches!(seen, Seen::Node(address) if is_of_the_node(address)));
        Answer::Served { by, port: 8001, seen }
    }

    fn judge(state: &State, client: Client, kube: &[Answer], weir: &[Answer]) -> Verdict {
        let outcome = |answers: &[Answer]| Outcome {
            answers: answers.iter().cloned().collect(),
            sticky: None,
        };
        let expected = Expected::parse(LIST).unwrap();
        expected.judge((state, &probe(client)), &outcome(kube), &outcome(weir))
    }

    #[test]
    fn a_rule_stands_for_one_answer() {
        let (state, masked) = (state(), "10.244.1.1");
        let outside = |kube: &[Answer], weir: &[Answer]| judge(&state, Client::Outside, kube, weir);
        let listed = Verdict::Listed([0].into());
        let kube = [served(Place::A, masked), served(Place::D, masked)];
        assert_eq!(
            outside(&kube, &[served(Place::A, "own"), served(Place::D, masked)]),
            listed
        );
        // What the rule is not about must stay as it is,
        assert_eq!(
            outside(&kube, &[served(Place::A, "own"), served(Place::D, "own")]),
            Verdict::Different
        );
        // of the same endpoint, and of no other,
        assert_eq!(
            outside(&kube, &[served(Place::B, "own"), served(Place::D, masked)]),
            Verdict::Different
        );
        // with nothing missing and nothing more,
        assert_eq!(outside(&kube, &[served(Place::A, "own")]), Verdict::Different);
        let more = [served(Place::A, "own"), served(Place::D, masked), Answer::Silent];
        assert_eq!(outside(&kube, &more), Verdict::Different);
        // and what should differ must.
        assert_eq!(outside(&kube, &kube), Verdict::Different);
    }

    #[test]
    fn a_rule_is_for_its_client_and_policy() {
        let mut state = state();
        let (kube, weir) = ([served(Place::A, "10.244.1.1")], [served(Place::A, "own")]);
        assert_eq!(judge(&state, Client::PodPacket, &kube, &weir), Verdict::Different);
        state.services[0].external_local = true;
        assert_eq!(judge(&state, Client::Outside, &kube, &weir), Verdict::Different);
        assert_eq!(judge(&state, Client::Outside, &kube, &kube), Verdict::Same);
    }

    #[test]
    fn a_rule_may_hold_sometimes() {
        let state = state();
        let host = |weir| judge(&state, Client::Host, &[Answer::Silent], &[weir]);
        assert_eq!(host(Answer::Unreachable), Verdict::Listed([1].into()));
        assert_eq!(host(Answer::Silent), Verdict::Same);
        assert_eq!(host(Answer::Refused), Verdict::Different);
    }

    #[test]
    fn one_client_with_affinity_meets_any_endpoint() {
        let mut state = state();
        let (kube, weir) = (
            [served(Place::D, "172.30.0.11")],
            [served(Place::E, "172.30.0.11")],
        );
        assert_eq!(judge(&state, Client::Host, &kube, &weir), Verdict::Different);
        state.services[0].affinity = Some(60);
        assert_eq!(judge(&state, Client::Host, &kube, &weir), Verdict::Same);
        assert_eq!(
            judge(&state, Client::Host, &kube, &[Answer::Refused]),
            Verdict::Different
        );
        assert_eq!(judge(&state, Client::Outside, &kube, &weir), Verdict::Different);
    }

    #[test]
    fn the_list_says_why() {
        let expected = Expected::read().unwrap();
        assert!(!expected.difference.is_empty());
        for rule in &expected.difference {
            let is_issue = rule.see.starts_with("k8s#");
            let path = weir_lab::workspace_root().join(&rule.see);
            assert!(is_issue || path.is_file(), "{} does not exist", rule.see);
        }
        assert!(
            Expected::parse("[[difference]]\nreason = \"\"\nsee = \"x\"\nkube_proxy = []\nweir = \"silent\"")
                .is_err()
        );
    }
}
