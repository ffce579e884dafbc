//! What an interface is to weir. Pure: facts in, class out.

/// What an interface is to weir.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Its other end is in a pod.
    Pod,
    /// It is as a pod's, but the operator says that there is none behind it.
    Guest,
    /// It leads to other nodes or to the outside.
    Uplink,
    /// An uplink without Ethernet header.
    UplinkL3,
    /// None of weir's business.
    Ignored,
}

/// What is attached to an interface already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// Nothing of ours.
    Nothing,
    /// The programs for this class.
    As(Class),
    /// Programs of ours, but which cannot be told.
    Unknown,
}

/// What to do about an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// See that the programs for this class are there.
    Serve(Class),
    /// Touch nothing.
    Leave,
    /// Take our programs off.
    Release,
}

/// What to do about an interface of this class. Before the Node was read, an interface that is an uplink only by its
/// `InternalIP` looks like something else: what an earlier agent knew then counts more than what is seen. The Node
/// makes uplinks and never unmakes one, so an uplink is certain without it.
pub(super) fn decide(node_read: bool, class: Class, held: impl FnOnce() -> Held) -> Decision {
    match class {
        Class::Uplink | Class::UplinkL3 => Decision::Serve(class),
        Class::Ignored if node_read => Decision::Release,
        Class::Pod | Class::Guest if node_read => Decision::Serve(class),
        Class::Pod | Class::Guest | Class::Ignored => match held() {
            Held::As(before) => Decision::Serve(before),
            Held::Nothing if class != Class::Ignored => Decision::Serve(class),
            Held::Nothing | Held::Unknown => Decision::Leave,
        },
    }
}

/// Which interfaces are what, where the rules guess wrong. Globs know `*` and `?`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// `--uplink`.
    pub uplinks: Vec<String>,
    /// `--pod-interface`.
    pub pods: Vec<String>,
    /// Which of the interfaces that look like pods' are pods'; all, if nothing is said.
    pub pod_interfaces: Option<PodInterfaces>,
}

/// kube-proxy's `detectLocalMode`, as far as it goes by interfaces. A port of a bridge counts as the bridge too, because
/// that is what kube-proxy sees of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PodInterfaces {
    /// `BridgeInterface`: this one, and its ports.
    Bridge(String),
    /// `InterfaceNamePrefix`: those whose names begin so.
    Prefix(String),
}

impl PodInterfaces {
    fn have(&self, name: &str) -> bool {
        match self {
            Self::Bridge(bridge) => name == bridge,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

/// The facts about an interface that decide.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as the kernel tells them"
)]
pub(super) struct Facts<'a> {
    pub(super) name: &'a str,
    /// The kernel's word for a virtual device (`veth`, `vxlan`, …); empty for a physical one.
    pub(super) kind: &'a str,
    /// The kind of the interface that this one is a port or member of; empty if it is none.
    pub(super) controller: &'a str,
    /// That interface's name.
    pub(super) controller_name: &'a str,
    pub(super) loopback: bool,
    /// Whether packets on it begin with an Ethernet header.
    pub(super) ethernet: bool,
    /// Whether its other end is in another network namespace.
    pub(super) peer_elsewhere: bool,
    /// Whether a default route leaves by it, or it has an `InternalIP` of the Node.
    pub(super) leads_out: bool,
}

/// Decides.
pub(super) fn classify(facts: &Facts<'_>, rules: &Rules) -> Class {
    let names = [facts.name, facts.controller_name];
    let is_pod = |pods: &PodInterfaces| names.into_iter().any(|name| pods.have(name));
    match guess(facts, rules) {
        Class::Pod if !rules.pod_interfaces.as_ref().is_none_or(is_pod) => Class::Guest,
        class => class,
    }
}

