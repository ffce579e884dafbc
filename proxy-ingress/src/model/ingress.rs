//! An Ingress as routes, and what is wrong with it in words.
//!
//! What is wrong with a path costs that path, what is wrong with a host the rule. A path whose backend cannot be is a route
//! all the same: it answers with an error, so that no other route takes its requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;
use proxy_model::age::Created;
use proxy_model::api::{ApiIngress, HttpIngressPath, IngressBackend, IngressRule, IngressSpec};
use proxy_model::{Kind, ObjectName};

use super::annotations::{self, Choices};
use super::doors::{self, ClientAuthMode, Demand, Pass};
use super::service::Service;
use super::tls::{self, Wish};
use crate::route::path::{self, PathOptions};
use crate::route::{
    Action, Backend, HostMatch, Origin, PathMatch, Policy, Route, Weighted, WildcardDepth, host,
};

/// What an Ingress comes to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Read {
    /// Its routes.
    pub routes: Vec<Arc<Route>>,
    /// Certificates for names.
    pub wishes: Vec<Wish>,
    /// Hosts that are passed through.
    pub passes: Vec<Pass>,
    /// Hosts whose clients show a certificate.
    pub demands: Vec<Demand>,
    /// The Services that it names, there or not.
    pub services: BTreeSet<ObjectName>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// Finds Services.
pub type Services<'a> = &'a dyn Fn(&ObjectName) -> Option<&'a Service>;

/// Reads an Ingress that is ours.
pub fn read(name: &ObjectName, object: &ApiIngress, options: PathOptions, services: Services<'_>) -> Read {
    let mut read = Read::default();
    let default = IngressSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&default);
    let origin = Origin {
        created: Created::read(object.metadata.creation_timestamp.as_deref()).seconds(),
        object: name.clone(),
        rule: 0,
        entry: 0,
    };
    let choices = annotations::read(object.metadata.annotations.as_ref(), &mut read.problems);
    let tls = spec.tls.as_deref().unwrap_or_default();
    if !choices.passthrough {
        read.wishes = tls::read(tls, &origin, &mut read.problems);
    } else if tls.iter().any(|element| element.secret_name.is_some()) {
        read.problems.push(format!(
            "spec.tls names a Secret, and with annotation {}tls-passthrough the backend has the certificate: remove it",
            annotations::PREFIX
        ));
    }
    let secret = choices
        .client_auth
        .as_ref()
        .map(|choice| doors::secret(choice, &name.namespace));
    let secret = secret.map(|secret| {
        let told = secret.map_err(|why| read.problems.push(format!("TLS for its hosts is refused: {why}")));
        told.ok()
    });
    let mut reader = Reader {
        origin,
        options,
        passthrough: choices.passthrough,
        client_auth: secret.zip(choices.client_auth.as_ref().map(|choice| choice.mode)),
        policies: Policies::new(choices),
        services,
        hosts: BTreeSet::new(),
        read,
    };
    reader.rules(spec);
    reader.read
}

/// The two policies of an Ingress: with and without a redirect to HTTPS.
struct Policies {
    redirecting: Arc<Policy>,
    plain: Arc<Policy>,
    always: bool,
}

impl Policies {
    fn new(choices: Choices) -> Self {
        let plain = Policy {
            https_redirect: None,
            ..choices.policy.clone()
        };
        Self {
            redirecting: Arc::new(choices.policy),
            plain: Arc::new(plain),
            // Neither is to be had in clear text.
            always: choices.always_redirect || choices.passthrough || choices.client_auth.is_some(),
        }
    }

    fn of(&self, tls: bool, path: &PathMatch) -> Arc<Policy> {
        let redirect = (tls || self.always) && !path.is_acme();
        Arc::clone(if redirect { &self.redirecting } else { &self.plain })
    }
}

/// An Ingress that is being read.
struct Reader<'a> {
    origin: Origin,
    options: PathOptions,
    passthrough: bool,
    /// The Secret, if it can be used, and who is let in.
    client_auth: Option<(Option<ObjectName>, ClientAuthMode)>,
    policies: Policies,
    services: Services<'a>,
    /// Hosts that its rules name.
    hosts: BTreeSet<HostMatch>,
    read: Read,
}

