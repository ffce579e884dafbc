//! The lab as a whole: makes machines, and removes everything at the end, however the end comes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context, Result, bail, ensure};

use crate::host::{Host, HostPaths};
use crate::kernel_fs::{
    DISK, RUN, cgroup_roots, cgroup1_roots, cgroup2_root, make_cgroup1, remove_cgroup, remove_tree,
};
use crate::node::{Node, NodeOptions};
use crate::{Netns, netns, root, signals, sweep};

/// The switch that machines are plugged into unless they say otherwise.
pub(crate) const FABRIC: &str = "fabric";

/// A lab. Dropping it ends its processes and removes its namespaces, mounts, cgroups and files.
#[derive(Debug)]
pub struct Lab {
    world: Arc<World>,
}

impl Lab {
    /// An empty lab, after removing what dead runs with the same prefix left behind.
    pub fn new(prefix: &str) -> Result<Self> {
        if let Some(reason) = root::missing() {
            bail!("{reason}");
        }
        ensure!(
            !prefix.is_empty()
                && prefix
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "the prefix {prefix:?} of a lab must be letters, digits and dashes, as it becomes part of names"
        );
        sweep::sweep(prefix)?;
        let world = Arc::new(World::new(prefix)?);
        lock(&WORLDS).push(Arc::downgrade(&world));
        Ok(Self { world })
    }

    /// `PREFIX-PID`, with which the names of all that the lab made begin.
    pub fn id(&self) -> &str {
        &self.world.id
    }

    /// A folder for files of the lab's user; goes with the lab.
    pub fn dir(&self) -> &Path {
        &self.world.dir
    }

    /// A folder for big files of the lab's user, on the disk; goes with the lab.
    pub fn disk(&self) -> Result<PathBuf> {
        let path = Path::new(DISK).join(self.id());
        self.world.while_alive(|_| {
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))
        })?;
        Ok(path)
    }

    /// Makes the directory that a machine has in the cgroup v2 hierarchy in those of version 1 as well, for programs
    /// that put others there; whether this machine has any.
    pub fn make_cgroups1(&self, host: &Host) -> Result<bool> {
        let root = cgroup2_root()?;
        let path = host.cgroup().strip_prefix(&root)?;
        let roots = cgroup1_roots()?;
        self.world
            .while_alive(|_| roots.iter().try_for_each(|root| make_cgroup1(root, path)))?;
        Ok(!roots.is_empty())
    }

    /// A machine's directory relative to the root of any cgroup hierarchy: `/weir-lab-PREFIX-PID/NAME`.
    pub fn cgroup_path(&self, host: &Host) -> Result<PathBuf> {
        let root = cgroup2_root()?;
        Ok(Path::new("/").join(host.cgroup().strip_prefix(root)?))
    }

    /// A switch: a namespace with a bridge. Asking again gives the same one.
    pub fn switch(&self, name: &str) -> Result<Host> {
        self.world.switch(name)
    }

    /// A node, plugged into its switch, with routes to the pods of the other nodes and theirs to its pods.
    pub fn node(&self, name: &str, options: NodeOptions) -> Result<Node> {
        Node::create(&self.world, name, options)
    }

    /// The nodes made so far.
    pub fn nodes(&self) -> Vec<Node> {
        lock(&self.world.nodes).clone()
    }

    /// A machine on the fabric that is no node: 172.30.0.100 and `fd00:172:30::100`, then 101, and so on.
    pub fn outside(&self, name: &str) -> Result<Host> {
        let number = 100 + self.world.outsiders.fetch_add(1, Ordering::Relaxed);
        let last = u8::try_from(number).context("too many machines outside")?;
        // The IPv6 address has the same digits as the IPv4 one, so that people see which is which.
        let group = u16::from_str_radix(&last.to_string(), 16).context("not a group of digits")?;
        let v4 = Ipv4Addr::new(172, 30, 0, last);
        let v6 = Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, group);
        let host = self.world.host(name, name, v4, v6)?;
        self.world.plug(&host, FABRIC)?;
        Ok(host)
    }

    /// Removes everything now, with the error if something stays.
    pub fn remove(self) -> Result<()> {
        let result = self.world.remove();
        signals::wait_if_interrupted();
        result
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.world.remove() {
            eprintln!("the lab {} is not removed completely: {error:#}", self.world.id);
        }
        signals::wait_if_interrupted();
    }
}

/// What a lab made. Machines refer to it, and only [`Lab`] and a signal remove it.
#[derive(Debug)]
pub(crate) struct World {
    id: String,
    dir: PathBuf,
    cgroup: PathBuf,
    /// Names of the namespaces; `None` once the lab is removed. Held while something is made, so that a removal by a
    /// signal finds it.
    netns: Mutex<Option<Vec<String>>>,
    switches: Mutex<BTreeMap<String, Host>>,
    pub(crate) nodes: Mutex<Vec<Node>>,
    outsiders: AtomicU32,
    removal: Mutex<()>,
}

