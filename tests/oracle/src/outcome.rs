//! What a probe saw, in a form that two nodes can be compared in.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::places::{Place, is_of_the_node};
use crate::wire::Said;

/// Whose address the endpoint saw.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Seen {
    /// The client's.
    Own,
    /// This one of the node.
    Node(IpAddr),
    /// Somebody else's.
    Other(IpAddr),
}

/// What a connection can come to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Answer {
    /// An endpoint said something.
    Served {
        /// Which one.
        by: Place,
        /// At which of its ports.
        port: u16,
        /// Whose address it saw.
        seen: Seen,
    },
    /// `ECONNREFUSED`
    Refused,
    /// Nothing.
    Silent,
    /// `EHOSTUNREACH`
    Unreachable,
    /// It was let pass, and nobody knows the address.
    NoRoute,
    /// What should not be.
    Other(String),
}

impl Answer {
    /// Reads what a client said that asked from `from`.
    pub fn new(said: &Said, from: IpAddr) -> Self {
        match said {
            Said::Answer(text) => served(text, from).unwrap_or_else(|| Self::Other(text.clone())),
            Said::Refused => Self::Refused,
            Said::Silent => Self::Silent,
            Said::Unreachable => Self::Unreachable,
            Said::NoRoute => Self::NoRoute,
            Said::Other(text) => Self::Other(text.clone()),
        }
    }
}

fn served(text: &str, from: IpAddr) -> Option<Answer> {
    let mut words = text.split(' ');
    let by = Place::named(words.next()?)?;
    let port = words.next()?.parse().ok()?;
    let address: IpAddr = words.next()?.parse().ok()?;
    let seen = if address == from {
        Seen::Own
    } else if is_of_the_node(address) {
        Seen::Node(address)
    } else {
        Seen::Other(address)
    };
    Some(Answer::Served { by, port, seen })
}

/// What all connections of a probe came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Each kind of answer once.
    pub answers: BTreeSet<Answer>,
    /// Whether each client met its endpoint again, where that was tried.
    pub sticky: Option<bool>,
}

impl Outcome {
    /// Reads what came of connections from these addresses.
    pub fn new(said: &[Said], from: &[IpAddr]) -> Self {
        let answers = said.iter().zip(from).map(|(said, &from)| Answer::new(said, from));
        Self {
            answers: answers.collect(),
            sticky: None,
        }
    }

    /// The same clients have asked again.
    pub fn again(&mut self, first: &[Said], second: &[Said]) {
        self.sticky = Some(first == second);
    }

    /// Whether all connections went to one endpoint.
    pub fn one_endpoint(&self) -> bool {
        self.sticky != Some(false)
            && self.answers.len() == 1
            && self
                .answers
                .iter()
                .all(|answer| matches!(answer, Answer::Served { .. }))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served { by, port, seen } => {
                write!(f, "{} at {port}", by.name())?;
                match seen {
                    Seen::Own => Ok(()),
                    Seen::Node(address) | Seen::Other(address) => write!(f, ", asked by {address}"),
                }
            }
            Self::Refused => f.write_str("refused"),
            Self::Silent => f.write_str("silence"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::NoRoute => f.write_str("passed on"),
            Self::Other(text) => write!(f, "{text:?}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers: Vec<_> = self.answers.iter().map(Answer::to_string).collect();
        f.write_str(&answers.join("; "))?;
        match self.sticky {
            Some(false) => f.write_str(" (the same clients met others the second time)"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_who_asked() {
        let from = "10.99.0.1".parse().unwrap();
        let read = |text: &str| Answer::new(&Said::Answer(text.to_owned()), from).to_string();
        assert_eq!(read("a 8001 10.99.0.1"), "a at 8001");
        assert_eq!(read("d 8001 172.30.0.11"), "d at 8001, asked by 172.30.0.11");
        assert_eq!(read("z 8001 172.30.0.11"), "\"z 8001 172.30.0.11\"");
        assert_eq!(read("a"), "\"a\"");
        assert_eq!(Answer::new(&Said::Silent, from).to_string(), "silence");
    }

    #[test]
    fn a_client_that_moves_is_noticed() {
        let from = ["10.99.0.1".parse().unwrap()];
        let said = |name: &str| vec![Said::Answer(format!("{name} 8001 10.99.0.1"))];
        let mut outcome = Outcome::new(&said("a"), &from);
        outcome.again(&said("a"), &said("b"));
        assert_ne!(outcome, Outcome::new(&said("a"), &from));
        assert!(outcome.to_string().starts_with("a at 8001 ("));
        assert!(!outcome.one_endpoint());
    }
}
