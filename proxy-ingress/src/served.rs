//! What is served: the model's answers, and what is in Secrets, as the one value that workers read.
//!
//! ```text
//!  Changed ──┬─ table ──────────────┐
//!            ├─ backends ─▶ Upstream│ (endpoints change inside; the snapshot stays)
//!            └─ certificates ┐      ├─▶ Snapshot ─▶ workers
//!  Secrets ──────────────────┴─▶────┘
//! ```

mod secrets;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proxy_model::{Kind, ObjectName, Problem};

pub use self::secrets::Secrets;
use crate::admin::CertificateRow;
use crate::certificates::{Certificate, Certificates};
use crate::client_auth::ClientAuth;
use crate::model::doors::{self, Demands, Passes};
use crate::model::endpoints::BackendState;
use crate::model::{Changed, tls};
use crate::passthrough::Passthrough;
use crate::route::path::PathOptions;
use crate::route::{Backend, HostMatch, Origin, Table};
use crate::settings::Settings;
use crate::snapshot::{Backends, Routes, Snapshot};
use crate::upstream::{Upstream, UpstreamTls};

/// What does not change while the process runs.
pub struct Fixed {
    /// Limits.
    pub settings: Arc<Settings>,
    /// The form of paths.
    pub paths: PathOptions,
    /// How backends are spoken to over TLS.
    pub tls: UpstreamTls,
    /// Threads of the engine.
    pub workers: usize,
    /// What is shown where no certificate fits.
    pub self_signed: Arc<Certificate>,
    /// The Secret of the certificate that goes before [`Self::self_signed`].
    pub default: Option<ObjectName>,
}

/// All that is served.
pub struct Served {
    fixed: Fixed,
    table: Table,
    backends: Backends,
    plan: tls::Certificates,
    passes: Passes,
    demands: Demands,
    secrets: Secrets,
    /// What each name is shown, and from which Secret that was.
    shown: HashMap<HostMatch, (ObjectName, Arc<Certificate>)>,
    certificates: Arc<Certificates>,
    passthrough: Arc<Passthrough>,
    client_auth: Arc<ClientAuth>,
    /// Something that a snapshot has is another one than in the last.
    stale: bool,
    certificates_stale: bool,
}

impl Served {
    /// Nothing yet.
    pub fn new(fixed: Fixed, secrets: Secrets) -> Self {
        Self {
            certificates: Arc::new(Certificates::new(Arc::clone(&fixed.self_signed))),
            fixed,
            table: Table::default(),
            backends: Backends::default(),
            plan: tls::Certificates::default(),
            passes: Passes::default(),
            demands: Demands::default(),
            passthrough: Arc::default(),
            client_auth: Arc::default(),
            secrets,
            shown: HashMap::new(),
            stale: true,
            certificates_stale: true,
        }
    }

    /// What the model says is different; whether certificates may be. Endpoints of backends that stay are live at once.
    pub fn take(&mut self, changed: &mut Changed) -> bool {
        if let Some(table) = changed.table.take() {
            self.table = table;
            self.stale = true;
        }
        for (backend, state) in changed.backends.drain(..) {
            self.set_backend(backend, state);
        }
        let mut certificates = self.secrets.take_news();
        if let Some(plan) = changed.certificates.take() {
            self.plan = plan;
            certificates = true;
        }
        if let Some(passes) = changed.passes.take() {
            self.passes = passes;
            certificates = true;
        }
        if let Some(demands) = changed.demands.take() {
            self.demands = demands;
            certificates = true;
        }
        self.certificates_stale |= certificates;
        certificates
    }

    /// The Secrets, to tell them what is news.
    pub fn secrets(&mut self) -> &mut Secrets {
        &mut self.secrets
    }

    /// The Secrets that are named.
    pub fn wanted(&self) -> BTreeSet<ObjectName> {
        self.named().into_iter().cloned().collect()
    }

    /// Named Secrets that no source has said anything of yet.
    pub fn unanswered(&self) -> usize {
        let named = self.named().into_iter();
        named.filter(|name| !self.secrets.is_answered(name)).count()
    }

    fn named(&self) -> BTreeSet<&ObjectName> {
        let mut named = self.named_for_certificates();
        named.extend(doors::secrets(&self.demands));
        named
    }

    fn named_for_certificates(&self) -> BTreeSet<&ObjectName> {
        let mut named = self.plan.secrets();
        named.extend(&self.fixed.default);
        named
    }

    /// The next snapshot, if it is another one than the last.
    pub fn snapshot(&mut self) -> Option<Arc<Snapshot>> {
        if std::mem::take(&mut self.certificates_stale) {
            self.show();
            self.passthrough = Arc::new(Passthrough::new(&self.passes, &self.plan));
            self.client_auth = Arc::new(self.secrets.client_auth(&self.demands));
            self.stale = true;
        }
        std::mem::take(&mut self.stale).then(|| {
            Arc::new(Snapshot {
                routes: Routes {
                    table: self.table.clone(),
                    paths: self.fixed.paths,
                },
                backends: self.backends.clone(),
                certificates: Arc::clone(&self.certificates),
                passthrough: Arc::clone(&self.passthrough),
                client_auth: Arc::clone(&self.client_auth),
                settings: Arc::clone(&self.fixed.settings),
            })
        })
    }

