//! What is in Secrets, made into certificates when it is read.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proxy_model::api::ApiSecret;
use proxy_model::{Kind, ObjectName, Problem};
use proxy_source::error::chain;

use crate::certificates::{Certificate, Maker, Store};
use crate::client_auth;
use crate::model::doors::{self, Demands};

/// What sources told of Secrets, and the last good certificate of each, and the last good authorities for clients.
pub struct Secrets {
    maker: Maker,
    store: Store,
    authorities: client_auth::Store,
    told: HashMap<ObjectName, Told>,
    /// All Secrets that there are have been told: what is not among them is not there.
    complete: bool,
    news: bool,
}

/// What a source said last.
enum Told {
    /// Why it is no good as a certificate, and as authorities.
    There([Option<String>; 2]),
    Missing,
}

impl Secrets {
    /// Nothing yet.
    pub fn new(maker: Maker) -> Self {
        Self {
            maker,
            store: Store::default(),
            authorities: client_auth::Store::default(),
            told: HashMap::new(),
            complete: false,
            news: false,
        }
    }

    /// A Secret is new or different; `now` in seconds since 1970.
    pub fn put(&mut self, name: ObjectName, secret: &ApiSecret, now: i64) {
        let fields = ["tls.crt", "tls.key", "ca.crt"].map(|key| bytes(secret, key).unwrap_or_default());
        let [certificate, key, authorities] = &fields;
        let certificate = self.store.put(&self.maker, &name, (certificate, key), now).err();
        let authorities = self.authorities.put(&name, authorities, now).err();
        let why = |error: &dyn Error| without_name(&name, &chain(error));
        let told = [
            certificate.as_ref().map(|error| why(error)),
            authorities.as_ref().map(|error| why(error)),
        ];
        self.told.insert(name, Told::There(told));
        self.news = true;
    }

    /// It is not there, or not any more. Its last certificate stays for as long as somebody names it.
    pub fn delete(&mut self, name: &ObjectName) {
        self.told.insert(name.clone(), Told::Missing);
        self.news = true;
    }

    /// The complete list.
    pub fn replace<'a>(&mut self, list: impl Iterator<Item = (ObjectName, &'a ApiSecret)>, now: i64) {
        for told in self.told.values_mut() {
            *told = Told::Missing;
        }
        for (name, secret) in list {
            self.put(name, secret, now);
        }
        self.complete = true;
        self.news = true;
    }

    /// Forgets what nobody names any more: who names it again is told again. Where all are told at once, they are not told
    /// again, so all are kept.
    pub fn keep(&mut self, wanted: &BTreeSet<ObjectName>) {
        let complete = self.complete;
        let unwanted = self.told.iter().filter(|(name, _)| !wanted.contains(*name));
        let gone = unwanted.filter(|(_, told)| !complete || matches!(told, Told::Missing));
        for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.told.remove(&name);
            self.store.remove(&name);
            self.authorities.remove(&name);
        }
    }

    /// Whether a source has said anything of it.
    pub(super) fn is_answered(&self, name: &ObjectName) -> bool {
        self.complete || self.told.contains_key(name)
    }

    /// Whether it is known not to be there.
    pub(super) fn is_missing(&self, name: &ObjectName) -> bool {
        match self.told.get(name) {
            Some(told) => matches!(told, Told::Missing),
            None => self.complete,
        }
    }

    /// The last good certificate.
    pub(super) fn get(&self, name: &ObjectName) -> Option<&Arc<Certificate>> {
        self.store.get(name)
    }

    /// Whether there was news since the last time.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The authorities that clients of these hosts have to show certificates of.
    pub(super) fn client_auth(&self, demands: &Demands) -> client_auth::ClientAuth {
        client_auth::ClientAuth::new(demands, &self.authorities)
    }

    /// What is wrong with authorities: a host without any is told of its Ingress, a bad new version of its Secret.
    pub(super) fn unmet(&self, demands: &Demands) -> Vec<Problem> {
        let mut problems = self.authorities.unmet(demands);
        problems.extend(doors::secrets(demands).into_iter().filter_map(|name| {
            let Told::There([_, Some(why)]) = self.told.get(name)? else {
                return None;
            };
            self.authorities.get(name)?;
            let what = format!("{why}; its last good ca.crt is in use until then");
            Some(Problem::new(Kind::Secret, name, what))
        }));
        problems
    }

    /// What is wrong with the certificates that are named.
    pub(super) fn problems(&self, named: &BTreeSet<&ObjectName>) -> Vec<Problem> {
        let bad = named.iter().filter_map(|name| {
            let Told::There([Some(why), _]) = self.told.get(*name)? else {
                return None;
            };
            let instead = match self.store.get(name) {
                Some(_) => "its last good certificate is shown until then",
                None => "the default certificate is shown until then",
            };
            Some(Problem::new(Kind::Secret, name, format!("{why}; {instead}")))
        });
        bad.collect()
    }
}

/// A field of a Secret: `stringData` as it is, `data` from base64, in which the API server takes line ends as well.
fn bytes(secret: &ApiSecret, key: &str) -> Option<Vec<u8>> {
    if let Some(text) = secret.string_data.as_ref().and_then(|data| data.get(key)) {
        return Some(text.clone().into_bytes());
    }
    let text = secret.data.as_ref()?.get(key)?;
    let text: String = text.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(text).ok()
}

/// A problem has the name already.
fn without_name(name: &ObjectName, sentence: &str) -> String {
    let said = format!("{} {name}: ", Kind::Secret);
    sentence.strip_prefix(&said).unwrap_or(sentence).to_owned()
}