/// By kind and place, whatever is said of pods.
fn guess(facts: &Facts<'_>, rules: &Rules) -> Class {
    let uplink = if facts.ethernet {
        Class::Uplink
    } else {
        Class::UplinkL3
    };
    let any = |globs: &[String]| globs.iter().any(|glob| matches(glob, facts.name));
    // Loopback is not for Services, and a bridge is met at its ports: at the bridge itself a packet would be seen twice.
    if facts.loopback || facts.kind == "bridge" {
        return Class::Ignored;
    }
    if any(&rules.uplinks) {
        return uplink;
    }
    if any(&rules.pods) {
        return Class::Pod;
    }
    if facts.leads_out {
        return uplink;
    }
    // The members of a bond carry what the bond carries.
    if matches!(facts.controller, "bond" | "team") {
        return Class::Ignored;
    }
    match facts.kind {
        "veth" | "netkit" if facts.peer_elsewhere || is_bridge(facts.controller) => Class::Pod,
        // Layer 2 of it is a tap, for a virtual machine; layer 3 a tunnel of some VPN.
        "tun" if facts.ethernet => Class::Pod,
        "veth" | "netkit" | "dummy" | "ifb" | "nlmon" | "vrf" | "vcan" | "vxcan" | "can" | "macvlan"
        | "macvtap" | "ipvlan" | "ipvtap" | "netdevsim" => Class::Ignored,
        _ => uplink,
    }
}

fn is_bridge(kind: &str) -> bool {
    matches!(kind, "bridge" | "openvswitch" | "ovs-system")
}

