//! Follows the interfaces, addresses and routes of this network namespace, and keeps the programs attached to them.
//!
//! ```text
//!  netlink message ─▶ Network ─▶ classes ─▶ attach / detach ─▶ Snapshot
//!  every 10 s, and when messages were lost: everything is read and checked again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use proxy_model::LocalAddress;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::watch;

use super::attach::Programs;
use super::classify::{Class, Decision, Held, Rules, decide};
use super::feed::{Feed, News};
use super::network::{Effect, Network, Sources};

/// Time between two complete looks.
const RESYNC: Duration = Duration::from_secs(10);

/// Time between two complete looks while messages keep coming after a loss.
const START_OVER_PAUSE: Duration = Duration::from_millis(100);

/// An interface that programs are, or should be, attached to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Index in this namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What it is.
    pub class: Class,
    /// Why the programs are not attached; `None` if they are.
    pub problem: Option<String>,
}

/// What the watcher knows; sent whole on every change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Whether the first complete look is done.
    pub complete: bool,
    /// `Change::LocalAddresses`, sorted.
    pub addresses: Vec<LocalAddress>,
    /// For `Maps::set_fallback_sources`.
    pub sources: Sources,
    /// Whether the Node was read: before that, `sources` and the classes of interfaces are a guess.
    pub node_read: bool,
    /// The interfaces that are not [`Class::Ignored`], by index.
    pub interfaces: Vec<Interface>,
    /// Why the socket hooks are not attached; `None` if they are.
    pub socket_problem: Option<String>,
}

/// Handle of the watcher. Dropping it ends the watcher and detaches nothing.
pub struct Interfaces {
    node_addresses: watch::Sender<Option<BTreeSet<IpAddr>>>,
    snapshots: watch::Receiver<Snapshot>,
}

impl Interfaces {
    /// Starts the watcher on a thread of its own: attaching waits for the kernel, milliseconds for each interface, and
    /// neither the main loop nor a new pod should wait for the other.
    pub fn start(programs: Programs, rules: Rules) -> io::Result<Self> {
        let (node_addresses, node_receiver) = watch::channel(None);
        let (snapshot_sender, snapshots) = watch::channel(Snapshot::default());
        let watcher = Watcher {
            programs,
            rules,
            node_addresses: node_receiver,
            network: Network::default(),
            attached: BTreeMap::new(),
            socket_problem: None,
            snapshots: snapshot_sender,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let feed = {
            let _inside = runtime.enter();
            Feed::open()?
        };
        std::thread::Builder::new()
            .name("interfaces".to_owned())
            .spawn(move || runtime.block_on(watcher.run(feed)))?;
        Ok(Self {
            node_addresses,
            snapshots,
        })
    }

    /// Every `InternalIP` of the Node, when they are known or change: who has one is an uplink. Until the first call,
    /// no interface loses what an earlier agent attached to it.
    pub fn set_node_addresses(&self, addresses: BTreeSet<IpAddr>) {
        proxy_source::replace(&self.node_addresses, Some(addresses));
    }

    /// What the watcher knows, and a way to wait for changes of it (`changed().await`).
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }
}

/// The task behind [`Interfaces`].
struct Watcher {
    programs: Programs,
    rules: Rules,
    /// `None` until the Node was read.
    node_addresses: watch::Receiver<Option<BTreeSet<IpAddr>>>,
    network: Network,
    /// Interfaces that programs are, or should be, attached to.
    attached: BTreeMap<u32, Interface>,
    socket_problem: Option<String>,
    snapshots: watch::Sender<Snapshot>,
}

