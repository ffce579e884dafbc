//! How long it took from a change in the cluster to the kernel: what the control plane wrote on the slices, remembered
//! until the kernel has them.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use proxy_model::api::ApiEndpointSlice;
use proxy_model::{Change, Family, Kind, Object, ObjectName};

/// When that happened which made the control plane write this slice.
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Changes under way.
#[derive(Debug)]
pub struct Latency {
    /// Since 1970. What was triggered before that waited for the agent, not for its work.
    started: Duration,
    /// The last trigger of each slice that changed since: it stays on the slice, and comes again with every list.
    seen: HashMap<ObjectName, Duration>,
    under_way: Vec<(Family, Duration)>,
}

impl Latency {
    /// An agent that starts now.
    pub fn new(started: Duration) -> Self {
        Self {
            started,
            seen: HashMap::new(),
            under_way: Vec::new(),
        }
    }

    /// Takes in news, before the kernel has it.
    pub fn observe(&mut self, change: &Change) {
        match change {
            Change::Put(Object::EndpointSlice(slice)) => {
                if let Some((family, at)) = self.news(slice) {
                    self.under_way.push((family, at));
                }
            }
            // A deletion says nothing about when it was decided.
            Change::Delete(Kind::EndpointSlice, name) => drop(self.seen.remove(name)),
            _ => {}
        }
    }

    fn news(&mut self, slice: &ApiEndpointSlice) -> Option<(Family, Duration)> {
        let at = slice.metadata.annotations.as_ref()?.get(TRIGGERED)?;
        let at = at.parse::<Timestamp>().ok()?.as_duration();
        let at = Duration::try_from(at).ok().filter(|at| *at > self.started)?;
        let family = match slice.address_type.as_deref()? {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            _ => return None,
        };
        let name = Object::EndpointSlice(slice.clone()).name();
        let new = self.seen.insert(name, at).is_none_or(|before| before < at);
        new.then_some((family, at))
    }

    /// The kernel has everything now: how long each of it took. A clock that is ahead of ours took no time.
    pub fn done(&mut self, now: Duration) -> impl Iterator<Item = (Family, Duration)> {
        let took = move |(family, at): (Family, Duration)| (family, now.saturating_sub(at));
        self.under_way.drain(..).map(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2026-11-21T12:00:00Z
    const NOON: Duration = Duration::from_hours(498_684);

    fn slice(name: &str, at: &str) -> Change {
        let object = Object::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv6",
            "metadata": {"name": name, "annotations": {TRIGGERED: at}},
        }));
        Change::Put(object.unwrap().unwrap())
    }

    fn took(latency: &mut Latency, after_noon: u64) -> Vec<u128> {
        let now = NOON + Duration::from_secs(after_noon);
        latency.done(now).map(|(_, took)| took.as_millis()).collect()
    }

    #[test]
    fn each_trigger_is_measured_once() {
        let mut latency = Latency::new(NOON);
        latency.observe(&slice("a", "2026-11-21T12:00:05.25Z"));
        latency.observe(&slice("b", "2026-11-21T12:00:06Z"));
        assert_eq!(took(&mut latency, 7), [1750, 1000]);
        assert_eq!(took(&mut latency, 8), []);
        // The same slice again, as in a new list; then with something new.
        latency.observe(&slice("a", "2026-11-21T12:00:05.25Z"));
        assert_eq!(took(&mut latency, 60), []);
        latency.observe(&slice("a", "2026-11-21T12:00:59Z"));
        assert_eq!(took(&mut latency, 60), [1000]);
    }

    #[test]
    fn what_says_nothing_useful_is_left_out() {
        let mut latency = Latency::new(NOON);
        for at in ["", "yesterday", "2026-11-21T11:59:59Z", "1960-01-01T00:00:00Z"] {
            latency.observe(&slice("a", at));
        }
        assert_eq!(took(&mut latency, 7), []);
        latency.observe(&slice("a", "2026-11-21T12:00:09Z"));
        assert_eq!(took(&mut latency, 7), [0], "another clock is ahead");
    }
}
