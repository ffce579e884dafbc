//! `tests/cluster/expected.toml`: which specs cannot run, and which are known to fail.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cluster::Proxy;
use crate::workspace;

const FILE: &str = "tests/cluster/expected.toml";

/// All that is not simply expected to pass.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    #[serde(default)]
    pub(crate) skip: Vec<Skip>,
    #[serde(default)]
    pub(crate) fail: Vec<Fail>,
}

/// Specs that are not run, whoever implements Services.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Skip {
    /// Part of their names.
    pub(crate) text: String,
    pub(crate) reason: String,
}

/// A spec that is run and fails.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fail {
    /// Its name, whole.
    pub(crate) spec: String,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) reason: String,
}

impl Expected {
    /// What the tree says.
    pub(crate) fn read() -> Result<Self> {
        Self::parse(&workspace::read(FILE)?).with_context(|| format!("reading {FILE}"))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// Why a spec is not run.
    pub(crate) fn skipped(&self, spec: &str) -> Option<&str> {
        let skip = self.skip.iter().find(|skip| spec.contains(&skip.text));
        skip.map(|skip| skip.reason.as_str())
    }

    /// Why a spec is to fail.
    pub(crate) fn fails(&self, spec: &str, proxy: Proxy) -> Option<&Fail> {
        let of = |fail: &&Fail| fail.spec == spec && fail.proxies.contains(&proxy);
        self.fail.iter().find(of)
    }

    /// What is said of specs that the group does not have, among these names.
    pub(crate) fn strangers(&self, names: &[&str]) -> Vec<String> {
        let group = || names.iter().filter(|name| name.contains(super::GROUP));
        let texts = self.skip.iter().map(|skip| skip.text.as_str());
        let unused = texts.filter(|text| !group().any(|name| name.contains(text)));
        let fails = self.fail.iter().map(|fail| fail.spec.as_str());
        let gone = fails.filter(|spec| !group().any(|name| name == spec));
        unused
            .map(|text| format!("[[skip]]: no spec of {} has `{text}` in its name", super::GROUP))
            .chain(gone.map(|spec| format!("[[fail]]: no spec of {} is called `{spec}`", super::GROUP)))
            .collect()
    }

    /// The expression by which ginkgo leaves them out; none if there is nothing to leave out.
    pub(super) fn skip_expression(&self) -> Option<String> {
        let texts: Vec<_> = self.skip.iter().map(|skip| regex::escape(&skip.text)).collect();
        (!texts.is_empty()).then(|| texts.join("|"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[[skip]]
text = "[Feature:A] (b)"
reason = "no a"

[[fail]]
spec = "[sig-network] c"
proxies = ["weir", "kube-proxy-nftables"]
reason = "no c"
"#;

    #[test]
    fn each_exception_has_its_specs_and_its_reason() {
        let expected = Expected::parse(TEXT).unwrap();
        assert_eq!(expected.skipped("x [Feature:A] (b) y"), Some("no a"));
        assert_eq!(expected.skipped("x [Feature:A]"), None);
        assert_eq!(expected.skip_expression().unwrap(), r"\[Feature:A\] \(b\)");
        let reason = |spec, proxy| expected.fails(spec, proxy).map(|fail| fail.reason.as_str());
        assert_eq!(reason("[sig-network] c", Proxy::Weir), Some("no c"));
        assert_eq!(reason("[sig-network] c", Proxy::KubeProxyIptables), None);
        assert_eq!(reason("[sig-network] c d", Proxy::Weir), None);
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        assert!(Expected::parse(&TEXT.replace("reason", "reasons")).is_err());
    }

    #[test]
    fn only_the_group_counts() {
        let expected = Expected::parse(TEXT).unwrap();
        let names = ["[sig-network] a [Feature:A] (b)", "[sig-network] c"];
        assert!(expected.strangers(&names).is_empty());
        let others = ["[sig-storage] a [Feature:A] (b)", "[sig-network] c d"];
        let strangers = expected.strangers(&others);
        assert!(strangers[0].starts_with("[[skip]]: no spec"), "{strangers:?}");
        assert!(strangers[1].starts_with("[[fail]]: no spec"), "{strangers:?}");
    }
}

/// The files of the tree agree with each other: what they claim was seen, and what was seen is claimed.
#[cfg(test)]
mod tree {
    use super::*;
    use crate::e2e::{CONFORMANCE, Outcome, Record};

    const PROXIES: [Proxy; 3] = [Proxy::Weir, Proxy::KubeProxyNftables, Proxy::KubeProxyIptables];

    fn records() -> Vec<(Proxy, Record)> {
        PROXIES.map(|proxy| (proxy, Record::read(proxy).unwrap())).into()
    }

    fn record(proxy: Proxy) -> Record {
        Record::read(proxy).unwrap()
    }

    #[test]
    fn what_conformance_asks_and_kube_proxy_does_weir_does() {
        let (expected, weir) = (Expected::read().unwrap(), record(Proxy::Weir));
        let kube_proxy = record(Proxy::KubeProxyNftables);
        let conformance: Vec<_> = kube_proxy
            .passed()
            .filter(|name| name.contains(CONFORMANCE))
            .collect();
        assert!(!conformance.is_empty());
        for name in conformance {
            let passed = weir.specs.get(name) == Some(&Outcome::Passed);
            assert!(passed || expected.fails(name, Proxy::Weir).is_some(), "{name}");
        }
    }

    #[test]
    fn every_exception_says_what_it_is_about_and_why() {
        let expected = Expected::read().unwrap();
        for skip in &expected.skip {
            assert!(
                !skip.text.trim().is_empty() && !skip.reason.trim().is_empty(),
                "{}",
                skip.text
            );
        }
        for fail in &expected.fail {
            assert!(
                !fail.proxies.is_empty() && !fail.reason.trim().is_empty(),
                "{}",
                fail.spec
            );
            assert_eq!(expected.skipped(&fail.spec), None, "{} is skipped", fail.spec);
        }
    }

    #[test]
    fn what_is_skipped_was_never_seen_to_run_nor_is_it_conformance() {
        let expected = Expected::read().unwrap();
        for (proxy, record) in records() {
            for (name, outcome) in &record.specs {
                if let Some(reason) = expected.skipped(name) {
                    assert_eq!(*outcome, Outcome::LeftOut, "{}: {name}: {reason}", proxy.name());
                    assert!(!name.contains(CONFORMANCE), "{name}: {reason}");
                } else {
                    assert_ne!(*outcome, Outcome::LeftOut, "{}: {name}: no reason", proxy.name());
                }
            }
        }
    }

    #[test]
    fn every_exception_is_about_specs_that_were_seen() {
        let expected = Expected::read().unwrap();
        for (proxy, record) in records() {
            let names: Vec<_> = record.specs.keys().map(String::as_str).collect();
            assert_eq!(
                expected.strangers(&names),
                Vec::<String>::new(),
                "{}",
                proxy.name()
            );
        }
    }

    #[test]
    fn what_is_said_to_fail_failed_and_nothing_else() {
        let expected = Expected::read().unwrap();
        for (proxy, record) in records() {
            for (name, outcome) in &record.specs {
                let failed = matches!(outcome, Outcome::Failed(_));
                let known = expected.fails(name, proxy).is_some();
                assert_eq!(failed, known, "{}: {name}: {outcome:?}", proxy.name());
            }
        }
    }
}
