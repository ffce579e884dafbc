//! Every map, and nothing else. Rows and sizes are those of `proxy-common`; `docs/maps.md` is made from this file.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use proxy_common::{
    Address, Affinity, AffinityBackend, AffinityKey, Backend, BackendState, Clock, Cursor, Event, FilterWord,
    Flow, FlowKey, Fragment, FragmentKey, InterfaceUse, Ip, LocalSources, Meta, MonitorLease, NodeConfig,
    PortWord, Reason, Service, ServiceCidrs, ServiceKey, ServiceName, Socket, SocketKey, SourceKey,
    SourceRange, limits,
};
use proxy_datapath::Scratch;

/// What an address is to this node: asked of what comes in for the node itself, and of what begins a flow.
///
/// Writer:    agent. Reader: all programs.
/// Lifecycle: a ClusterIP's row is born after its frontends and dies when no flow uses the address any more.
/// Full:      the Service that needs the row is not programmed; its old state stays.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static ADDRESSES: HashMap<Ip, Address, { limits::ADDRESSES }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// A bit for each address in `ADDRESSES`: most packets are for none, and need not ask the large map.
///
/// Writer:    agent. Reader: all programs.
/// Lifecycle: a bit is set before the first row that falls on it is written, and cleared after the last is deleted.
/// Full:      cannot be: many bits only mean that `ADDRESSES` is asked more often.
/// Survives:  agent restart yes (pinned, made again from `ADDRESSES`), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static ADDRESS_FILTER: Array<FilterWord, { limits::ADDRESS_FILTER }> = Array::new();

/// The ranges that ClusterIPs are given out of: an address in one of them without a row in `ADDRESSES` is nobody's.
///
/// Writer:    agent. Reader: all programs.
/// Lifecycle: written when the rows of all Services are; follows the ServiceCIDR objects.
/// Full:      more ranges of a family than fit are left out, and a problem; what is in them is not dropped.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static SERVICE_CIDRS: Array<ServiceCidrs, 1> = Array::new();

/// The ranges that pods have their addresses of: who comes in where pods do and has another one is none.
///
/// Writer:    agent. Reader: all programs.
/// Lifecycle: all zero unless `--detect-local-mode` is `ClusterCIDR` or `NodeCIDR`; that of the Node follows its object.
/// Full:      cannot be: one range of a family.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static LOCAL_SOURCES: Array<LocalSources, 1> = Array::new();

/// Frontend to service: replacing a row is the one publish point of a change.
///
/// Writer:    agent. Reader: all programs.
/// Lifecycle: born after the backends that it points to, dies before them.
/// Full:      the Service is not programmed; its old state stays.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static SERVICES: HashMap<
    ServiceKey,
    Service,
    { limits::SERVICES },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Slot to backend; the backends of a service port are one contiguous slab, those of this node first.
///
/// Writer:    agent. Reader: all programs.
/// Lifecycle: a change writes a new slab; the old one is reused a grace period after the last frontend left it.
/// Full:      the Service is not programmed; its old state stays.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static BACKENDS: Array<Backend, { limits::BACKENDS }> = Array::new();

/// Backend id to its generation, whether it serves, and how often it was chosen.
///
/// Writer:    agent; programs add to `chosen`. Reader: all programs, `weir services`.
/// Lifecycle: an id belongs to a (service port, endpoint) pair as long as that exists; its reuse counts a generation.
/// Full:      the Service is not programmed; its old state stays.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static BACKEND_STATE: Array<BackendState, { limits::BACKEND_STATE }> = Array::new();

/// Service id × class (cluster, local) to the round-robin cursor that all frontends, CPUs and paths share.
///
/// Writer:    programs; agent once, when an id is given out. Reader: all programs.
/// Lifecycle: starts at a random turn, so that nodes do not herd; endpoint changes do not reset it.
/// Full:      cannot be: one row for each id and class.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static CURSORS: Array<Cursor, { limits::CURSORS }> = Array::new();

