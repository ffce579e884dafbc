//! Whether the API server answers, said once when it changes; and how long to wait before the next try.

use std::sync::Arc;
use std::time::Duration;

use kube::api::ApiResource;
use kube::runtime::watcher::{self, Event};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scope;
use crate::Metrics;
use crate::clock;
use crate::error::chain;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// After this long without an error the next one waits shortly again.
const GOOD_TIME: Duration = Duration::from_secs(60);

pub(crate) struct Link {
    resource: ApiResource,
    scope: Scope,
    /// Both, in words.
    what: String,
    /// Whether it is being followed, as the metric says.
    up: bool,
    /// Whether it was said that it is not.
    down: bool,
    wait: Duration,
    last_error: Option<Duration>,
    jitter: SmallRng,
    metrics: Arc<Metrics>,
}

impl Link {
    pub(crate) fn new(resource: ApiResource, scope: Scope, metrics: Arc<Metrics>) -> Self {
        let what = format!("{}{scope}", resource.plural);
        metrics.watching(&resource.plural, &what, false);
        Self {
            resource,
            scope,
            what,
            metrics,
            up: false,
            down: false,
            wait: FIRST_WAIT,
            last_error: None,
            jitter: SmallRng::from_os_rng(),
        }
    }

    /// What is followed, in words.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn works<K>(&mut self, event: &Event<K>) {
        // The beginning of a list is said before the server was asked.
        if matches!(event, Event::Init) {
            return;
        }
        self.count(true);
        if std::mem::replace(&mut self.down, false) {
            tracing::info!("the API server answers again for {}", self.what);
        }
    }

    pub(super) fn fails(&mut self, error: &watcher::Error) -> Duration {
        let now = clock::monotonic();
        let good = self
            .last_error
            .is_none_or(|last| now.saturating_sub(last) > GOOD_TIME);
        self.last_error = Some(now);
        self.wait = if good {
            FIRST_WAIT
        } else {
            (self.wait * 2).min(LONGEST_WAIT)
        };
        if is_routine(error) {
            tracing::debug!("{}: {}; listing again", self.what, chain(error));
            return self.pause();
        }
        self.count(false);
        if !std::mem::replace(&mut self.down, true) {
            tracing::warn!(
                "cannot follow {} at the API server: {}; {}; weir serves what it knows and tries again",
                self.what,
                chain(error),
                self.advice(error),
            );
        }
        self.pause()
    }

    fn count(&mut self, up: bool) {
        if std::mem::replace(&mut self.up, up) != up {
            self.metrics.watching(&self.resource.plural, &self.what, up);
        }
    }

    /// Jitter, so that the nodes of a cluster do not come back all at once.
    fn pause(&mut self) -> Duration {
        self.wait.mul_f64(self.jitter.random_range(0.5..1.5))
    }

    fn advice(&self, error: &watcher::Error) -> String {
        match status(error).map(|status| status.code) {
            Some(401) => "check the token or certificate in the kubeconfig".to_owned(),
            Some(403) => {
                let ApiResource { plural, group, .. } = &self.resource;
                let dot = if group.is_empty() { "" } else { "." };
                let scope = &self.scope;
                let role = scope.role();
                format!("weir needs list and watch on {plural}{dot}{group}{scope}: check its {role}")
            }
            _ => "check that it runs and that this node reaches it".to_owned(),
        }
    }
}

/// "Gone" is how an API server asks for a new list; it happens in good times too.
pub(super) fn is_routine(error: &watcher::Error) -> bool {
    status(error).is_some_and(|status| status.code == 410)
}

pub(super) fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}
