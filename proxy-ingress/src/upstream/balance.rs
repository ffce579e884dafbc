//! Which endpoint. Pure: the draw comes in as a number.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, Uri};

use super::health::Share;
use super::{Endpoint, EndpointSet, Upstream};
use crate::clock;
use crate::mix::{below, hash, mix};
use crate::route::{Balance, Cookie, HashOn};

/// What the choice depends on.
pub(crate) struct Choice<'a> {
    pub(crate) balance: &'a Balance,
    /// What [`key`] made of the request.
    pub(crate) key: Option<u64>,
    /// [`Endpoint::key`]s of those that were tried for this request.
    pub(crate) tried: &'a [u64],
    pub(crate) random: u64,
    pub(crate) slow_return: Duration,
}

/// What a request is hashed by, or the endpoint that its cookie names.
pub(crate) fn key(balance: &Balance, client: IpAddr, headers: &HeaderMap, uri: &Uri) -> Option<u64> {
    match balance {
        Balance::RoundRobin | Balance::LeastRequests | Balance::PeakEwma => None,
        Balance::Hash(HashOn::Client) => Some(match client {
            IpAddr::V4(v4) => hash(&v4.octets()),
            IpAddr::V6(v6) => hash(&v6.octets()),
        }),
        Balance::Hash(HashOn::Header(name)) => headers.get(name).map(|value| hash(value.as_bytes())),
        Balance::Hash(HashOn::Uri) => {
            let uri = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            Some(hash(uri.as_bytes()))
        }
        Balance::Cookie(cookie) => named_in_cookie(cookie, headers),
    }
}

/// The endpoint that a cookie names.
fn named_in_cookie(cookie: &Cookie, headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(http::header::COOKIE).iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    let mut named = pairs.filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = named.find(|(name, _)| *name == &*cookie.name)?;
    u64::from_str_radix(value, 16).ok()
}

/// The header that makes a client come back to an endpoint.
pub(crate) fn cookie_for(cookie: &Cookie, endpoint: u64) -> String {
    let mut text = format!("{}={endpoint:016x}; Path={}; HttpOnly", cookie.name, cookie.path);
    if let Some(age) = cookie.max_age {
        // Writing to a String cannot fail.
        let _written = write!(text, "; Max-Age={}", age.as_secs());
    }
    if cookie.secure {
        text.push_str("; Secure");
    }
    text
}

impl Upstream {
    /// An endpoint for a request that it has not been tried for.
    pub(crate) fn pick(&self, choice: &Choice<'_>) -> Option<Arc<Endpoint>> {
        self.set.load().pick(choice)
    }
}

impl EndpointSet {
    fn pick(&self, choice: &Choice<'_>) -> Option<Arc<Endpoint>> {
        // The only one is asked even if it is ill: it may be the network, and there is nobody else.
        if let [only] = self.usable.as_slice() {
            return (!choice.tried.contains(&only.key)).then(|| Arc::clone(only));
        }
        let well = |endpoint: &Endpoint| choice.takes(endpoint);
        let untried = |endpoint: &Endpoint| !choice.tried.contains(&endpoint.key);
        // One turn for both looks: with two endpoints, two turns per request would be the same one's each time.
        let mut turn = None;
        let found = self
            .choose(choice, &mut turn, well)
            .or_else(|| self.choose(choice, &mut turn, untried))?;
        Some(Arc::clone(found))
    }

    fn choose(
        &self,
        choice: &Choice<'_>,
        turn: &mut Option<usize>,
        may: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        match (choice.balance, choice.key) {
            (Balance::Hash(_), Some(key)) => self.highest(key, may),
            (Balance::Cookie(_), Some(key)) => self
                .usable
                .iter()
                .find(|endpoint| endpoint.key == key && may(endpoint))
                .or_else(|| self.in_turn(turn, may)),
            (Balance::LeastRequests, _) => {
                self.better(choice.random, may, |endpoint| u64::from(endpoint.load.active()))
            }
            (Balance::PeakEwma, _) => self.better(choice.random, may, |endpoint| endpoint.load.cost()),
            (Balance::RoundRobin | Balance::Hash(_) | Balance::Cookie(_), _) => self.in_turn(turn, may),
        }
    }

    fn in_turn(&self, turn: &mut Option<usize>, may: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let turn = *turn.get_or_insert_with(|| self.next.fetch_add(1, Ordering::Relaxed));
        self.from(turn.checked_rem(self.usable.len())?)
            .find(|endpoint| may(endpoint))
    }