/// Whether a name matches a glob with `*` (any run of characters) and `?` (any one).
fn matches(glob: &str, name: &str) -> bool {
    match (glob.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = glob.get(1..).unwrap_or_default();
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| matches(rest, name.get(at..).unwrap_or_default()))
        }
        (Some(wanted), Some(found)) if wanted == '?' || wanted == found => matches(
            glob.get(wanted.len_utf8()..).unwrap_or_default(),
            name.get(found.len_utf8()..).unwrap_or_default(),
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &'static str, kind: &'static str) -> Facts<'static> {
        Facts {
            name,
            kind,
            ethernet: true,
            ..Facts::default()
        }
    }

    fn class(facts: impl std::borrow::Borrow<Facts<'static>>) -> Class {
        classify(facts.borrow(), &Rules::default())
    }

    #[test]
    fn a_veth_into_another_namespace_is_a_pod() {
        assert_eq!(
            class(Facts {
                peer_elsewhere: true,
                ..facts("cali1", "veth")
            }),
            Class::Pod
        );
        assert_eq!(
            class(Facts {
                peer_elsewhere: true,
                ..facts("nk0", "netkit")
            }),
            Class::Pod
        );
        assert_eq!(class(facts("veth0", "veth")), Class::Ignored);
    }

    #[test]
    fn a_veth_with_the_way_out_is_an_uplink() {
        let eth0 = Facts {
            peer_elsewhere: true,
            leads_out: true,
            ..facts("eth0", "veth")
        };
        assert_eq!(class(eth0), Class::Uplink);
    }

    #[test]
    fn ports_of_a_bridge_are_pods_and_the_bridge_is_nothing() {
        assert_eq!(
            class(Facts {
                controller: "bridge",
                ..facts("veth1", "veth")
            }),
            Class::Pod
        );
        assert_eq!(
            class(Facts {
                controller: "bridge",
                ..facts("tap0", "tun")
            }),
            Class::Pod
        );
        assert_eq!(
            class(Facts {
                leads_out: true,
                ..facts("cni0", "bridge")
            }),
            Class::Ignored
        );
        assert_eq!(
            class(Facts {
                controller: "bridge",
                ..facts("eth0", "")
            }),
            Class::Uplink
        );
    }

    #[test]
    fn what_leads_to_other_nodes_is_an_uplink() {
        for kind in ["", "vlan", "bond", "vxlan", "geneve"] {
            assert_eq!(class(facts("x0", kind)), Class::Uplink, "{kind}");
        }
        for kind in ["ipip", "wireguard", "sit", "tun", "gre"] {
            assert_eq!(
                class(Facts {
                    ethernet: false,
                    ..facts("x0", kind)
                }),
                Class::UplinkL3,
                "{kind}"
            );
        }
    }

    #[test]
    fn the_members_of_a_bond_are_left_to_the_bond() {
        assert_eq!(
            class(Facts {
                controller: "bond",
                ..facts("eth1", "")
            }),
            Class::Ignored
        );
    }

    #[test]
    fn rules_win_over_guesses_but_not_over_loopback() {
        let rules = Rules {
            uplinks: vec!["eth*".to_owned()],
            pods: vec!["pod?".to_owned(), "lo".to_owned()],
            pod_interfaces: None,
        };
        let classify = |facts| classify(&facts, &rules);
        assert_eq!(
            classify(Facts {
                peer_elsewhere: true,
                ..facts("eth7", "veth")
            }),
            Class::Uplink
        );
        assert_eq!(classify(facts("pod1", "dummy")), Class::Pod);
        assert_eq!(classify(facts("pod12", "dummy")), Class::Ignored);
        assert_eq!(
            classify(Facts {
                loopback: true,
                ..facts("lo", "")
            }),
            Class::Ignored
        );
    }

    #[test]
    fn what_the_operator_does_not_call_a_pod_is_a_guest() {
        let veth = |name| Facts {
            peer_elsewhere: true,
            ..facts(name, "veth")
        };
        let port = |controller_name| Facts {
            controller: "bridge",
            controller_name,
            ..veth("veth1")
        };
        let with = |pods: PodInterfaces, facts| {
            let rules = Rules {
                pod_interfaces: Some(pods),
                ..Rules::default()
            };
            classify(&facts, &rules)
        };
        let bridge = || PodInterfaces::Bridge("cni0".to_owned());
        assert_eq!(with(bridge(), port("cni0")), Class::Pod);
        assert_eq!(with(bridge(), port("docker0")), Class::Guest);
        assert_eq!(with(bridge(), veth("veth1")), Class::Guest);
        let prefix = |prefix: &str| PodInterfaces::Prefix(prefix.to_owned());
        assert_eq!(with(prefix("cali"), veth("cali12")), Class::Pod);
        assert_eq!(with(prefix("cali"), veth("lxc12")), Class::Guest);
        assert_eq!(with(prefix("cni"), port("cni0")), Class::Pod);
        // What is no pod's anyway stays what it is.
        assert_eq!(with(prefix("cali"), facts("eth0", "")), Class::Uplink);
        assert_eq!(with(prefix("cali"), facts("dummy0", "dummy")), Class::Ignored);
    }

    #[test]
    fn until_the_node_is_read_an_adopted_interface_keeps_its_class() {
        for class in [Class::Pod, Class::Guest, Class::Ignored] {
            let before = |held| decide(false, class, || held);
            assert_eq!(before(Held::As(Class::Uplink)), Decision::Serve(Class::Uplink));
            assert_eq!(
                before(Held::As(Class::UplinkL3)),
                Decision::Serve(Class::UplinkL3)
            );
            assert_eq!(before(Held::As(Class::Pod)), Decision::Serve(Class::Pod));
            assert_eq!(before(Held::Unknown), Decision::Leave);
        }
        let new = |class| decide(false, class, || Held::Nothing);
        assert_eq!(new(Class::Pod), Decision::Serve(Class::Pod));
        assert_eq!(new(Class::Guest), Decision::Serve(Class::Guest));
        assert_eq!(new(Class::Ignored), Decision::Leave);
        // A default route makes an uplink, whatever the Node says.
        let uplink = decide(false, Class::Uplink, || Held::As(Class::Pod));
        assert_eq!(uplink, Decision::Serve(Class::Uplink));
    }

    #[test]
    fn once_the_node_is_read_its_class_is_what_an_interface_is() {
        let after = |class| decide(true, class, || Held::As(Class::Uplink));
        assert_eq!(after(Class::Pod), Decision::Serve(Class::Pod));
        assert_eq!(after(Class::Uplink), Decision::Serve(Class::Uplink));
        assert_eq!(after(Class::Ignored), Decision::Release);
    }

    #[test]
    fn globs() {
        for (glob, name, wanted) in [
            ("*", "", true),
            ("*", "eth0", true),
            ("e*0", "eth0", true),
            ("e*1", "eth0", false),
            ("e?h*", "eth0.100", true),
            ("", "eth0", false),
            ("eth0", "eth", false),
            ("*a*b*", "xaxxbx", true),
        ] {
            assert_eq!(matches(glob, name), wanted, "{glob} {name}");
        }
    }
}
