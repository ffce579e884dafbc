//! Which addresses are pods': kube-proxy's `detectLocalMode`, as far as it goes by ranges.

use proxy_common::{Cidr, LocalSources};

use crate::address::Family;
use crate::node::Node;
use crate::node_ports::Prefix;

/// What was configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum PodRanges {
    /// All that comes in where pods do is a pod's.
    #[default]
    Everything,
    /// `ClusterCIDR`: these, one of a family.
    Given(Vec<Prefix>),
    /// `NodeCIDR`: those of the Node.
    OfNode,
}

/// No ranges of pods.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PodRangesError {
    /// Not a range.
    #[error("{0:?} is not a range such as 10.244.0.0/16")]
    NotPrefix(String),
    /// Two of a family.
    #[error("{0} and {1} are of one family: give one range of IPv4, one of IPv6, or one of each")]
    SameFamily(Prefix, Prefix),
}

impl PodRanges {
    /// Reads a list; an empty one leaves every address to pods, as with kube-proxy.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<Self, PodRangesError> {
        let mut ranges: Vec<Prefix> = Vec::new();
        for text in list.iter().map(|text| text.as_ref().trim()) {
            let range: Prefix = text
                .parse()
                .map_err(|_| PodRangesError::NotPrefix(text.to_owned()))?;
            if let Some(other) = ranges.iter().find(|other| other.family() == range.family()) {
                return Err(PodRangesError::SameFamily(*other, range));
            }
            ranges.push(range);
        }
        Ok(if ranges.is_empty() {
            Self::Everything
        } else {
            Self::Given(ranges)
        })
    }

    /// The row; `None` if the Node decides, and there is none.
    pub fn row(&self, node: Option<&Node>) -> Option<LocalSources> {
        let ranges = match self {
            Self::Everything => &[],
            Self::Given(ranges) => ranges.as_slice(),
            Self::OfNode => node?.pod_ranges.as_slice(),
        };
        let of = |family| {
            let range = ranges.iter().find(|range| range.family() == family);
            range.map_or_else(Cidr::default, |range| Cidr {
                first: range.first(),
                mask: range.mask(),
            })
        };
        Some(LocalSources {
            v4: of(Family::V4),
            v6: of(Family::V6),
        })
    }

    /// What is wrong with the Node, for those who ask it.
    pub fn problem(&self, node: Option<&Node>) -> Option<&'static str> {
        let missing = *self == Self::OfNode && node.is_some_and(|node| node.pod_ranges.is_empty());
        missing.then_some(
            "it has no podCIDRs, so every address is taken for a pod's: let the controller manager allocate them \
             (--allocate-node-cidrs), or use another --detect-local-mode than NodeCIDR",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_a_family() {
        assert_eq!(PodRanges::parse::<&str>(&[]), Ok(PodRanges::Everything));
        let both = PodRanges::parse(&["10.244.0.0/16", " fd00:10::/64"]).unwrap();
        let row = both.row(None).unwrap();
        assert_eq!(row.v4.first.to_string(), "10.244.0.0");
        assert_eq!(row.v6.first.to_string(), "fd00:10::");
        let v6 = PodRanges::parse(&["fd00:10::/64"]).unwrap().row(None).unwrap();
        assert_eq!((v6.v4, v6.v6), (Cidr::default(), row.v6));
        for (wrong, said) in [
            (&["10.244.0.0"][..], "is not a range"),
            (&[""], "is not a range"),
            (&["10.0.0.0/8", "10.244.0.0/16"], "of one family"),
        ] {
            let error = PodRanges::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
