//! Objects from a Kubernetes API server, listed and watched; and Events about what is wrong with them back to it.
//!
//! The connection is the client's business; what it brings is judged here, object by object, so that one that cannot
//! be decoded costs itself and nothing else. While the API server is away, weir serves what it knows.

mod connection;
mod events;
mod follow;
mod kubeconfig;
mod lease;
mod publish;
mod secrets;
mod servers;
mod told;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::Uri;
use kube::Config;
use lease::{Candidate, Times};
use proxy_model::{Kind, ObjectName};
use publish::{Board, Writer};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use secrets::Secrets;
use servers::Servers;
use tokio::sync::{mpsc, watch};

pub use self::follow::Follow;
pub use self::kubeconfig::{KubeconfigFile, NotAServer, secure_server, server};
pub use self::lease::LeaseName;

use super::watch::{Heard, Known, Merge};
use super::{Changes, Source, SourceError};
use crate::Metrics;
use crate::{Problems, Statuses};

/// A request that was sent and never answered.
const READ_TIMEOUT: Duration = Duration::from_secs(250);

/// The Kubernetes source.
pub struct Kube {
    servers: Servers,
    follows: Vec<Follow>,
    secrets: Option<watch::Receiver<BTreeSet<ObjectName>>>,
    controller: &'static str,
    node: String,
    lease: Option<LeaseName>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
}