/// Service id and range of sources to whether they may use its load balancer's addresses; the longest prefix counts.
///
/// Writer:    agent. Reader: programs, at the begin of a flow to a frontend that is `Guarded`.
/// Lifecycle: born before the frontend that it guards, dies after it.
/// Full:      the Service is not programmed; its old state stays.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static SOURCE_RANGES: LpmTrie<SourceKey, SourceRange, { limits::SOURCE_RANGES }> = LpmTrie::new();

/// Service id to namespace, name and port name.
///
/// Writer:    agent. Reader: agent after a restart, `weir services`; no program.
/// Lifecycle: as long as the id is given out.
/// Full:      the Service is not programmed; its old state stays.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static SERVICE_NAMES: HashMap<
    u32,
    ServiceName,
    { limits::SERVICE_IDS },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Client × service port to the backend that it sticks to (`sessionAffinity: ClientIP`).
///
/// Writer:    programs. Reader: programs, `weir affinity`.
/// Lifecycle: born with a client's first connection, renewed by its next ones, of no use after the Service's time-out.
/// Full:      LRU evicts; the evicted client is spread again with its next connection.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, Affinity, { limits::AFFINITY }> = LruHashMap::new();

/// Backend id to the backend, if it is usable and its service port has affinity: where a client that sticks to it is sent.
///
/// Writer:    agent. Reader: programs, `weir affinity`.
/// Lifecycle: born before the service row that offers the backend, dies after the last row that does.
/// Full:      cannot be before `BACKEND_STATE` is: a row for a backend id at most.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static AFFINITY_BACKENDS: HashMap<
    u32,
    AffinityBackend,
    { limits::BACKEND_STATE },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Established connections of the packet path, two rows each: one for either direction, both with the whole translation.
///
/// Writer:    programs; agent only deletes. Reader: programs, `weir flows`, the agent's sweeper.
/// Lifecycle: comes from `HALF_OPEN` when both sides have spoken, dies by time-out (the agent's sweeper) or by LRU.
/// Full:      LRU evicts; the next packet that finds one half rebuilds the other; a client whose half is gone gets a RST.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow, { limits::FLOWS }> = LruHashMap::new();

/// Connections that are not established, in rows like those of `FLOWS`: here a flood evicts only what is as young as itself.
///
/// Writer:    programs; agent only deletes. Reader: programs, `weir flows`, the agent's sweeper.
/// Lifecycle: born with the first packet, moves to `FLOWS` when both sides have spoken, dies by time-out or by LRU.
/// Full:      LRU evicts; a client that had not finished its handshake begins anew with its next SYN, or gets a RST.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static HALF_OPEN: LruHashMap<FlowKey, Flow, { limits::HALF_OPEN }> = LruHashMap::new();

/// A bit for each port of a backend that was ever in `HALF_OPEN`: what leaves from any other port is not looked up there.
///
/// Writer:    programs. Reader: programs.
/// Lifecycle: a bit is set before the first row of `HALF_OPEN` that it stands for, and stays.
/// Full:      cannot be: a bit for each port. One that no row uses any more only means that `HALF_OPEN` is asked.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static HALF_OPEN_PORTS: Array<PortWord, { limits::PORT_WORDS }> = Array::new();

/// Interface to the time of its last flow: where none came by, answers need not be looked up.
///
/// Writer:    programs; agent clears a row when no flow of the interface is left. Reader: programs.
/// Lifecycle: set with a flow, refreshed with it, cleared by the agent's sweeper.
/// Full:      cannot be: interfaces whose numbers are equal modulo the size share a row.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static INTERFACE_FLOWS: Array<InterfaceUse, { limits::INTERFACES }> = Array::new();

/// Ports of fragmented datagrams, which only the first fragment carries.
///
/// Writer:    programs; agent only deletes. Reader: programs, the agent's sweeper.
/// Lifecycle: born with a first fragment of a flow, of no use after 30 s.
/// Full:      LRU evicts; later fragments of the evicted datagram are dropped and counted.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { limits::FRAGMENTS }> = LruHashMap::new();

