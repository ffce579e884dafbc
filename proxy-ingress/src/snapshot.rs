//! What the ingress serves at a moment: one immutable value that workers read without a lock, and that is replaced as a
//! whole. Endpoints change far more often than routes; they are swapped inside [`Upstream`], and the snapshot stays.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::certificates::Certificates;
use crate::client_auth::ClientAuth;
use crate::passthrough::Passthrough;
use crate::route::path::{self, PathOptions};
use crate::route::{Backend, Table};
use crate::settings::Settings;
use crate::upstream::Upstream;

/// What is behind backends; a copy is cheap.
pub type Backends = Arc<HashMap<Backend, Arc<Upstream>>>;

/// Routes, and where they lead.
pub struct Snapshot {
    /// Who is asked for what.
    pub routes: Routes,
    /// What is behind the backends that routes name.
    pub backends: Backends,
    /// For HTTPS.
    pub certificates: Arc<Certificates>,
    /// Connections that are passed through unopened.
    pub passthrough: Arc<Passthrough>,
    /// What clients have to show.
    pub client_auth: Arc<ClientAuth>,
    /// The limits of new connections and requests.
    pub settings: Arc<Settings>,
}

/// The table of routes, and the form in which it knows paths.
#[derive(Debug, Default)]
pub struct Routes {
    /// Who goes where.
    pub table: Table,
    /// The same that the table's own paths were brought to.
    pub paths: PathOptions,
}

impl Routes {
    /// The one form of a path in which it is matched and forwarded; none if it has no such form, and is refused.
    pub(crate) fn canonical_path<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        path::canonical(path, self.paths).ok()
    }
}