impl Reader<'_> {
    fn rules(&mut self, spec: &IngressSpec) {
        let rules = spec.rules.as_deref().unwrap_or_default();
        let default = spec.default_backend.as_ref();
        for (number, rule) in (0..).zip(rules) {
            let Some(host) = self.host(number, rule) else {
                continue;
            };
            if self.passthrough {
                self.pass(number, host, rule);
            } else {
                self.rule(number, &host, rule, default.is_some());
            }
        }
        match default {
            Some(_) if self.passthrough => {
                let what = "spec.defaultBackend does nothing with annotation";
                let name = annotations::PREFIX;
                self.read
                    .problems
                    .push(format!("{what} {name}tls-passthrough: remove it"));
            }
            None if rules.is_empty() => {
                let what = "has neither rules nor a defaultBackend: nothing is served; add one of them";
                self.read.problems.push(what.to_owned());
            }
            None => {}
            Some(backend) => {
                if rules.is_empty() && self.demands(0, &HostMatch::Any, "spec.defaultBackend") {
                    self.hosts.insert(HostMatch::Any);
                }
                let action = self.action(backend, "spec.defaultBackend");
                for host in std::mem::take(&mut self.hosts) {
                    let origin = self.origin.clone();
                    self.push(origin, host, PathMatch::Rest, action.clone());
                }
            }
        }
    }

    fn host(&mut self, number: u32, rule: &IngressRule) -> Option<HostMatch> {
        let host = host::of_rule(rule.host.as_deref().unwrap_or_default(), WildcardDepth::One);
        let told = host.map_err(|why| {
            let problem = format!("rule {number} is not served: {why}");
            self.read.problems.push(problem);
        });
        told.ok()
    }

    /// Notes what clients of a host have to show; whether it may be served.
    fn demands(&mut self, rule: u32, host: &HostMatch, place: &str) -> bool {
        let Some((secret, mode)) = self.client_auth.clone() else {
            return true;
        };
        if *host == HostMatch::Any {
            self.read.problems.push(format!(
                "{place} is not served: clients are authenticated by the host that they ask for; write a host"
            ));
            return false;
        }
        let origin = Origin {
            rule,
            ..self.origin.clone()
        };
        self.read.demands.push(Demand {
            origin,
            host: host.clone(),
            secret,
            mode,
        });
        true
    }

    /// A rule of an Ingress whose connections are passed through. In clear text its host is sent to HTTPS.
    fn pass(&mut self, number: u32, host: HostMatch, rule: &IngressRule) {
        if host == HostMatch::Any {
            self.read.problems.push(format!(
                "rule {number} is not served: TLS is passed through by the host that clients ask for; write a host"
            ));
            return;
        }
        let paths = paths(rule);
        if paths.len() > 1 {
            self.read.problems.push(format!(
                "rule {number} has several paths, which mean nothing where TLS is passed through: all goes where / goes"
            ));
        }
        let is_root = |path: &&HttpIngressPath| matches!(path.path.as_deref(), None | Some("" | "/"));
        let backend = match paths.iter().find(is_root) {
            Some(path) => self.backend(&path.backend.clone().unwrap_or_default()),
            None => Err("it has no path /: write one".to_owned()),
        };
        let backend = backend.map_err(|why| {
            let problem = format!("rule {number}: connections for host {host} are closed: {why}");
            self.read.problems.push(problem);
        });
        let origin = Origin {
            rule: number,
            ..self.origin.clone()
        };
        self.read.passes.push(Pass {
            origin: origin.clone(),
            host: host.clone(),
            backend: backend.ok(),
            policy: Arc::clone(&self.policies.plain),
        });
        let action = Action::Refuse {
            status: StatusCode::MISDIRECTED_REQUEST,
            why: "its TLS is passed through to the backend".into(),
        };
        self.push(origin, host, PathMatch::Prefix("/".into()), action);
    }

    fn rule(&mut self, number: u32, host: &HostMatch, rule: &IngressRule, has_default: bool) {
        if !self.demands(number, host, &format!("rule {number}")) {
            return;
        }
        self.hosts.insert(host.clone());
        let paths = paths(rule);
        if paths.is_empty() && !has_default {
            self.read.problems.push(format!(
                "rule {number} has no paths, and there is no defaultBackend: nothing is served for host {host}; add one"
            ));
        }
        for (entry, written) in (0..).zip(paths) {
            let place = format!(
                "rule {number}, path {:?}",
                written.path.as_deref().unwrap_or_default()
            );
            match self.path(written, &place) {
                Ok(path) => {
                    let backend = written.backend.clone().unwrap_or_default();
                    let action = self.action(&backend, &place);
                    let origin = Origin {
                        rule: number,
                        entry,
                        ..self.origin.clone()
                    };
                    self.push(origin, host.clone(), path, action);
                }
                Err(why) => self.read.problems.push(format!("{place} is not served: {why}")),
            }
        }
    }

    fn push(&mut self, origin: Origin, host: HostMatch, path: PathMatch, action: Action) {
        let policy = self.policies.of(tls::covers(&self.read.wishes, &host), &path);
        self.read.routes.push(Arc::new(Route {
            origin,
            host,
            path,
            predicates: Vec::new(),
            filters: Vec::new(),
            action,
            policy,
        }));
    }

    /// The path as rules of the API have it, in canonical form.
    fn path(&mut self, written: &HttpIngressPath, place: &str) -> Result<PathMatch, String> {
        let text = written.path.as_deref().unwrap_or_default();
        let free = match written.path_type.as_deref() {
            Some("Exact" | "Prefix") => false,
            Some("ImplementationSpecific") => true,
            None | Some("") => return Err("pathType is missing: write Exact or Prefix".to_owned()),
            Some(other) => return Err(format!("pathType {other:?} is not known: write Exact or Prefix")),
        };
        if !free {
            check_path(text)?;
        } else if looks_like_expression(text) {
            self.read.problems.push(format!(
                "{place} looks like a regular expression, which weir does not have: it is taken letter by letter, as Prefix"
            ));
        }
        let canonical = path::canonical(text, self.options).map_err(|why| format!("{why}: correct it"))?;
        let canonical = canonical.into_owned().into_boxed_str();
        Ok(if written.path_type.as_deref() == Some("Exact") {
            PathMatch::Exact(canonical)
        } else {
            PathMatch::Prefix(canonical)
        })
    }

    /// Where a backend leads; to an error if it cannot be, with a problem.
    fn action(&mut self, backend: &IngressBackend, place: &str) -> Action {
        match self.backend(backend) {
            Ok(backend) => Action::Forward(vec![Weighted { weight: 1, backend }]),
            Err(why) => {
                self.read
                    .problems
                    .push(format!("{place} is answered with status 500: {why}"));
                Action::Refuse {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    why: why.into(),
                }
            }
        }
    }

    fn backend(&mut self, backend: &IngressBackend) -> Result<Backend, String> {
        let service = match (&backend.service, &backend.resource) {
            (Some(service), None) => service,
            (Some(_), Some(_)) => {
                return Err("backend has a service and a resource: write a service only".to_owned());
            }
            (None, Some(resource)) => {
                let kind = resource.kind.as_deref().unwrap_or_default();
                return Err(format!(
                    "backend is a resource ({kind:?}), and weir serves Services only: write a service"
                ));
            }
            (None, None) => return Err("there is no backend: write a service".to_owned()),
        };
        let Some(name) = service.name.as_deref().filter(|name| !name.is_empty()) else {
            return Err("backend.service has no name: write it".to_owned());
        };
        let name = ObjectName::new(self.origin.object.namespace.clone(), name);
        if !name.is_dns(Kind::Service) {
            return Err(format!(
                "backend.service.name {:?} is no name: correct it",
                name.name
            ));
        }
        self.read.services.insert(name.clone());
        let Some(known) = (self.services)(&name) else {
            return Err(format!(
                "Service {name} is not there: create it, or correct the name"
            ));
        };
        if known.external_name {
            return Err(format!(
                "Service {name} is an ExternalName, and weir sends to pods only: use a Service with endpoints"
            ));
        }
        let port = known
            .port(service)
            .map_err(|why| format!("Service {name}: {why}"))?;
        Ok(Backend { service: name, port })
    }
}

fn paths(rule: &IngressRule) -> &[HttpIngressPath] {
    let http = rule.http.as_ref();
    http.and_then(|http| http.paths.as_deref()).unwrap_or_default()
}

/// What the API server refuses in paths of type Exact and Prefix; manifests in a folder meet no API server.
fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("it does not begin with a slash: correct it".to_owned());
    }
    let lower = path.to_ascii_lowercase();
    let inside = ["//", "/./", "/../", "%2f"]
        .into_iter()
        .find(|part| lower.contains(part));
    let at_end = ["/..", "/."].into_iter().find(|part| path.ends_with(part));
    match inside.or(at_end) {
        Some(part) => Err(format!(
            "it has {part:?}, which no path of a rule may have: correct it"
        )),
        None => Ok(()),
    }
}

/// What is rarely in a path and often in an expression; the rules of ingress-nginx have such.
fn looks_like_expression(path: &str) -> bool {
    [".*", ".+", "(", "[", "|", "^", "$"]
        .into_iter()
        .any(|part| path.contains(part))
}