impl Watcher {
    async fn run(mut self, mut feed: Feed) {
        let mut resync = tokio::time::interval(RESYNC);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let go_on = tokio::select! {
                _ = resync.tick() => self.resync(&feed).await,
                news = feed.next() => self.take(&mut feed, news).await,
                changed = self.node_addresses.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconcile(false);
                    true
                }
            };
            if !go_on {
                feed = Feed::reopen().await;
                resync.reset_immediately();
            }
        }
    }

    /// Reads everything and checks every interface; false if the connection is gone.
    async fn resync(&mut self, feed: &Feed) -> bool {
        match feed.look().await {
            Ok(network) => {
                self.network = network;
                self.socket_problem = self.programs.check_cgroup().err().map(|error| error.to_string());
                if let Some(problem) = &self.socket_problem {
                    tracing::warn!(problem, "socket hooks not served; trying again");
                }
                self.reconcile(true);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the interfaces; connecting to netlink again");
                false
            }
        }
    }

    /// Reads everything after messages were lost. What still waits is older than what is read now, and half of a story:
    /// an address that came, while the message that it went is lost. So it is thrown away, until nothing is left.
    async fn start_over(&mut self, feed: &mut Feed) -> bool {
        tracing::info!("netlink messages were lost; reading everything again");
        loop {
            while feed.ready().is_some() {}
            if !self.resync(feed).await {
                return false;
            }
            match feed.ready() {
                None => return true,
                Some(_) => tokio::time::sleep(START_OVER_PAUSE).await,
            }
        }
    }

    /// Takes in this message and all that wait behind it; false if the connection is gone.
    async fn take(&mut self, feed: &mut Feed, first: News) -> bool {
        let mut changed = false;
        let mut routes = false;
        let mut next = Some(first);
        while let Some(news) = next {
            match news {
                News::Closed => return false,
                News::Lost => return self.start_over(feed).await,
                News::Message(message) => {
                    self.forget_if_gone(&message);
                    match self.network.observe(&message) {
                        Effect::None => {}
                        Effect::Changed => changed = true,
                        Effect::Routes => routes = true,
                    }
                }
            }
            next = feed.ready();
        }
        if routes && let Err(error) = feed.look_at_routes(&mut self.network).await {
            tracing::warn!(%error, "cannot read the routes; connecting to netlink again");
            return false;
        }
        if changed || routes {
            self.reconcile(false);
        }
        true
    }

    /// An interface that leaves, and another that comes with the same number, can be in one batch of messages: the
    /// programs of the first must not pass for those of the second.
    fn forget_if_gone(&mut self, message: &RouteNetlinkMessage) {
        if let RouteNetlinkMessage::DelLink(link) = message
            && link.header.interface_family != AddressFamily::Bridge
        {
            self.release(link.header.index);
        }
    }

    /// Brings programs and interfaces together; with `check` also where nothing seems to have changed.
    fn reconcile(&mut self, check: bool) {
        let node = self.node_addresses.borrow_and_update().clone();
        let read = node.is_some();
        let node = node.unwrap_or_default();
        let mut decisions = BTreeMap::new();
        for (index, (name, class)) in self.network.classes(&self.rules, &node) {
            decisions.insert(index, (name, decide(read, class, || self.held(index))));
        }
        decisions.retain(|_, (_, decision)| *decision != Decision::Release);
        self.release_others(&decisions, check);
        for (index, (name, decision)) in decisions {
            if let Decision::Serve(class) = decision {
                self.serve(index, name, class, check);
            }
        }
        self.publish(&node, read);
    }

    /// What is attached to an interface: by us, or by an earlier agent.
    fn held(&self, index: u32) -> Held {
        self.attached.get(&index).map_or_else(
            || self.programs.held(index),
            |interface| Held::As(interface.class),
        )
    }

    /// Takes the programs off interfaces that are none of ours any more.
    fn release_others(&mut self, wanted: &BTreeMap<u32, (String, Decision)>, check: bool) {
        let mut gone: BTreeSet<u32> = self.attached.keys().copied().collect();
        if check {
            gone.extend(self.programs.pinned_interfaces());
        }
        for index in gone.into_iter().filter(|index| !wanted.contains_key(index)) {
            self.release(index);
        }
    }

    fn release(&mut self, index: u32) {
        if let Some(interface) = self.attached.remove(&index) {
            tracing::info!(index, name = interface.name, class = ?interface.class, "interface released");
        }
        if let Err(error) = self.programs.detach_interface(index) {
            tracing::warn!(%error, index, "the programs of an interface were not removed; trying again");
        }
    }

    fn serve(&mut self, index: u32, name: String, class: Class, check: bool) {
        let known = self.attached.get(&index);
        let same = known.is_some_and(|known| known.class == class && known.problem.is_none());
        if !same || check {
            let problem = self
                .programs
                .attach_interface(index, class)
                .err()
                .map(|error| error.to_string());
            let news = known.and_then(|known| known.problem.as_ref()) != problem.as_ref();
            match &problem {
                None if !same => tracing::info!(index, name, ?class, "interface served"),
                Some(problem) if news => {
                    tracing::warn!(index, name, ?class, problem, "interface not served; trying again");
                }
                _ => {}
            }
            self.attached.insert(
                index,
                Interface {
                    index,
                    name,
                    class,
                    problem,
                },
            );
        } else if let Some(known) = self.attached.get_mut(&index) {
            known.name = name;
        }
    }

    fn publish(&self, node: &BTreeSet<IpAddr>, node_read: bool) {
        let new = Snapshot {
            complete: true,
            addresses: self.network.local_addresses(),
            sources: self.network.sources(node),
            node_read,
            interfaces: self.attached.values().cloned().collect(),
            socket_problem: self.socket_problem.clone(),
        };
        proxy_source::replace(&self.snapshots, new);
    }
}
