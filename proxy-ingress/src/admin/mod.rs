//! What an operator asks the running process: which routes, certificates and endpoints are live, who lost to whom, and why a
//! request would go where it would go.
//!
//! ```text
//!  weir-ingress explain … ──question──▶ socket.rs ──▶ the loop ──▶ explain.rs, lists.rs ──answer──▶ cli/
//! ```
//!
//! The loop answers with what it works on itself; the matcher is the one that requests take.

mod explain;
mod lists;
pub mod socket;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use self::explain::explain;
pub use self::lists::{certificates, conflicts, endpoints, routes};
use crate::model::Model;
use crate::served::Served;
use crate::snapshot::Snapshot;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// Where would this request go?
    Explain(Request),
    /// All routes.
    Routes,
    /// All names with certificates.
    Certificates,
    /// What was asked for in vain.
    Conflicts,
    /// Where requests may go.
    Endpoints,
    /// What is wrong.
    Problems,
    /// Are clients taken?
    Ready,
}

/// A request that nobody sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `GET` or another.
    pub method: String,
    /// `https://host/path?query`
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
}

/// What the loop knows when it is asked.
pub struct View<'a> {
    /// Objects and what they come to.
    pub model: &'a Model,
    /// Certificates by name.
    pub served: &'a Served,
    /// What workers read; none before everything was read.
    pub snapshot: Option<&'a Snapshot>,
    /// Where clients come to, and whether TLS is spoken there.
    pub doors: &'a [(SocketAddr, bool)],
    /// Whether clients are taken.
    pub ready: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRow {
    /// The names that it is for.
    pub host: String,
    /// `Exact`, `Prefix`, or `Default` for a default backend.
    pub path_type: String,
    /// The path.
    pub path: String,
    /// Namespace and name of the Ingress.
    pub ingress: String,
    /// Number of the rule in it, from 0.
    pub rule: u32,
    /// Number of the path in the rule, from 0.
    pub entry: u32,
    /// What else a request must have.
    pub predicates: Vec<String>,
    /// What is done.
    pub action: String,
}

/// A name and its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRow {
    /// The name that clients ask for.
    pub host: String,
    /// The Secret whose certificate is shown; empty for the default.
    pub shown: String,
    /// The Secret that is asked for; empty if none is.
    pub asked: String,
    /// The names that the certificate covers.
    pub names: Vec<String>,
    /// When it expires, RFC 3339; empty for what is made here.
    pub expires: String,
    /// The Ingress that has the name.
    pub ingress: String,
}

/// Something that was asked for in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConflictRow {
    /// The host.
    pub host: String,
    /// Who does not have it.
    pub loser: String,
    /// Who has it.
    pub winner: String,
    /// In words.
    pub what: String,
}

/// An endpoint of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    /// Namespace and name of the Service.
    pub service: String,
    /// Name of its port; empty if it has none.
    pub port: String,
    /// What is spoken, if the port says so.
    pub protocol: String,
    /// Where it is; empty if the backend has no endpoint.
    pub address: String,
    /// Whether it gets requests.
    pub state: String,
    /// Requests at work.
    pub requests: u32,
}

/// Where a request would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// Where it would come to.
    pub listeners: Vec<String>,
    /// What it would be shown.
    pub certificate: Option<CertificateRow>,
    /// Its host, in the form in which it is matched.
    pub host: String,
    /// Its path, likewise.
    pub path: String,
    /// The hosts that are asked, in order.
    pub hosts: Vec<String>,
    /// Routes whose host and path fit.
    pub candidates: Vec<CandidateRow>,
    /// What is changed on the way.
    pub filters: Vec<String>,
    /// What becomes of it.
    pub answer: String,
    /// The endpoints that it may go to.
    pub endpoints: Vec<EndpointRow>,
}

/// A route that was considered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateRow {
    /// Which.
    pub route: RouteRow,
    /// Why it is not taken; none for the one that is.
    pub lost: Option<String>,
}

impl View<'_> {
    /// The answer, as JSON.
    pub fn answer(&self, question: &Question) -> serde_json::Result<serde_json::Value> {
        match question {
            Question::Explain(request) => serde_json::to_value(explain(self, request)),
            Question::Routes => serde_json::to_value(routes(self)),
            Question::Certificates => serde_json::to_value(certificates(self)),
            Question::Conflicts => serde_json::to_value(conflicts(self.model)),
            Question::Endpoints => serde_json::to_value(endpoints(self)),
            Question::Ready => serde_json::to_value(self.ready),
            Question::Problems => {
                let problems = self.model.problems().into_iter().chain(self.served.problems());
                serde_json::to_value(problems.map(|problem| problem.to_string()).collect::<Vec<_>>())
            }
        }
    }
}

#[cfg(test)]
mod tests;
