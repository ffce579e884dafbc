//! Where objects come from: a Kubernetes API server, or a folder of manifests. The same for the node agent and the ingress.
//!
//! ```text
//!  kube.rs ───┐
//!             ├──▶ Change, Change, … ──▶ who asked
//!  folder.rs ─┘
//! ```
//!
//! A source sends `Replace` for a kind once it has seen *all* objects of that kind, and changes after that. It never
//! ends because something cannot be read: it says so once, and goes on with what it knew.

#![forbid(unsafe_code)]

pub mod clock;
pub mod error;
pub mod folder;
pub mod kube;
mod manifest;
mod metrics;
mod raw;
mod report;
mod reported;
mod status;
mod watch;

pub use metrics::Metrics;
pub use report::{Report, Sentences, replace};
pub use reported::Reported;
pub use status::Statuses;

use futures::future::BoxFuture;
use proxy_model::{Change, Problem};
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;

/// All that is wrong with objects now.
pub type Problems = Vec<Problem>;

/// Changes that belong together: the model sees them before it plans again.
pub type Changes = Vec<Change>;

/// Something that tells which objects there are.
pub trait Source: Send {
    /// What to call it in the log.
    fn describe(&self) -> String;

    /// Tells the owners of objects what is wrong with them, until the sender is gone. It is in the log in any case, and
    /// that is where whoever keeps a folder looks.
    fn tell(&self, _problems: Receiver<Problems>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Sees to it that Ingresses say where clients connect, until the sender is gone; then it lets another one do it: whoever
    /// ends should wait for that. To be called before [`Self::run`]. A folder has no use for it.
    fn publish(&self, _statuses: Receiver<Statuses>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether it tells of no Node but the own one.
    fn only_own_node(&self) -> bool {
        false
    }

    /// Sends changes until the receiver is gone. An error means that this source can never work as it was configured.
    fn run(self: Box<Self>, changes: mpsc::Sender<Changes>) -> BoxFuture<'static, Result<(), SourceError>>;
}

/// Why a source cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The kubeconfig file is no use.
    #[error("reading the kubeconfig {path}, which {named_by} names: check that file")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Who names it.
        named_by: String,
        /// Why.
        #[source]
        source: Box<::kube::config::KubeconfigError>,
    },
    /// It names no API server that can be asked.
    #[error(
        "the kubeconfig {path}, which {named_by} names, has {found:?} in clusters[].cluster.server: {why}"
    )]
    Server {
        /// The file.
        path: String,
        /// Who names it.
        named_by: String,
        /// What stands there.
        found: String,
        /// What to write.
        why: kube::NotAServer,
    },
    /// Not in a pod.
    #[error(
        "no API server is configured: give --manifests DIR or --kubeconfig FILE, or run in a pod with a service account"
    )]
    InCluster(#[source] Box<::kube::config::InClusterError>),
    /// The client could not be made.
    #[error("setting up the client for the API server {url}")]
    Client {
        /// The server.
        url: String,
        /// Why.
        #[source]
        source: Box<::kube::Error>,
    },
    /// Only a bug in the source itself ends it.
    #[error("reading the manifests in {0} ended unexpectedly: please report this")]
    Ended(String),
}