/// Where the API server is, and who asks.
#[derive(Debug)]
pub struct Options {
    /// The kubeconfig file; none means the service account of the pod.
    pub kubeconfig: Option<KubeconfigFile>,
    /// Addresses of API servers, instead of the one that the configuration names.
    pub api_servers: Vec<Uri>,
    /// Which objects are wanted.
    pub follows: Vec<Follow>,
    /// Which Secrets are wanted. Of others only name and version are looked at, and without this of none. Each of them is
    /// answered with a `Put`, or a `Delete` if it is not there; a `Replace` never comes. Where they are looked for is what
    /// [`Follow::secrets`] among `follows` says, or everywhere.
    pub secrets: Option<watch::Receiver<BTreeSet<ObjectName>>>,
    /// Who writes the Events.
    pub controller: &'static str,
    /// The name of the own Node, or of whoever else says it.
    pub node: String,
    /// By which Lease one of several is chosen to write the status of Ingresses; none: nobody does.
    pub lease: Option<LeaseName>,
    /// Whether it is weir on this node that serves ClusterIPs: an API server must not be asked by one then.
    pub serves_cluster_ips: bool,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Kube {
    /// By a kubeconfig file, or by the service account of the pod that weir runs in.
    pub async fn connect(options: Options) -> Result<Self, SourceError> {
        let (config, by_cluster_ip) = match &options.kubeconfig {
            Some(file) => (kubeconfig::read(file).await?, false),
            None => in_cluster(!options.api_servers.is_empty(), options.serves_cluster_ips)?,
        };
        Self::over(config, by_cluster_ip, options)
    }

    fn over(mut config: Config, by_cluster_ip: bool, options: Options) -> Result<Self, SourceError> {
        config.read_timeout = Some(READ_TIMEOUT);
        // A connection that waited in the pool must not have used up its time there.
        config.reset_reader_on_write = true;
        let Options {
            api_servers, metrics, ..
        } = options;
        let url = config.cluster_url.to_string();
        // Each node begins with another server.
        let turn = usize::from(SmallRng::from_os_rng().random::<u16>());
        let servers = Servers::new(config, &api_servers, by_cluster_ip, turn, Arc::clone(&metrics));
        let wrap = |error| SourceError::Client {
            url,
            source: Box::new(error),
        };
        Ok(Self {
            servers: servers.map_err(wrap)?,
            follows: options.follows,
            secrets: options.secrets,
            controller: options.controller,
            node: options.node,
            lease: options.lease,
            board: Arc::default(),
            metrics,
        })
    }

    fn secrets(&self) -> Option<Secrets> {
        let wanted = self.secrets.clone()?;
        let mut parts = follow::parts(&self.follows, Kind::Secret);
        if parts.is_empty() {
            parts = follow::parts(&[Follow::secrets()], Kind::Secret);
        }
        Some(Secrets {
            client: self.servers.client(),
            parts,
            wanted,
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Follows one kind, in all its parts.
    async fn follow(&self, kind: Kind, changes: mpsc::Sender<Changes>) {
        let parts = follow::parts(&self.follows, kind);
        let count = parts.len();
        let (tell, told) = mpsc::channel(1);
        let watches = parts.into_iter().enumerate().map(|(place, part)| {
            let known = Known::new(place, kind, follow::resource(kind));
            let watch = part.watch(self.servers.client(), known, Arc::clone(&self.metrics));
            watch.run(tell.clone())
        });
        let watches = futures::future::join_all(watches);
        // Whoever ends first, nobody listens any more.
        tokio::select! {
            _ = watches => {}
            () = self.pass_on(kind, (told, count), &changes) => {}
            () = changes.closed() => {}
        }
    }

    async fn pass_on(
        &self,
        kind: Kind,
        (mut told, parts): (mpsc::Receiver<Heard>, usize),
        changes: &mpsc::Sender<Changes>,
    ) {
        let mut merge = Merge::new(kind, parts);
        while let Some((place, found)) = told.recv().await {
            let batch = merge.take(place, found);
            match kind {
                // They tell also where the API servers are.
                Kind::EndpointSlice => self.servers.learn(&batch),
                Kind::Ingress => self.board.hear(&batch),
                _ => {}
            }
            if !batch.is_empty() && changes.send(batch).await.is_err() {
                return;
            }
        }
    }
}

/// By the service account of the pod; and whether by a ClusterIP. The address does not matter if others are `named`.
fn in_cluster(named: bool, serves_cluster_ips: bool) -> Result<(Config, bool), SourceError> {
    let wrap = |error| SourceError::InCluster(Box::new(error));
    if named {
        return Ok((Config::incluster_dns().map_err(wrap)?, false));
    }
    let config = Config::incluster_env().map_err(wrap)?;
    let variable = |name| std::env::var(name).unwrap_or_default();
    let host = variable("KUBERNETES_SERVICE_HOST");
    let by_cluster_ip = is_cluster_ip(&host, &variable("KUBERNETES_PORT"));
    if by_cluster_ip && serves_cluster_ips {
        tracing::warn!(
            "the agent reaches the API server by the ClusterIP {host}, which weir itself serves: on a fresh node nobody \
             does; name an address where an API server listens with --api-server https://ADDRESS:PORT"
        );
    }
    Ok((config, by_cluster_ip))
}

/// Whether this host is the ClusterIP of the Service `kubernetes`. The kubelet tells every pod twice: once as the host,
/// which a manifest may set to something else, and once as `tcp://ADDRESS:PORT`, which nobody touches.
fn is_cluster_ip(host: &str, told: &str) -> bool {
    let socket = told.strip_prefix("tcp://").unwrap_or_default();
    let address = socket.rsplit_once(':').map_or("", |(address, _)| address);
    !host.is_empty() && address.trim_matches(['[', ']']) == host
}

impl Source for Kube {
    fn describe(&self) -> String {
        format!("the API server {}", self.servers.describe())
    }

    fn tell(&self, problems: watch::Receiver<Problems>) -> BoxFuture<'static, ()> {
        Box::pin(events::tell(
            self.servers.client(),
            (self.controller, self.node.clone()),
            problems,
        ))
    }

    fn publish(&self, statuses: watch::Receiver<Statuses>) -> BoxFuture<'static, ()> {
        let Some(lease) = self.lease.clone() else {
            return Box::pin(std::future::ready(()));
        };
        self.board.open();
        let candidate = Candidate::new(self.servers.client(), lease, Times::default());
        let writer = Writer::new(self.servers.client(), Arc::clone(&self.board), self.controller);
        Box::pin(publish::publish(candidate, writer, statuses))
    }

    fn only_own_node(&self) -> bool {
        true
    }

    fn run(self: Box<Self>, changes: mpsc::Sender<Changes>) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let kinds: BTreeSet<Kind> = self.follows.iter().map(Follow::kind).collect();
            let whole = kinds.into_iter().filter(|kind| *kind != Kind::Secret);
            let whole = whole.map(|kind| self.follow(kind, changes.clone()));
            let by_name = async {
                if let Some(secrets) = self.secrets() {
                    secrets.run(changes.clone()).await;
                }
            };
            tokio::join!(futures::future::join_all(whole), by_name);
            Ok(())
        })
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
