//! Which specs a run is about.

use anyhow::{Context, Result};
use regex::Regex;

use super::GROUP;

/// ginkgo matches a focus against this, a blank, and the spec's name.
const SUITE: &str = "Kubernetes e2e suite";

/// How much of the group is run if nobody says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What a Kubernetes must do to bear the name
    Conformance,
    /// All that can run here
    Everything,
}

impl Scope {
    fn expression(self) -> &'static str {
        match self {
            Self::Conformance => r"\[sig-network\].*\[Conformance\]",
            Self::Everything => r"\[sig-network\]",
        }
    }
}

/// The specs that are to run, but for those that cannot.
pub(super) struct Focus {
    expression: Regex,
    is_whole: bool,
}

impl Focus {
    /// Those whose names match, else those of the scope.
    pub(super) fn new(asked: Option<&str>, scope: Scope) -> Result<Self> {
        let text = asked.unwrap_or(scope.expression());
        Ok(Self {
            expression: Regex::new(text).with_context(|| format!("--focus {text}"))?,
            is_whole: asked.is_none() && scope == Scope::Everything,
        })
    }

    /// As ginkgo wants it.
    pub(super) fn text(&self) -> &str {
        self.expression.as_str()
    }

    /// Whether it is the group with nothing left out: only such a run says what there is.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether it means this spec.
    pub(super) fn has(&self, spec: &str) -> bool {
        if self.is_whole {
            spec.contains(GROUP)
        } else {
            self.expression.is_match(&format!("{SUITE} {spec}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_of_the_group_is_the_whole() {
        let whole = |asked, scope| Focus::new(asked, scope).unwrap().is_whole();
        assert!(whole(None, Scope::Everything));
        assert!(!whole(None, Scope::Conformance));
        assert!(!whole(Some("x"), Scope::Everything));
    }

    #[test]
    fn a_focus_is_an_expression_as_for_ginkgo() {
        let has = |asked, spec| Focus::new(asked, Scope::Conformance).unwrap().has(spec);
        assert!(has(None, "[sig-network] a [Conformance]"));
        assert!(!has(None, "[sig-network] a"));
        assert!(!has(None, "[sig-apps] a [Conformance]"));
        assert!(has(
            Some("^Kubernetes e2e suite .sig-apps. (a|b)$"),
            "[sig-apps] b"
        ));
        assert!(Focus::new(Some("("), Scope::Everything).is_err());
    }
}
