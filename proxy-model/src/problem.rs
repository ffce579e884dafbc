//! What is wrong with an object, in words for its owner.

use std::fmt;

use crate::object::{Kind, ObjectName};

/// Something an operator should know about one object. It costs what the sentence says, and nothing else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Kind and name, as `Service default/web`.
    pub object: String,
    /// What is wrong, what it costs, and what to do.
    pub what: String,
    /// Why, in one word.
    pub reason: Reason,
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object.
    pub name: ObjectName,
    /// Its `metadata.uid`, if it has one.
    pub uid: Option<String>,
    /// Whether it is so on this node; what the object itself says is the same on every node.
    pub of_node: bool,
}

/// What sort of problem it is: the reason of its Event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// The object asks for something that cannot be done, whatever the node.
    NotServed,
    /// It asks for a frontend that it does not get: somebody else has it, or the node itself.
    FrontendRefused,
    /// The kernel refuses its rows, or has no room for them.
    FailedToProgram,
    /// Its health check node port cannot be listened on; the word is kube-proxy's.
    FailedToStartServiceHealthcheck,
}

impl Reason {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotServed => "NotServed",
            Self::FrontendRefused => "FrontendRefused",
            Self::FailedToProgram => "FailedToProgram",
            Self::FailedToStartServiceHealthcheck => "FailedToStartServiceHealthcheck",
        }
    }
}

impl Problem {
    /// About one object; [`Reason::NotServed`].
    pub fn new(kind: Kind, name: &ObjectName, what: impl Into<String>) -> Self {
        Self {
            object: format!("{kind} {name}"),
            what: what.into(),
            reason: Reason::NotServed,
            kind,
            name: name.clone(),
            uid: None,
            of_node: kind == Kind::Node,
        }
    }

    /// For another reason.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        let of_node = matches!(
            reason,
            Reason::FailedToProgram | Reason::FailedToStartServiceHealthcheck
        );
        Self {
            reason,
            of_node: self.of_node || of_node,
            ..self
        }
    }

    /// It is so on this node.
    #[must_use]
    pub fn on_this_node(self) -> Self {
        Self {
            of_node: true,
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}
