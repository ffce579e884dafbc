//! What is wrong with objects, as Events beside them: `kubectl describe` and `kubectl get events` show them.
//!
//! Best effort: the log has it all. An API server that is away, or refuses, costs one warning.

use std::time::Duration;

use hyper::StatusCode;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use proxy_model::{Kind, Problem, Reason};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::told::{Next, Outcome, Saying, Told, shortened};
use crate::Problems;
use crate::clock;
use crate::error::chain;

/// Bytes of `reportingInstance` that the API takes.
const INSTANCE: usize = 128;
/// An answer that takes longer is none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Writes Events about problems until nobody can have any more. The controller is who says it: kube-proxy calls itself
/// `kube-proxy` there.
pub(super) async fn tell(
    client: Client,
    (controller, node): (&'static str, String),
    mut problems: watch::Receiver<Problems>,
) {
    let mut writer = Writer {
        client,
        controller,
        instance: shortened(&format!("{controller}-{node}"), INSTANCE),
        silent: false,
    };
    let mut told = Told::new(node);
    told.learn(&problems.borrow_and_update(), clock::monotonic());
    loop {
        let now = clock::monotonic();
        let pause = match told.next(now) {
            Next::Say(saying) => {
                let outcome = writer.write(&saying).await;
                told.said(&saying, outcome, clock::monotonic());
                Some(Duration::ZERO)
            }
            Next::Wait(at) => Some(at.saturating_sub(now)),
            Next::Idle => None,
        };
        tokio::select! {
            biased;
            changed = problems.changed() => {
                if changed.is_err() {
                    return;
                }
                told.learn(&problems.borrow_and_update(), clock::monotonic());
            }
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

struct Writer {
    client: Client,
    controller: &'static str,
    instance: String,
    /// Whether it was said that Events cannot be written.
    silent: bool,
}

impl Writer {
    async fn write(&mut self, saying: &Saying) -> Outcome {
        let namespace = namespace(&saying.problem);
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = timestamp();
        let answer = timeout(ANSWERS_WITHIN, async {
            if saying.count > 1 {
                let series = json!({"series": {"count": saying.count, "lastObservedTime": MicroTime(now)}});
                let patch = Patch::Merge(series);
                events.patch(&saying.name, &PatchParams::default(), &patch).await
            } else {
                let event = self.event(saying, namespace, now);
                events.create(&PostParams::default(), &event).await
            }
        });
        match answer.await {
            Ok(Ok(_)) => self.heard(),
            Ok(Err(error)) => self.judge(saying, &error),
            Err(_) => self.unheard(&format!("no answer within {ANSWERS_WITHIN:?}")),
        }
    }

    fn judge(&mut self, saying: &Saying, error: &Error) -> Outcome {
        let Error::Api(status) = error else {
            return self.unheard(&chain(error));
        };
        match StatusCode::from_u16(status.code).unwrap_or_default() {
            // It stands there already.
            StatusCode::CONFLICT => self.heard(),
            StatusCode::NOT_FOUND if saying.count > 1 => Outcome::Forgotten,
            // Nothing is written into a namespace that is going, and nobody would read it.
            StatusCode::NOT_FOUND => Outcome::Settled,
            StatusCode::FORBIDDEN if status.message.contains("being terminated") => Outcome::Settled,
            StatusCode::TOO_MANY_REQUESTS => self.unheard(&status.message),
            code if code.is_server_error() => self.unheard(&status.message),
            _ => {
                self.warn(&status.message);
                Outcome::Settled
            }
        }
    }

    fn heard(&mut self) -> Outcome {
        if std::mem::replace(&mut self.silent, false) {
            tracing::info!("the API server takes Events again");
        }
        Outcome::Settled
    }

    fn unheard(&mut self, why: &str) -> Outcome {
        self.warn(why);
        Outcome::Unheard
    }

    fn warn(&mut self, why: &str) {
        if !std::mem::replace(&mut self.silent, true) {
            tracing::warn!(
                "cannot write Events: {why}; what is wrong with objects is in this log only; weir needs create and \
                 patch on events.events.k8s.io: check its ClusterRole"
            );
        }
    }

    fn event(&self, saying: &Saying, namespace: &str, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(saying.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.controller.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some("Warning".to_owned()),
            reason: Some(saying.problem.reason.name().to_owned()),
            action: Some(action(saying.problem.reason).to_owned()),
            regarding: Some(regarding(&saying.problem)),
            note: Some(saying.note.clone()),
            ..Event::default()
        }
    }
}

/// Now, as the API wants it.
pub(super) fn timestamp() -> Timestamp {
    let unix = clock::wall().unix(clock::monotonic());
    let microseconds = i64::try_from(unix.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(microseconds).unwrap_or_default()
}

/// Events about objects of no namespace are in this one.
fn namespace(problem: &Problem) -> &str {
    match problem.name.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    }
}

/// What weir was about to do.
fn action(reason: Reason) -> &'static str {
    match reason {
        Reason::NotServed => "Read",
        Reason::FrontendRefused => "Claim",
        Reason::FailedToProgram => "Program",
        // kube-proxy's word.
        Reason::FailedToStartServiceHealthcheck => "Listen",
    }
}

/// With its `uid`: `kubectl describe` asks for Events by it. A Node is known by its name there, as the kubelet does it.
fn regarding(problem: &Problem) -> ObjectReference {
    let uid = match problem.kind {
        Kind::Node => Some(problem.name.name.clone()),
        _ => problem.uid.clone(),
    };
    let namespace = Some(problem.name.namespace.clone());
    ObjectReference {
        api_version: Some(problem.kind.api_version().to_owned()),
        kind: Some(problem.kind.to_string()),
        name: Some(problem.name.name.clone()),
        namespace: namespace.filter(|name| !name.is_empty()),
        uid,
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests;
