//! A state of the cluster: what there is at one time, by its number alone.
//!
//! State N+1 is state N with some changes, so a run over many states shows whether updates are followed. Any state can
//! be made without those before it: that is how a difference is tried again.

use crate::dice::Dice;
use crate::generate;
use crate::service::Service;

/// Services at a time.
pub const SLOTS: u8 = 6;

/// States that a Service lives in.
const LIFE: u64 = 12;

/// States in which the node stays in its zone.
const STAY: u64 = 8;

/// What there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Its number, which is all that it is made from.
    pub number: u64,
    /// Label of the node.
    pub zone: &'static str,
    /// In the order of their slots.
    pub services: Vec<Service>,
}

impl State {
    /// The state with this number.
    pub fn number(number: u64) -> Self {
        Self {
            number,
            zone: Dice::new(&[number / STAY, 1 << 40]).pick("zone-a", &["zone-b"]),
            services: (1..=SLOTS).map(|slot| service(slot, number)).collect(),
        }
    }
}

/// What has become of a slot's Service by then.
fn service(slot: u8, number: u64) -> Service {
    // Lives begin at different times, and state 0 is in the midst of all.
    let time = number.wrapping_add(u64::from(slot) * 5);
    let life = time / LIFE;
    let mut service = generate::service(slot, life);
    for age in 1..=time % LIFE {
        let mut dice = Dice::new(&[u64::from(slot), life, age]);
        if dice.chance(40) {
            generate::change(&mut dice, &mut service);
        }
    }
    service
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Kind;

    #[test]
    fn a_state_is_its_number() {
        assert_eq!(State::number(4711), State::number(4711));
        assert_ne!(State::number(4711).services, State::number(4712).services);
    }

    #[test]
    fn most_of_a_state_stays() {
        let same = |number| {
            let (one, next) = (State::number(number), State::number(number + 1));
            one.services
                .iter()
                .zip(&next.services)
                .filter(|(a, b)| a == b)
                .count()
        };
        let sum: usize = (0..1000).map(same).sum();
        assert!((2800..4800).contains(&sum), "{sum} of 6000 stayed");
    }

    /// A run of 500 states sees each of these, so a generator that forgets one is noticed.
    #[test]
    fn everything_comes() {
        let states: Vec<_> = (1..=500).map(State::number).collect();
        let count = |what: &dyn Fn(&Service) -> bool| {
            states
                .iter()
                .flat_map(|state| &state.services)
                .filter(|service| what(service))
                .count()
        };
        let any = |what: fn(&crate::service::Endpoint) -> bool| {
            count(&|service| service.slices.iter().flat_map(|slice| &slice.endpoints).any(what))
        };
        let counts = [
            ("headless", count(&|service| service.kind == Kind::Headless)),
            (
                "external name",
                count(&|service| service.kind == Kind::ExternalName),
            ),
            ("foreign", count(&|service| service.foreign)),
            ("affinity", count(&|service| service.affinity.is_some())),
            (
                "internal Local",
                count(&|service| service.internal_local && service.is_proxied()),
            ),
            (
                "external Local",
                count(&|service| service.external_local && service.is_external()),
            ),
            (
                "no node ports",
                count(&|service| service.kind == Kind::LoadBalancer && !service.node_ports),
            ),
            (
                "ranges",
                count(&|service| service.kind == Kind::LoadBalancer && !service.source_ranges.is_empty()),
            ),
            (
                "ipMode Proxy",
                count(&|service| {
                    service
                        .ingress
                        .iter()
                        .any(|ingress| ingress.mode == Some("Proxy"))
                }),
            ),
            ("no endpoints", count(&|service| service.slices.is_empty())),
            ("several ports", count(&|service| service.ports.len() > 1)),
            ("zone hints", any(|endpoint| !endpoint.zones.is_empty())),
            ("node hints", any(|endpoint| !endpoint.nodes.is_empty())),
            ("terminating", any(|endpoint| endpoint.terminating == Some(true))),
            ("no node", any(|endpoint| !endpoint.node)),
        ];
        for (what, count) in counts {
            assert!(count >= 8, "{what}: {count} of 3000");
        }
    }
}