impl World {
    fn new(prefix: &str) -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        // One process may have several labs at a time: tests run on threads.
        let id = match LABS.fetch_add(1, Ordering::Relaxed) {
            0 => format!("{prefix}-{pid}"),
            number => format!("{prefix}-{pid}-{number}"),
        };
        let world = Self {
            dir: Path::new(RUN).join(&id),
            cgroup: cgroup2_root()?.join(cgroup_name(&id)),
            id,
            netns: Mutex::new(Some(Vec::new())),
            switches: Mutex::default(),
            nodes: Mutex::default(),
            outsiders: AtomicU32::new(0),
            removal: Mutex::default(),
        };
        for path in [&world.dir, &world.cgroup] {
            fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(world)
    }

    /// Makes a machine without links; `cgroup` is relative to the lab's.
    pub(crate) fn host(&self, name: &str, cgroup: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Host> {
        let mut netns = lock(&self.netns);
        let Some(names) = netns.as_mut() else {
            bail!("the lab {} is already removed", self.id);
        };
        let full = format!("{}-{name}", self.id);
        ensure!(!names.contains(&full), "the lab has a machine {name} already");
        names.push(full.clone());
        let paths = HostPaths {
            netns: Netns::create(&full)?,
            cgroup: self.cgroup.join(cgroup),
            dir: self.dir.join("log"),
        };
        for path in [&paths.cgroup, &paths.dir] {
            fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(Host::new(name, paths, v4, v6))
    }

    /// Runs `make` unless the lab is removed, and keeps it from being removed meanwhile.
    pub(crate) fn while_alive<T>(&self, make: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let netns = lock(&self.netns);
        ensure!(netns.is_some(), "the lab {} is already removed", self.id);
        make(&self.dir)
    }

    fn switch(&self, name: &str) -> Result<Host> {
        let mut switches = lock(&self.switches);
        if let Some(switch) = switches.get(name) {
            return Ok(switch.clone());
        }
        let (v4, v6) = (
            Ipv4Addr::new(172, 30, 0, 1),
            Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 1),
        );
        let switch = self.host(name, name, v4, v6)?;
        switch.ip(&format!(
            "link add br0 type bridge mcast_snooping 0\n\
             address add {v4}/24 dev br0\n\
             address add {v6}/64 dev br0 nodad\n\
             link set br0 up\n"
        ))?;
        switches.insert(name.to_owned(), switch.clone());
        Ok(switch)
    }

    /// Gives a machine its `eth0`: a cable into the switch, with the machine's addresses and a default route.
    pub(crate) fn plug(&self, host: &Host, switch: &str) -> Result<()> {
        let switch = self.switch(switch)?;
        let port = port_name(host.name());
        host.ip(&format!(
            "link add eth0 type veth peer name {port} netns {}\n\
             address add {}/24 dev eth0\n\
             address add {}/64 dev eth0 nodad\n\
             link set eth0 up\n",
            switch.netns().name(),
            host.v4(),
            host.v6(),
        ))?;
        switch.ip(&format!("link set {port} master br0\nlink set {port} up\n"))?;
        host.ip(&format!(
            "route add default via {}\nroute add default via {} dev eth0\n",
            switch.v4(),
            switch.v6()
        ))
    }

    /// Removes all, goes on at an error, and returns the first one. Doing it again is harmless.
    fn remove(&self) -> Result<()> {
        let _one_at_a_time = lock(&self.removal);
        let Some(names) = lock(&self.netns).take() else {
            return Ok(());
        };
        // First the one that holds the processes.
        let mut result = remove_cgroup(&self.cgroup);
        for root in cgroup_roots()? {
            result = result.and(remove_cgroup(&root.join(cgroup_name(&self.id))));
        }
        for name in names {
            result = result.and(netns::remove(&name));
        }
        let disk = remove_tree(&Path::new(DISK).join(&self.id));
        result.and(remove_tree(&self.dir)).and(disk)
    }
}

fn cgroup_name(id: &str) -> String {
    format!("weir-lab-{id}")
}

/// The labs of this process, for the thread that waits for signals.
static WORLDS: Mutex<Vec<Weak<World>>> = Mutex::new(Vec::new());

/// Removes all labs of this process.
pub(crate) fn remove_all() {
    for world in lock(&WORLDS).iter().filter_map(Weak::upgrade) {
        if let Err(error) = world.remove() {
            eprintln!("the lab {} is not removed completely: {error:#}", world.id);
        }
    }
}

/// The switch's end of a machine's cable, at most 15 bytes.
fn port_name(host: &str) -> String {
    let plain = format!("p-{host}");
    if plain.len() <= 15 {
        return plain;
    }
    format!("p-{:08x}", hash(host))
}

/// FNV-1a, to make interface names out of longer names.
pub(crate) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Locks, also after a panic elsewhere: cleaning up must still work then.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