    /// All of them, this one first.
    fn from(&self, at: usize) -> impl Iterator<Item = &Arc<Endpoint>> {
        let (before, after) = self.usable.split_at_checked(at).unwrap_or((&[], &self.usable));
        after.iter().chain(before)
    }

    /// Of two drawn, the one that costs less: nearly as good as the best of all, and no herd runs to it.
    fn better(
        &self,
        random: u64,
        may: impl Fn(&Endpoint) -> bool,
        cost: impl Fn(&Endpoint) -> u64,
    ) -> Option<&Arc<Endpoint>> {
        let count = self.usable.len();
        let first = below(count, random);
        let step = below(count.saturating_sub(1), mix(random)) + 1;
        let second = (first + step).checked_rem(count)?;
        let one = self.from(first).find(|endpoint| may(endpoint))?;
        let two = self.from(second).find(|endpoint| may(endpoint))?;
        Some(if cost(two) < cost(one) { two } else { one })
    }

    /// Rendezvous: an endpoint that goes takes along only its own keys.
    fn highest(&self, key: u64, may: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let candidates = self.usable.iter().filter(|endpoint| may(endpoint));
        candidates.max_by_key(|endpoint| mix(key ^ endpoint.key))
    }
}

impl Choice<'_> {
    fn takes(&self, endpoint: &Endpoint) -> bool {
        if self.tried.contains(&endpoint.key) {
            return false;
        }
        match endpoint.health.share(clock::now, self.slow_return) {
            Share::Full => true,
            Share::None => false,
            Share::Part(part) => self.random & 255 < u64::from(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::UpstreamTls;
    use super::*;
    use crate::route;
    use crate::settings::Upstreams;

    fn upstream(count: u16) -> Upstream {
        let backend = route::Backend {
            service: proxy_model::ObjectName::new("a", "b"),
            port: "http".into(),
        };
        let upstream = Upstream::new(backend, None, UpstreamTls::unverified().unwrap(), 1);
        upstream.set_endpoints(&endpoints(count));
        upstream
    }

    fn endpoints(count: u16) -> Vec<route::Endpoint> {
        let endpoint = |number| route::Endpoint {
            address: ([10, 0, 0, 1], number).into(),
            zone: None,
            terminating: false,
        };
        (1..=count).map(endpoint).collect()
    }

    fn pick(
        upstream: &Upstream,
        balance: &Balance,
        key: Option<u64>,
        random: u64,
        tried: &[u64],
    ) -> Option<u16> {
        let choice = Choice {
            balance,
            key,
            tried,
            random,
            slow_return: Duration::ZERO,
        };
        upstream.pick(&choice).map(|endpoint| endpoint.address.port())
    }

    fn eject(upstream: &Upstream, port: u16) {
        for endpoint in &upstream.set.load().all {
            if endpoint.address.port() == port {
                for _ in 0..3 {
                    endpoint
                        .health
                        .failed(clock::now() + 100_000, &Upstreams::default());
                }
            }
        }
    }

    #[test]
    fn in_turn_and_never_the_one_that_was_tried() {
        let upstream = upstream(3);
        let turn: Vec<_> = (0..6)
            .filter_map(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[]))
            .collect();
        assert_eq!(turn, [1, 2, 3, 1, 2, 3]);
        let two = upstream.set.load().all[1].key;
        let turn: Vec<_> = (0..6)
            .filter_map(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[two]))
            .collect();
        assert!(!turn.contains(&2) && turn.len() == 6);
        let all: Vec<u64> = upstream
            .set
            .load()
            .all
            .iter()
            .map(|endpoint| endpoint.key)
            .collect();
        assert_eq!(pick(&upstream, &Balance::RoundRobin, None, 0, &all), None);
    }

    #[test]
    fn what_is_ejected_gets_nothing_unless_all_are() {
        let upstream = upstream(3);
        eject(&upstream, 1);
        eject(&upstream, 3);
        for balance in [
            Balance::RoundRobin,
            Balance::LeastRequests,
            Balance::PeakEwma,
            Balance::Hash(HashOn::Uri),
        ] {
            for random in 0..50 {
                assert_eq!(pick(&upstream, &balance, Some(random), mix(random), &[]), Some(2));
            }
        }
        eject(&upstream, 2);
        let ports: Vec<_> = (0..6)
            .filter_map(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[]))
            .collect();
        assert!(
            (1..=3).all(|port| ports.iter().filter(|there| **there == port).count() == 2),
            "{ports:?}"
        );
    }

    #[test]
    fn two_that_are_both_ill_take_turns() {
        let upstream = upstream(2);
        eject(&upstream, 1);
        eject(&upstream, 2);
        let ports: Vec<_> = (0..4)
            .filter_map(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[]))
            .collect();
        assert!(ports == [1, 2, 1, 2] || ports == [2, 1, 2, 1], "{ports:?}");
    }

    #[test]
    fn a_terminating_endpoint_gets_requests_only_while_all_are() {
        let upstream = upstream(2);
        let mut some = endpoints(2);
        some[0].terminating = true;
        upstream.set_endpoints(&some);
        assert!((0..4).all(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[]) == Some(2)));
        some[1].terminating = true;
        upstream.set_endpoints(&some);
        let turn: Vec<_> = (0..2)
            .filter_map(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[]))
            .collect();
        assert_eq!(turn.len(), 2);
        assert_ne!(turn[0], turn[1]);
    }

    #[test]
    fn who_stays_keeps_health_and_who_comes_back_begins_anew() {
        let upstream = upstream(2);
        eject(&upstream, 1);
        upstream.set_endpoints(&endpoints(3));
        assert!((0..6).all(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[]) != Some(1)));
        upstream.set_endpoints(&[]);
        assert_eq!(pick(&upstream, &Balance::RoundRobin, None, 0, &[]), None);
        upstream.set_endpoints(&endpoints(3));
        assert!((0..6).any(|_| pick(&upstream, &Balance::RoundRobin, None, 0, &[]) == Some(1)));
    }

    #[test]
    fn the_less_busy_of_two_is_taken_and_both_are_drawn() {
        let upstream = upstream(2);
        upstream.set.load().all[0].load.begin();
        assert!((0..50).all(|n| pick(&upstream, &Balance::LeastRequests, None, mix(n), &[]) == Some(2)));
        upstream.set.load().all[0].load.end();
        upstream.set.load().all[1].load.answered(Duration::from_millis(5));
        assert!((0..50).all(|n| pick(&upstream, &Balance::PeakEwma, None, mix(n), &[]) == Some(1)));
        let mut counts: HashMap<u16, u32> = HashMap::new();
        for n in 0..1000 {
            *counts
                .entry(pick(&upstream, &Balance::LeastRequests, None, mix(n), &[]).unwrap())
                .or_default() += 1;
        }
        assert!(counts.values().all(|count| *count > 300), "{counts:?}");
    }

    #[test]
    fn a_hash_moves_only_the_keys_of_the_endpoint_that_went() {
        let upstream = upstream(5);
        let on = Balance::Hash(HashOn::Uri);
        let at = |upstream: &Upstream| -> Vec<_> {
            (0..500)
                .map(|n| pick(upstream, &on, Some(mix(n)), 0, &[]).unwrap())
                .collect()
        };
        let before = at(&upstream);
        assert!((1..=5).all(|port| before.iter().filter(|there| **there == port).count() > 50));
        let mut left = endpoints(5);
        left.remove(2);
        upstream.set_endpoints(&left);
        for (before, after) in before.iter().zip(at(&upstream)) {
            assert!(*before == after || *before == 3);
        }
    }

    #[test]
    fn a_cookie_brings_a_client_back_and_a_strange_one_does_no_harm() {
        let upstream = upstream(3);
        let cookie = Cookie {
            name: "at".into(),
            max_age: Some(Duration::from_secs(60)),
            path: "/".into(),
            secure: true,
        };
        let endpoint = upstream.set.load().all[2].key;
        let text = cookie_for(&cookie, endpoint);
        assert_eq!(
            text,
            format!("at={endpoint:016x}; Path=/; HttpOnly; Max-Age=60; Secure")
        );
        let mut headers = HeaderMap::new();
        let sent = format!("a=b; at={endpoint:016x}");
        headers.insert("cookie", sent.parse().unwrap());
        let balance = Balance::Cookie(cookie);
        let client = IpAddr::from([10, 0, 0, 9]);
        let named = key(&balance, client, &headers, &Uri::default());
        assert_eq!(named, Some(endpoint));
        assert!((0..5).all(|_| pick(&upstream, &balance, named, 0, &[]) == Some(3)));
        headers.insert("cookie", "at=zzz".parse().unwrap());
        assert_eq!(key(&balance, client, &headers, &Uri::default()), None);
        assert!(pick(&upstream, &balance, Some(77), 0, &[]).is_some());
    }
}
