//! From flags to what the modules are given.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use prometheus::Registry;
use proxy_model::{Kind, ObjectName};
use proxy_source::folder::Folder;
use proxy_source::kube::{self, Follow, Kube, KubeconfigFile, LeaseName};
use proxy_source::{Metrics, Source};
use tokio::sync::watch::Receiver;

use super::{Door, HostOwnership, SecretName, ServeFlags};
use crate::engine::Listen;
use crate::model::class::ClassOptions;
use crate::model::{self, hosts};
use crate::route::path::{EncodedSlashes, PathOptions, Slashes};
use crate::settings::Settings;
use crate::status::StatusFrom;

/// A plain level is about weir.
pub fn log_directives(level: &str) -> String {
    let ours = [
        "proxy_daemon",
        "weir_ingress",
        "proxy_ingress",
        "proxy_model",
        "proxy_source",
    ];
    let ours = ours.map(|name| format!("{name}={level}"));
    format!("kube_client=error,kube_runtime=error,{}", ours.join(","))
}

impl ServeFlags {
    /// The source. One that asks for Secrets one by one asks for those in `secrets`.
    pub async fn connect(
        &self,
        secrets: Receiver<BTreeSet<ObjectName>>,
        registry: &Registry,
    ) -> anyhow::Result<Box<dyn Source>> {
        let source = &self.source;
        if let Some(directory) = &source.manifests {
            return Ok(Box::new(Folder::new(directory.clone(), &Kind::INGRESS)));
        }
        let kubeconfig = source.kubeconfig.clone().map(|path| KubeconfigFile {
            path,
            named_by: "--kubeconfig".to_owned(),
        });
        let options = kube::Options {
            kubeconfig,
            api_servers: source.api_server.clone(),
            follows: self.follows(),
            secrets: Some(secrets),
            controller: "weir-ingress",
            node: self.pod_name(),
            lease: self.lease(),
            serves_cluster_ips: false,
            metrics: Arc::new(Metrics::new(registry)?),
        };
        Ok(Box::new(Kube::connect(options).await?))
    }
}

impl ServeFlags {
    /// All that is to be read, and where.
    fn follows(&self) -> Vec<Follow> {
        let mut follows = Follow::of_ingress(&self.source.namespace);
        if let Some(name) = self.default_certificate() {
            follows.push(Follow::named(Kind::Secret, &name));
        }
        match self.status_from() {
            Some(StatusFrom::Service(name)) => follows.push(Follow::named(Kind::Service, &name)),
            Some(StatusFrom::Nodes(name)) => {
                follows.push(Follow::service_slices().within(&[name.namespace]));
                follows.push(Follow::all(Kind::Node));
            }
            Some(StatusFrom::Addresses(_)) | None => {}
        }
        follows
    }

    /// Where clients connect, if anybody is to say so.
    pub fn status_from(&self) -> Option<StatusFrom> {
        let named = |name: &Option<SecretName>| name.clone().map(|SecretName(name)| name);
        let status = &self.status;
        if !status.publish_address.is_empty() {
            return Some(StatusFrom::Addresses(status.publish_address.clone()));
        }
        let service = named(&status.publish_service).map(StatusFrom::Service);
        service.or_else(|| named(&status.publish_nodes).map(StatusFrom::Nodes))
    }

    /// By which Lease one of several writes the status.
    fn lease(&self) -> Option<LeaseName> {
        self.status_from()?;
        Some(LeaseName {
            namespace: self.status.pod_namespace.clone(),
            name: self.status.lease_name.clone(),
            identity: self.pod_name(),
        })
    }

    /// Who says it: the pod, or where there is none the machine.
    fn pod_name(&self) -> String {
        let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.status.pod_name.clone().unwrap_or_else(machine)
    }

    /// The Secret of the certificate for names that have none.
    pub fn default_certificate(&self) -> Option<ObjectName> {
        let named = self.rules.default_certificate.clone();
        named.map(|SecretName(name)| name)
    }

    /// Threads that serve.
    pub fn workers(&self) -> usize {
        let default = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        self.doors.workers.unwrap_or_else(default).get()
    }

    /// Where clients come to.
    pub fn doors(&self) -> Vec<Listen> {
        let of = |doors: &[Door], tls| {
            let addresses = doors.iter().filter_map(|door| door.0);
            addresses
                .map(|address| Listen { address, tls })
                .collect::<Vec<_>>()
        };
        [of(&self.doors.http, false), of(&self.doors.https, true)].concat()
    }

    /// The form of paths.
    pub fn paths(&self) -> PathOptions {
        let mut paths = PathOptions::default();
        if self.rules.keep_slashes {
            paths.slashes = Slashes::Keep;
        }
        if self.rules.refuse_encoded_slashes {
            paths.encoded_slashes = EncodedSlashes::Refuse;
        }
        paths
    }

    /// What the model goes by.
    pub fn model(&self) -> model::Options {
        model::Options {
            classes: ClassOptions {
                controller: self.rules.controller.clone(),
                class: self.rules.ingress_class.clone(),
                without_class: self.rules.watch_ingress_without_class,
            },
            ownership: match self.rules.host_ownership {
                HostOwnership::Merge => hosts::HostOwnership::AllowMerge,
                HostOwnership::FirstNamespace => hosts::HostOwnership::FirstNamespace,
            },
            paths: self.paths(),
        }
    }

    /// The engine's limits.
    pub fn settings(&self) -> Settings {
        let (doors, limits) = (&self.doors, &self.limits);
        Settings {
            connections: limits.max_connections,
            connections_per_client: limits.max_connections_per_client,
            requests: limits.max_requests,
            header_timeout: limits.header_timeout,
            keep_alive: limits.keep_alive_timeout,
            body_timeout: limits.body_timeout,
            trusted: doors.trusted.clone(),
            proxy_protocol: doors.proxy_protocol.clone(),
            https_port: doors.https_port,
            drain: doors.drain_timeout,
            ..Settings::default()
        }
    }
}