/// What the socket hook told a socket.
///
/// Writer:    programs; agent writes the rows of connected UDP sockets again, and deletes those of sockets that it ended.
/// Reader:    programs, agent.
/// Lifecycle: born with `connect` or `sendmsg`, dies by LRU (not while an agent runs, if it is of a host process's connected
///            UDP socket); cookies are never used twice.
/// Full:      LRU evicts; `getpeername` then names the backend, and UDP picks a backend again.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static SOCKETS: LruHashMap<SocketKey, Socket, { limits::SOCKETS }> = LruHashMap::new();

/// A bit for each port of a backend that a socket was given: most sockets that ask who they talk to were accepted, and the
/// port of their client is none of these.
///
/// Writer:    programs. Reader: programs.
/// Lifecycle: a bit is set before the first row of `SOCKETS` that it stands for, and stays.
/// Full:      cannot be: a bit for each port. One that no row uses any more only means that `SOCKETS` is asked.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static BACKEND_PORTS: Array<PortWord, { limits::PORT_WORDS }> = Array::new();

/// Source ports of pods' UDP sockets that use one backend for two frontends: one by the socket hook, the other by the
/// packet path, which then takes another source port so that answers can be told apart.
///
/// Writer:    programs. Reader: programs.
/// Lifecycle: a bit is set by such a socket and stays: another one at that port gets another source port in vain.
/// Full:      cannot be: a bit for each port.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static SHARED_PORTS: Array<PortWord, { limits::PORT_WORDS }> = Array::new();

/// The node's configuration, one row.
///
/// Writer:    agent. Reader: all programs.
/// Lifecycle: written before the first program is attached.
/// Full:      cannot be.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static CONFIG: Array<NodeConfig, 1> = Array::new();

/// ABI version and clock source, one row.
///
/// Writer:    the first agent. Reader: later agents and the inspection verbs; no program.
/// Lifecycle: as long as the pins.
/// Full:      cannot be.
/// Survives:  agent restart yes (pinned), ABI change no: it is how one is noticed.
#[btf_map(pin_by_name)]
pub(crate) static META: Array<Meta, 1> = Array::new();

/// Until when somebody listens to `EVENTS`, one row.
///
/// Writer:    `weir monitor`. Reader: all programs.
/// Lifecycle: a lease of seconds, renewed while the monitor runs.
/// Full:      cannot be.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static MONITOR: Array<MonitorLease, 1> = Array::new();

/// New flows, rejects and drops, written while somebody listens.
///
/// Writer:    programs. Reader: `weir monitor`.
/// Lifecycle: until it is read.
/// Full:      events are lost, packets are not; `COUNTERS` counts them all the same.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static EVENTS: RingBuf<Event, { limits::EVENT_BYTES }> = RingBuf::new();

/// Reason to packets, per CPU.
///
/// Writer:    programs. Reader: `weir status`, `/metrics`.
/// Lifecycle: counts from the first load on.
/// Full:      cannot be: one row for each reason.
/// Survives:  agent restart yes (pinned), ABI change no.
#[btf_map(pin_by_name)]
pub(crate) static COUNTERS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();

/// Working memory of the packet programs: what would not fit into 512 bytes of stack. Not pinned.
///
/// Writer:    programs. Reader: the same run of the same program.
/// Lifecycle: one packet.
/// Full:      cannot be: one row.
/// Survives:  nothing.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// The time as the last program on this CPU was told it: it is asked for once a tick, not once a packet. Not pinned.
///
/// Writer:    programs. Reader: programs on the same CPU.
/// Lifecycle: one tick of the kernel's clock.
/// Full:      cannot be: one row.
/// Survives:  nothing.
#[btf_map]
pub(crate) static CLOCK: PerCpuArray<Clock, 1> = PerCpuArray::new();

/// 1 if the kernel has `bpf_set_retval` (Linux 5.18, commit b44123b4a3dc); the loader sets it before the verifier
/// looks, which then leaves the call out.
#[unsafe(no_mangle)]
pub(crate) static HAVE_SET_RETVAL: Global<u8> = Global::new(1);
