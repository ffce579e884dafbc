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

    /// The expression by which ginkgo leaves them out; none if there is nothing to leave out.
    pub(super) fn skip_expression(&self) -> Option<String> {
        let texts: Vec<_> = self.skip.iter().map(|skip| escape(&skip.text)).collect();
        (!texts.is_empty()).then(|| texts.join("|"))
    }
}

/// The text as an expression that matches only it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
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
    fn the_file_of_the_tree_is_sound() {
        Expected::read().unwrap();
    }
}