    fn set_backend(&mut self, backend: Backend, state: Option<BackendState>) {
        let Some(state) = state else {
            Arc::make_mut(&mut self.backends).remove(&backend);
            self.stale = true;
            return;
        };
        if let Some(known) = self.backends.get(&backend)
            && known.protocol == state.protocol
        {
            known.set_endpoints(&state.endpoints);
            known.set_check(state.check);
            return;
        }
        let tls = self.fixed.tls.clone();
        let upstream = Upstream::new(backend.clone(), state.protocol, tls, self.fixed.workers);
        upstream.set_endpoints(&state.endpoints);
        upstream.set_check(state.check);
        Arc::make_mut(&mut self.backends).insert(backend, Arc::new(upstream));
        self.stale = true;
    }

    /// Finds the certificate of each name.
    fn show(&mut self) {
        let default = self.default();
        let mut shown = HashMap::new();
        let mut all = None;
        for choice in self.plan.choices() {
            let found = choice
                .secret
                .as_ref()
                .and_then(|secret| self.find(&choice.host, secret));
            if choice.host == HostMatch::Any {
                all = found.as_ref().map(|(_, certificate)| Arc::clone(certificate));
            }
            shown.extend(found.map(|found| (choice.host.clone(), found)));
        }
        let mut certificates = Certificates::new(all.unwrap_or_else(|| Arc::clone(default)));
        for choice in self.plan.choices() {
            let certificate = shown.get(&choice.host).map_or(default, |(_, found)| found);
            match &choice.host {
                HostMatch::Exact(name) => certificates.add(name, certificate),
                HostMatch::Wildcard { suffix, .. } => certificates.add(&format!("*.{suffix}"), certificate),
                HostMatch::Any => {}
            }
        }
        self.shown = shown;
        self.certificates = Arc::new(certificates);
    }

    /// The Secret's certificate. As long as there is none, a name keeps the one that it had, if that is of the same
    /// namespace: a Secret that is still to be read, or is no good, takes nothing away.
    fn find(&self, host: &HostMatch, secret: &ObjectName) -> Option<(ObjectName, Arc<Certificate>)> {
        if let Some(good) = self.secrets.get(secret) {
            return Some((secret.clone(), Arc::clone(good)));
        }
        let (from, certificate) = self.shown.get(host)?;
        (from.namespace == secret.namespace).then(|| (from.clone(), Arc::clone(certificate)))
    }

    /// What is wrong with Secrets, said of them, and of those who name what is not there.
    pub fn problems(&self) -> Vec<Problem> {
        let default = self.fixed.default.iter().filter_map(|name| {
            let what = "it is not there, and is to be the default certificate: a self-signed one is shown; create it";
            self.secrets
                .is_missing(name)
                .then(|| Problem::new(Kind::Secret, name, what))
        });
        let missing = self.plan.choices().filter_map(|choice| {
            let secret = choice
                .secret
                .as_ref()
                .filter(|name| self.secrets.is_missing(name))?;
            let instead = match self.shown.get(&choice.host) {
                Some((from, _)) => format!("the last certificate of Secret {from} is shown"),
                None => "the default certificate is shown".to_owned(),
            };
            let rule = choice.origin.rule;
            let what = format!(
                "spec.tls[{rule}].secretName: Secret {secret} is not there: {instead} for host {}; create it",
                choice.host
            );
            Some(Problem::new(Kind::Ingress, &choice.origin.object, what))
        });
        let mut problems: Vec<Problem> = default.chain(missing).collect();
        problems.extend(self.secrets.problems(&self.named_for_certificates()));
        problems.extend(self.secrets.unmet(&self.demands));
        problems
    }
}

impl Served {
    /// A row for each name, for who asks.
    pub fn certificate_rows(&self) -> Vec<CertificateRow> {
        let choices = self.plan.choices().map(|choice| self.row_of(choice));
        choices.collect()
    }

    /// What a client is shown that asks for this name.
    pub fn certificate_row(&self, name: Option<&str>) -> CertificateRow {
        match self.plan.find(name) {
            Some(choice) => self.row_of(choice),
            None => self.row("(default)", self.default(), self.fixed.default.as_ref(), None),
        }
    }

    fn row_of(&self, choice: &tls::Choice) -> CertificateRow {
        let host = choice.host.to_string();
        let shown = self.shown.get(&choice.host);
        let (certificate, from) = match shown {
            Some((from, certificate)) => (certificate, Some(from)),
            None => (self.default(), self.fixed.default.as_ref()),
        };
        CertificateRow {
            asked: choice
                .secret
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            ..self.row(&host, certificate, from, Some(&choice.origin))
        }
    }

    fn row(
        &self,
        host: &str,
        certificate: &Certificate,
        from: Option<&ObjectName>,
        origin: Option<&Origin>,
    ) -> CertificateRow {
        let from = from.filter(|name| self.secrets.get(name).is_some());
        CertificateRow {
            host: host.to_owned(),
            shown: from.map(ToString::to_string).unwrap_or_default(),
            asked: String::new(),
            names: certificate.names().map(str::to_owned).collect(),
            expires: certificate.expires(),
            ingress: origin.map(|origin| origin.object.to_string()).unwrap_or_default(),
        }
    }

    fn default(&self) -> &Arc<Certificate> {
        let own = self
            .fixed
            .default
            .as_ref()
            .and_then(|name| self.secrets.get(name));
        own.unwrap_or(&self.fixed.self_signed)
    }
}

#[cfg(test)]
pub(crate) mod tests;
