//! The pinned maps, typed: opened by the agent after it loaded the programs, and by the inspection commands without.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use aya::Pod;
use aya::maps::{Map, MapData, MapInfo, MapType, PerCpuArray};
use proxy_common::maps as names;
use proxy_common::{
    Address, Affinity, AffinityBackend, AffinityKey, Backend, BackendState, Cursor, FilterWord, Flow,
    FlowKey, Fragment, FragmentKey, InterfaceUse, Ip, LocalSources, Meta, MonitorLease, NodeConfig, PortWord,
    Service, ServiceCidrs, ServiceKey, ServiceName, Socket, SocketKey, SourceKey, SourceRange, limits,
};

use super::bpffs::{BpffsError, Lock};
use super::filtered::Filtered;
use super::pins::Pins;
use super::sources::Sources;
use super::table::{Rows, Slots};

pub use super::table::MapError;

/// Why the pinned maps cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is pinned there.
    #[error(
        "weir does not run here: there is no {path}; start `weir agent`, or name its BPF file system with --bpffs"
    )]
    NotPinned {
        /// What was looked for.
        path: PathBuf,
    },
    /// Not allowed.
    #[error("may not open {path}: run as root, or with CAP_BPF and CAP_NET_ADMIN")]
    Permission {
        /// What was opened.
        path: PathBuf,
    },
    /// Another layout than this build knows.
    #[error(
        "{path} has {property} {found}, and this build of weir wants {wanted}: another version made it; \
         stop the agent, run `weir cleanup`, and start again"
    )]
    Layout {
        /// The map.
        path: PathBuf,
        /// What is different.
        property: &'static str,
        /// As it is.
        found: String,
        /// As it should be.
        wanted: String,
    },
    /// Somebody else reads the events.
    #[error(
        "another `weir monitor` listens here ({holder}), and each event goes to one listener only: end that one first"
    )]
    Monitored {
        /// Who it is, as far as that can be known.
        holder: String,
    },
    /// A folder of the BPF file system.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// The kernel refused.
    #[error("cannot open {path}: {source}; is it on a BPF file system?")]
    Syscall {
        /// What was opened.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// What a map must be for this build.
pub(super) struct Shape {
    pub(super) name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    rows: usize,
}

const fn shape<K, V>(name: &'static str, kind: MapType, rows: usize) -> Shape {
    Shape {
        name,
        kind,
        key: size_of::<K>(),
        value: size_of::<V>(),
        rows,
    }
}

/// Every pinned map.
pub(super) const SHAPES: [Shape; 25] = [
    shape::<Ip, Address>(names::ADDRESSES, MapType::Hash, limits::ADDRESSES),
    shape::<u32, FilterWord>(names::ADDRESS_FILTER, MapType::Array, limits::ADDRESS_FILTER),
    shape::<u32, ServiceCidrs>(names::SERVICE_CIDRS, MapType::Array, 1),
    shape::<u32, LocalSources>(names::LOCAL_SOURCES, MapType::Array, 1),
    shape::<ServiceKey, Service>(names::SERVICES, MapType::Hash, limits::SERVICES),
    shape::<u32, Backend>(names::BACKENDS, MapType::Array, limits::BACKENDS),
    shape::<u32, BackendState>(names::BACKEND_STATE, MapType::Array, limits::BACKEND_STATE),
    shape::<u32, Cursor>(names::CURSORS, MapType::Array, limits::CURSORS),
    // The length of the prefix stands before the key.
    shape::<(u32, SourceKey), SourceRange>(names::SOURCE_RANGES, MapType::LpmTrie, limits::SOURCE_RANGES),
    shape::<u32, ServiceName>(names::SERVICE_NAMES, MapType::Hash, limits::SERVICE_IDS),
    shape::<AffinityKey, Affinity>(names::AFFINITY, MapType::LruHash, limits::AFFINITY),
    shape::<u32, AffinityBackend>(names::AFFINITY_BACKENDS, MapType::Hash, limits::BACKEND_STATE),
    shape::<FlowKey, Flow>(names::FLOWS, MapType::LruHash, limits::FLOWS),
    shape::<FlowKey, Flow>(names::HALF_OPEN, MapType::LruHash, limits::HALF_OPEN),
    shape::<u32, PortWord>(names::HALF_OPEN_PORTS, MapType::Array, limits::PORT_WORDS),
    shape::<u32, InterfaceUse>(names::INTERFACE_FLOWS, MapType::Array, limits::INTERFACES),
    shape::<FragmentKey, Fragment>(names::FRAGMENTS, MapType::LruHash, limits::FRAGMENTS),
    shape::<SocketKey, Socket>(names::SOCKETS, MapType::LruHash, limits::SOCKETS),
    shape::<u32, PortWord>(names::BACKEND_PORTS, MapType::Array, limits::PORT_WORDS),
    shape::<u32, PortWord>(names::SHARED_PORTS, MapType::Array, limits::PORT_WORDS),
    shape::<u32, NodeConfig>(names::CONFIG, MapType::Array, 1),
    shape::<u32, Meta>(names::META, MapType::Array, 1),
    shape::<u32, MonitorLease>(names::MONITOR, MapType::Array, 1),
    shape::<(), ()>(names::EVENTS, MapType::RingBuf, limits::EVENT_BYTES),
    shape::<u32, u64>(names::COUNTERS, MapType::PerCpuArray, proxy_common::Reason::COUNT),
];

impl Shape {
    /// Compares a map that is pinned with what this build wants.
    pub(super) fn check(&self, path: PathBuf, info: &MapInfo) -> Result<(), OpenError> {
        let kind = info
            .map_type()
            .map_or_else(|_| "an unknown kind".to_owned(), |kind| format!("{kind:?}"));
        let numbers = |number: u32| number.to_string();
        let facts = [
            ("the kind", kind, format!("{:?}", self.kind)),
            ("a key size of", numbers(info.key_size()), self.key.to_string()),
            (
                "a value size of",
                numbers(info.value_size()),
                self.value.to_string(),
            ),
            (
                "a capacity of",
                numbers(info.max_entries()),
                self.rows.to_string(),
            ),
        ];
        for (property, found, wanted) in facts {
            if found != wanted {
                return Err(OpenError::Layout {
                    path,
                    property,
                    found,
                    wanted,
                });
            }
        }
        Ok(())
    }
}

/// Typed handles over the pinned maps.
pub struct Maps {
    pub(super) pins: Pins,
    pub(super) addresses: Filtered,
    pub(super) service_cidrs: Slots<ServiceCidrs>,
    pub(super) local_sources: Slots<LocalSources>,
    pub(super) services: Rows<ServiceKey, Service>,
    pub(super) backends: Slots<Backend>,
    pub(super) states: Slots<BackendState>,
    pub(super) cursors: Slots<Cursor>,
    pub(super) sources: Sources,
    pub(super) names: Rows<u32, ServiceName>,
    pub(super) affinity: Rows<AffinityKey, Affinity>,
    pub(super) affinity_backends: Rows<u32, AffinityBackend>,
    pub(super) flows: Rows<FlowKey, Flow>,
    pub(super) half_open: Rows<FlowKey, Flow>,
    pub(super) interface_flows: Slots<InterfaceUse>,
    pub(super) fragments: Rows<FragmentKey, Fragment>,
    pub(super) sockets: Rows<SocketKey, Socket>,
    pub(super) config: Slots<NodeConfig>,
    pub(super) meta: Slots<Meta>,
    pub(super) monitor: Slots<MonitorLease>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    /// The right to write, if these are the agent's.
    pub(super) lock: Option<Lock>,
}

impl Maps {
    /// Opens what is pinned, after a look at each map's layout.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        Ok(Self {
            addresses: Filtered::new(rows(pins, names::ADDRESSES)?, slots(pins, names::ADDRESS_FILTER)?),
            service_cidrs: slots(pins, names::SERVICE_CIDRS)?,
            local_sources: slots(pins, names::LOCAL_SOURCES)?,
            services: rows(pins, names::SERVICES)?,
            backends: slots(pins, names::BACKENDS)?,
            states: slots(pins, names::BACKEND_STATE)?,
            cursors: slots(pins, names::CURSORS)?,
            sources: Sources::new(convert(pins, names::SOURCE_RANGES)?),
            names: rows(pins, names::SERVICE_NAMES)?,
            affinity: rows(pins, names::AFFINITY)?,
            affinity_backends: rows(pins, names::AFFINITY_BACKENDS)?,
            flows: rows(pins, names::FLOWS)?,
            half_open: rows(pins, names::HALF_OPEN)?,
            interface_flows: slots(pins, names::INTERFACE_FLOWS)?,
            fragments: rows(pins, names::FRAGMENTS)?,
            sockets: rows(pins, names::SOCKETS)?,
            config: slots(pins, names::CONFIG)?,
            meta: slots(pins, names::META)?,
            monitor: slots(pins, names::MONITOR)?,
            counters: convert(pins, names::COUNTERS)?,
            pins: pins.clone(),
            lock: None,
        })
    }

    /// Where the maps are pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }
}

