//! The rows that the test runs need: two frontends that are each other's backend, and a ring of frontends.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use proxy_common::{
    Address, AddressKind, Backend, BackendRange, BackendState, Direction, FilterBit, FilterWord, Flow,
    FlowBit, FlowKey, FrontendKind, InterfaceUse, Ip, Protocol, Scope, Service, ServiceKey, maps,
};

use crate::arms::Family;

/// Frontends of the ring: new flows in one test run.
pub(crate) const RING: u32 = 4096;
/// Port of the ring's first frontend.
const RING_PORT: u16 = 10_000;
/// Generation of all backends.
const GENERATION: u32 = 1;
/// Both families, with the number of the ring's first service, slot and backend.
const FAMILIES: [(Family, u32); 2] = [(Family::V4, 0), (Family::V6, RING)];

fn address(family: Family, v4: [u8; 4], v6: u16) -> IpAddr {
    match family {
        Family::V4 => v4.into(),
        Family::V6 => [0xfd00, 0x10, 0, 0, 0, 0, 0, v6].into(),
    }
}

/// Who asks.
pub(crate) fn client(family: Family) -> IpAddr {
    address(family, [10, 244, 1, 2], 2)
}

/// Who is none of weir's.
pub(crate) fn stranger(family: Family) -> IpAddr {
    address(family, [10, 244, 9, 9], 9)
}

/// The two frontends that are each other's backend.
pub(crate) fn pair(family: Family) -> [(IpAddr, u16); 2] {
    [
        (address(family, [10, 96, 0, 10], 0x10), 80),
        (address(family, [10, 96, 0, 20], 0x20), 8080),
    ]
}

/// A frontend of the ring.
pub(crate) fn ring(family: Family, number: u32) -> (IpAddr, u16) {
    let offset = u16::try_from(number % RING).unwrap_or(0);
    (address(family, [10, 96, 0, 30], 0x30), RING_PORT + offset)
}

/// The maps that are written.
pub(crate) struct Rows {
    addresses: HashMap<MapData, Ip, Address>,
    filter: Array<MapData, FilterWord>,
    interface_flows: Array<MapData, InterfaceUse>,
    services: HashMap<MapData, ServiceKey, Service>,
    flows: HashMap<MapData, FlowKey, Flow>,
    backends: Array<MapData, Backend>,
    states: Array<MapData, BackendState>,
}

impl Rows {
    /// Opens the maps of an object that is loaded with its pins in `pins`.
    pub(crate) fn open(pins: &Path) -> Result<Self> {
        Ok(Self {
            addresses: hash(pins, maps::ADDRESSES)?,
            filter: array(pins, maps::ADDRESS_FILTER)?,
            interface_flows: array(pins, maps::INTERFACE_FLOWS)?,
            services: hash(pins, maps::SERVICES)?,
            flows: lru(pins, maps::FLOWS)?,
            backends: array(pins, maps::BACKENDS)?,
            states: array(pins, maps::BACKEND_STATE)?,
        })
    }

    /// Writes all rows.
    pub(crate) fn write(&mut self) -> Result<()> {
        // Flows are written from here too, which the programs do not see: every interface is one with flows.
        self.interface_flows
            .set(InterfaceUse::UPLINKS, &InterfaceUse { last_flow: 1 }, 0)?;
        for (family, first) in FAMILIES {
            let [(a, _), (b, _)] = pair(family);
            for frontend in [a, b, ring(family, 0).0] {
                let row = Address {
                    kind: AddressKind::ClusterIp.code(),
                    ..Address::default()
                };
                let ip = Ip::from(frontend);
                let bit = FilterBit::of(&ip);
                let mut word = self.filter.get(&bit.word, 0)?;
                word.bits |= bit.mask;
                self.filter.set(bit.word, &word, 0)?;
                self.addresses.insert(&ip, &row, 0)?;
            }
            for number in 0..RING {
                self.ring_row(family, first, number)?;
            }
        }
        self.known_flows()
    }

    fn ring_row(&mut self, family: Family, first: u32, number: u32) -> Result<()> {
        let id = first + number;
        let (frontend, port) = ring(family, number);
        let (backend, backend_port) = ring(family, number + 1);
        let backend = Backend {
            address: backend.into(),
            port: backend_port,
            local: 1,
            reserved: 0,
            id,
            generation: GENERATION,
            service: id,
        };
        self.backends.set(id, &backend, 0)?;
        self.states.set(
            id,
            &BackendState {
                chosen: 0,
                generation: GENERATION,
                serving: 1,
            },
            0,
        )?;
        let service = Service {
            id,
            cluster: BackendRange { base: id, count: 1 },
            kind: FrontendKind::ClusterIp.code(),
            ..Service::default()
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let key = ServiceKey {
                address: frontend.into(),
                port,
                protocol: protocol.number(),
                scope: Scope::Address.code(),
            };
            self.services.insert(&key, &service, 0)?;
        }
        Ok(())
    }

    /// The flows C → A, B behind it, and C → B, A behind it, with both rows each.
    fn known_flows(&mut self) -> Result<()> {
        for (family, backend_id) in FAMILIES {
            let [a, b] = pair(family);
            for (frontend, backend) in [(a, b), (b, a)] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let flow = flow(family, frontend, backend, protocol.number());
                    let flow = Flow { backend_id, ..flow };
                    let (to_service, from_backend) = proxy_datapath::flow::keys(&flow);
                    for (key, direction) in [
                        (to_service, Direction::ToService),
                        (from_backend, Direction::FromBackend),
                    ] {
                        self.flows.insert(
                            &key,
                            &Flow {
                                direction: direction.code(),
                                ..flow
                            },
                            0,
                        )?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the flows that a run has made, so that the table never gets full, and puts back the others.
    pub(crate) fn forget_flows(&mut self) -> Result<()> {
        let keys: Vec<FlowKey> = self.flows.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.flows.remove(&key)?;
        }
        self.known_flows()
    }
}

fn flow(family: Family, frontend: (IpAddr, u16), backend: (IpAddr, u16), protocol: u8) -> Flow {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    Flow {
        client: client(family).into(),
        client_port: 40_000,
        source: client(family).into(),
        source_port: 40_000,
        frontend: frontend.0.into(),
        frontend_port: frontend.1,
        backend: backend.0.into(),
        backend_port: backend.1,
        backend_generation: GENERATION,
        last_seen: u32::try_from(now).unwrap_or(0),
        state: FlowBit::Established.code(),
        protocol,
        ..Flow::default()
    }
}

fn data(pins: &Path, name: &str) -> Result<MapData> {
    MapData::from_pin(pins.join(name)).with_context(|| format!("cannot open the map {name}"))
}

fn hash<K: Pod, V: Pod>(pins: &Path, name: &str) -> Result<HashMap<MapData, K, V>> {
    Ok(Map::HashMap(data(pins, name)?).try_into()?)
}

fn lru<K: Pod, V: Pod>(pins: &Path, name: &str) -> Result<HashMap<MapData, K, V>> {
    Ok(Map::LruHashMap(data(pins, name)?).try_into()?)
}

fn array<V: Pod>(pins: &Path, name: &str) -> Result<Array<MapData, V>> {
    Ok(Map::Array(data(pins, name)?).try_into()?)
}
