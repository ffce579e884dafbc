//! Does this node's proxy work, and should load balancers send here? What `/healthz` and `/livez` answer, with
//! kube-proxy's meaning (KEP-3836).
//!
//! ```text
//!  the loop takes news ──began──▶ busy ──done──▶ idle        busy for longer than LATE: stuck, 503
//!  the own Node: being deleted, gone, or tainted by the autoscaler: not eligible, 503 at /healthz only
//! ```
//!
//! A Service that the kernel refuses makes nobody unhealthy: restarting the agent, or sending the traffic of all others
//! elsewhere, would not help it. It is in the log and in the metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proxy_model::api::ApiNode;
use serde::Serialize;

use crate::clock::{self, WallClock};

/// News that took longer to be worked on than this are stuck: two sync periods of kube-proxy.
const LATE: Duration = Duration::from_secs(60);
/// Put on a node by the cluster autoscaler before it deletes it.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What the loop tells, and the HTTP thread reads.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// Since when the loop has been working on what it took.
    busy_since: Option<Duration>,
    /// When it was done last.
    updated: Option<Duration>,
    /// Whether the own Node says that it is about to go.
    going: bool,
}

/// Which question was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// `/livez`: does the agent work?
    Live,
    /// `/healthz`: and should load balancers send to this node?
    Healthy,
}

/// kube-proxy's answer, field by field.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Families>,
    #[serde(skip)]
    good: bool,
}

/// One loop serves both families.
#[derive(Debug, Serialize)]
struct Families {
    #[serde(rename = "IPv4")]
    v4: Family,
    #[serde(rename = "IPv6")]
    v6: Family,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    last_updated: String,
    healthy: bool,
}

impl Health {
    /// The loop has taken news.
    pub fn began(&self, now: Duration) {
        self.state().busy_since = Some(now);
    }

    /// The kernel was offered all of it.
    pub fn done(&self, now: Duration) {
        let mut state = self.state();
        state.busy_since = None;
        state.updated = Some(now);
    }

    /// The own Node is new or different.
    pub fn set_node(&self, node: &ApiNode) {
        self.state().going = is_going(node);
    }

    /// The own Node is not there, or no more.
    pub fn lost_node(&self) {
        self.state().going = true;
    }

    /// Whether the loop keeps up with what it is told.
    pub fn works(&self, now: Duration) -> bool {
        self.state().works(now)
    }

    /// Answers a probe.
    pub fn answer(&self, probe: Probe, now: Duration) -> Answer {
        let state = *self.state();
        state.answer(probe, now, clock::wall())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn works(self, now: Duration) -> bool {
        self.busy_since
            .is_none_or(|since| now.saturating_sub(since) < LATE)
    }

    fn answer(self, probe: Probe, now: Duration, wall: WallClock) -> Answer {
        let time = |at: Duration| wall.rfc3339(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
        let healthy = self.works(now);
        let node_eligible = (probe == Probe::Healthy).then_some(!self.going);
        let good = healthy && node_eligible.unwrap_or(true);
        let updated = self.updated.map(time);
        let status = updated.clone().map(|last_updated| {
            let family = Family {
                last_updated,
                healthy,
            };
            Families {
                v4: family.clone(),
                v6: family,
            }
        });
        // kube-proxy: the time of a good answer is always recent, whether or not anything has changed.
        let shown = if good { Some(time(now)) } else { updated };
        Answer {
            last_updated: shown.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
            current_time: time(now),
            node_eligible,
            healthy,
            status,
            good,
        }
    }
}

impl Answer {
    /// The status of the HTTP answer.
    pub fn code(&self) -> u16 {
        if self.good { 200 } else { 503 }
    }
}

fn is_going(node: &ApiNode) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_some()
        || taints
            .filter_map(|taint| taint.key.as_deref())
            .any(|key| key == TO_BE_DELETED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn ask(health: &Health, probe: Probe, now: u64) -> (u16, Value) {
        let answer = health.answer(probe, second(now));
        (answer.code(), serde_json::to_value(&answer).unwrap())
    }

    fn node(value: Value) -> ApiNode {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_agent_that_starts_is_healthy() {
        let (code, body) = ask(&Health::default(), Probe::Healthy, 5);
        assert_eq!(code, 200);
        assert_eq!(body["nodeEligible"], true);
        assert_eq!(body["healthy"], true);
        assert_eq!(body["lastUpdated"], body["currentTime"]);
        assert_eq!(body.get("status"), None);
    }

    #[test]
    fn work_that_is_never_done_is_stuck_after_a_minute() {
        let health = Health::default();
        health.began(second(10));
        health.done(second(11));
        assert_eq!(ask(&health, Probe::Live, 500).0, 200, "idle for long");
        health.began(second(1000));
        assert_eq!(ask(&health, Probe::Live, 1059).0, 200);
        for probe in [Probe::Live, Probe::Healthy] {
            let (code, body) = ask(&health, probe, 1060);
            assert_eq!((code, &body["healthy"]), (503, &json!(false)));
            assert_eq!(body["status"]["IPv6"]["healthy"], false);
            assert_eq!(body["lastUpdated"], body["status"]["IPv4"]["lastUpdated"]);
        }
        health.done(second(1100));
        assert_eq!(ask(&health, Probe::Healthy, 1100).0, 200);
    }

    #[test]
    fn a_node_that_is_about_to_go_is_alive_and_gets_no_new_traffic() {
        let tainted =
            json!({"spec": {"taints": [{"key": "other"}, {"key": TO_BE_DELETED, "effect": "NoSchedule"}]}});
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-11-21T14:03:12Z"}});
        for going in [tainted, deleted] {
            let health = Health::default();
            health.set_node(&node(going));
            let (code, body) = ask(&health, Probe::Healthy, 5);
            assert_eq!((code, &body["nodeEligible"]), (503, &json!(false)));
            let (code, body) = ask(&health, Probe::Live, 5);
            assert_eq!((code, body.get("nodeEligible")), (200, None));
            health.set_node(&node(json!({"spec": {"taints": [{"key": "other"}]}})));
            assert_eq!(ask(&health, Probe::Healthy, 5).0, 200);
            health.lost_node();
            assert_eq!(ask(&health, Probe::Healthy, 5).0, 503);
            assert_eq!(ask(&health, Probe::Live, 5).0, 200);
        }
    }
}