fn rows<K: Pod + Debug, V: Pod>(pins: &Pins, name: &'static str) -> Result<Rows<K, V>, OpenError> {
    Ok(Rows::new(name, convert(pins, name)?))
}

fn slots<V: Pod>(pins: &Pins, name: &'static str) -> Result<Slots<V>, OpenError> {
    Ok(Slots::new(name, convert(pins, name)?))
}

/// The row of `META`, read before the other maps are trusted.
pub(super) fn meta(pins: &Pins) -> Result<Meta, OpenError> {
    let map: Slots<Meta> = slots(pins, names::META)?;
    map.get(0).map_err(|error| OpenError::Syscall {
        path: pins.map(names::META),
        source: io::Error::other(error),
    })
}

/// Opens a pinned map as the typed handle that the caller wants.
pub(super) fn convert<T>(pins: &Pins, name: &'static str) -> Result<T, OpenError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let path = pins.map(name);
    let open = |error| open_error(path.clone(), error);
    let data = MapData::from_pin(&path).map_err(open)?;
    if let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) {
        shape.check(path.clone(), &data.info().map_err(open)?)?;
    }
    T::try_from(Map::from_map_data(data).map_err(open)?).map_err(open)
}

/// Sorts an error of aya about a pinned map by its kind.
pub(super) fn open_error(path: PathBuf, error: aya::maps::MapError) -> OpenError {
    let source = match error {
        aya::maps::MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    };
    match source.kind() {
        io::ErrorKind::NotFound => OpenError::NotPinned { path },
        io::ErrorKind::PermissionDenied => OpenError::Permission { path },
        _ => OpenError::Syscall { path, source },
    }
}
