//! The kernel's side: the loaded object, its maps, and a network namespace whose routes are those of `node.rs`.

mod netns;
mod rows;
mod sys;

use std::env;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{Program as Loaded, SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use proxy_agent::kernel::for_this_kernel;
use proxy_common::{
    Address, Affinity, AffinityBackend, AffinityKey, Backend, BackendState, Cursor, FilterWord, Flow,
    FlowKey, Fragment, FragmentKey, InterfaceUse, Ip, LocalSources, NodeConfig, PortWord, Service,
    ServiceCidrs, ServiceKey, SourceKey, SourceRange, maps,
};
use proxy_datapath::{Scratch, tables::Route};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::user::{Arrival, Program};

pub use netns::Namespace;

/// Room for the packet that comes back.
const OUT: usize = 4096;
/// Size of the kernel's `struct __sk_buff`.
const CONTEXT: usize = 192;
/// Offsets in it.
const IFINDEX: usize = 40;
const GSO_SIZE: usize = 176;

/// The object's programs and maps, ready to run packets.
pub struct Kernel {
    namespace: Namespace,
    ebpf: Ebpf,
    rows: Tables,
    out: Vec<u8>,
}

/// The maps.
struct Tables {
    addresses: HashMap<MapData, Ip, Address>,
    filter: Array<MapData, FilterWord>,
    interface_flows: Array<MapData, InterfaceUse>,
    service_cidrs: Array<MapData, ServiceCidrs>,
    local_sources: Array<MapData, LocalSources>,
    services: HashMap<MapData, ServiceKey, Service>,
    sources: LpmTrie<MapData, SourceKey, SourceRange>,
    backends: Array<MapData, Backend>,
    states: Array<MapData, BackendState>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    affinity_backends: HashMap<MapData, u32, AffinityBackend>,
    cursors: Array<MapData, Cursor>,
    flows: HashMap<MapData, FlowKey, Flow>,
    half_open: HashMap<MapData, FlowKey, Flow>,
    half_open_ports: Array<MapData, PortWord>,
    fragments: HashMap<MapData, FragmentKey, Fragment>,
    shared: Array<MapData, PortWord>,
    config: Array<MapData, NodeConfig>,
    counters: PerCpuArray<MapData, u64>,
    scratch: PerCpuArray<MapData, [u8; size_of::<Scratch>()]>,
}

/// What the kernel did with a packet.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The program's number.
    pub action: i32,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
}

impl Kernel {
    /// Makes the namespace and loads the packet programs, as an agent does. Wants root.
    pub fn load() -> Result<Self> {
        Self::load_object(&for_this_kernel(read_object()?.into()))
    }

    /// The same for a kernel that does not tell how a checksum stands.
    pub fn load_as_built() -> Result<Self> {
        Self::load_object(&read_object()?)
    }

    fn load_object(object: &[u8]) -> Result<Self> {
        let namespace = Namespace::create()?;
        namespace.enter()?;
        let mut ebpf = open(
            EbpfLoader::new().override_global("AYA_LOG_LEVEL", &0_u8, false),
            object,
        )?;
        for program in Program::ALL {
            classifier(&mut ebpf, program)?
                .load()
                .with_context(|| format!("the kernel refuses {}", program.name()))?;
        }
        let rows = Tables::take(&mut ebpf)?;
        Ok(Self {
            namespace,
            ebpf,
            rows,
            out: vec![0; OUT],
        })
    }

    /// Moves the calling thread into the namespace where the interfaces are.
    pub fn enter(&self) -> Result<()> {
        self.namespace.enter()
    }

    /// Runs a packet; `None` if the kernel does not take one so short.
    pub fn run(&mut self, arrival: &Arrival) -> Result<Option<Ran>> {
        let context = context(arrival);
        let program = classifier(&mut self.ebpf, arrival.program)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&arrival.bytes);
        options.data_out = Some(&mut self.out);
        options.ctx_in = Some(&context);
        let result = match program.test_run(options) {
            Ok(result) => result,
            Err(error) if is_invalid(&error) => return Ok(None),
            Err(error) => return Err(error).context("BPF_PROG_TEST_RUN"),
        };
        let length = usize::try_from(result.data_size_out)?;
        let bytes = self
            .out
            .get(..length)
            .context("a packet longer than the room for it")?
            .to_vec();
        Ok(Some(Ran {
            action: result.return_value.cast_signed(),
            bytes,
        }))
    }

    /// Runs two packets at the same time, on the first two CPUs; their rows tell what became of them.
    pub fn at_once(&self, packets: [&Arrival; 2]) -> Result<()> {
        let ready = AtomicU32::new(0);
        let run = |cpu: usize, arrival: &Arrival| -> Result<()> {
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            sched_setaffinity(None, &cpus).context("cannot move to a CPU")?;
            let Some(Loaded::SchedClassifier(program)) = self.ebpf.program(arrival.program.name()) else {
                bail!("the object has no classifier {}", arrival.program.name())
            };
            let context = context(arrival);
            let mut options = TestRunOptions::new();
            options.data_in = Some(&arrival.bytes);
            options.ctx_in = Some(&context);
            // Both spin, as whoever sleeps is late; but not for longer than the other can need if nobody is before it.
            ready.fetch_add(1, Ordering::AcqRel);
            let mut spins = 0;
            while ready.load(Ordering::Acquire) < 2 {
                spins += 1;
                if spins < 10_000 {
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
            program.test_run(options).context("BPF_PROG_TEST_RUN")?;
            Ok(())
        };
        let [first, second] = packets;
        std::thread::scope(|scope| {
            let both = [scope.spawn(|| run(0, first)), scope.spawn(|| run(1, second))];
            both.into_iter()
                .try_for_each(|one| one.join().map_err(|_| anyhow!("a CPU's thread has panicked"))?)
        })
    }

    /// Runs a packet that the device has summed (`CHECKSUM_COMPLETE`): the program's number, and an error if the sum is
    /// not the packet's any more. `None` if the kernel cannot do that (Linux 6.11 can). Only with a link header.
    pub fn run_summed(&self, arrival: &Arrival) -> Result<Option<i32>> {
        let program = self.ebpf.program(arrival.program.name());
        let Some(Loaded::SchedClassifier(program)) = program else {
            bail!("the object has no classifier {}", arrival.program.name())
        };
        match sys::run_summed(program.fd()?.as_fd(), &arrival.bytes, &context(arrival)) {
            Ok(action) => Ok(Some(action)),
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::BADMSG.raw_os_error()) => {
                bail!("the device's sum is not the packet's any more")
            }
            Err(error) => Err(error).context("BPF_PROG_TEST_RUN"),
        }
    }

    /// Runs a packet so many times, and says how many nanoseconds one took.
    pub fn measure(&mut self, arrival: &Arrival, repeat: u32) -> Result<u64> {
        let context = context(arrival);
        let program = classifier(&mut self.ebpf, arrival.program)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&arrival.bytes);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        Ok(u64::try_from(result.duration.as_nanos())?)
    }

    /// The routes that the last packet of each CPU was sent by.
    pub fn last_routes(&self) -> Result<Vec<Route>> {
        let rows = self.rows.scratch.get(&0, 0)?;
        rows.iter()
            .map(|row| read_route(row).context("a scratch row that is too short"))
            .collect()
    }
}

/// `EINVAL`: a frame too short for its ethertype.
fn is_invalid(error: &aya::programs::ProgramError) -> bool {
    matches!(error, aya::programs::ProgramError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()))
}

/// `struct __sk_buff` with the fields that a test run takes.
fn context(arrival: &Arrival) -> [u8; CONTEXT] {
    let mut context = [0; CONTEXT];
    for (at, value) in [(IFINDEX, arrival.interface), (GSO_SIZE, arrival.segment)] {
        if let Some(field) = context.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
    }
    context
}

fn read_route(scratch: &[u8; size_of::<Scratch>()]) -> Option<Route> {
    let at = std::mem::offset_of!(Scratch, route);
    let number = |offset: usize| {
        let bytes: [u8; 4] = scratch.get(at + offset..at + offset + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    let address = |offset: usize| {
        let bytes: [u8; 16] = scratch.get(at + offset..at + offset + 16)?.try_into().ok()?;
        Some(Ip { bytes })
    };
    Some(Route {
        interface: number(std::mem::offset_of!(Route, interface))?,
        mtu: number(std::mem::offset_of!(Route, mtu))?,
        next_hop: address(std::mem::offset_of!(Route, next_hop))?,
        source: address(std::mem::offset_of!(Route, source))?,
    })
}

fn classifier(ebpf: &mut Ebpf, program: Program) -> Result<&mut SchedClassifier> {
    match ebpf.program_mut(program.name()) {
        Some(Loaded::SchedClassifier(classifier)) => Ok(classifier),
        _ => bail!("the object has no classifier {}", program.name()),
    }
}

impl Tables {
    fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name: &str| -> Result<Map> {
            ebpf.take_map(name)
                .ok_or_else(|| anyhow!("the object has no map {name}"))
        };
        Ok(Self {
            addresses: map(maps::ADDRESSES)?.try_into()?,
            filter: map(maps::ADDRESS_FILTER)?.try_into()?,
            interface_flows: map(maps::INTERFACE_FLOWS)?.try_into()?,
            service_cidrs: map(maps::SERVICE_CIDRS)?.try_into()?,
            local_sources: map(maps::LOCAL_SOURCES)?.try_into()?,
            services: map(maps::SERVICES)?.try_into()?,
            sources: map(maps::SOURCE_RANGES)?.try_into()?,
            backends: map(maps::BACKENDS)?.try_into()?,
            states: map(maps::BACKEND_STATE)?.try_into()?,
            affinity: map(maps::AFFINITY)?.try_into()?,
            affinity_backends: map(maps::AFFINITY_BACKENDS)?.try_into()?,
            cursors: map(maps::CURSORS)?.try_into()?,
            flows: map(maps::FLOWS)?.try_into()?,
            half_open: map(maps::HALF_OPEN)?.try_into()?,
            half_open_ports: map(maps::HALF_OPEN_PORTS)?.try_into()?,
            fragments: map(maps::FRAGMENTS)?.try_into()?,
            shared: map(maps::SHARED_PORTS)?.try_into()?,
            config: map(maps::CONFIG)?.try_into()?,
            counters: map(maps::COUNTERS)?.try_into()?,
            scratch: map(maps::SCRATCH)?.try_into()?,
        })
    }
}

/// Path of the kernel object: `WEIR_BPF_OBJECT`, or where `cargo xtask build` puts it.
fn object() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WEIR_BPF_OBJECT") {
        return Ok(path.into());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/weir.bpf.o");
    if path.exists() {
        return Ok(path);
    }
    bail!(
        "no kernel object at {}: run `cargo xtask build`, or name one in WEIR_BPF_OBJECT",
        path.display()
    )
}

/// The kernel object's bytes.
pub fn read_object() -> Result<Vec<u8>> {
    let path = object()?;
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Opens the object with maps that nobody else sees: pinned to a bpffs that is gone before this returns.
pub fn open(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Result<Ebpf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("weir-packet-{}-{number}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    mount("bpf", &folder, "bpf", MountFlags::empty(), None).context("cannot mount a bpffs")?;
    let result = loader
        .default_map_pin_directory(&folder)
        .load(object)
        .context("cannot load the kernel object");
    unmount(&folder, UnmountFlags::DETACH).context("cannot unmount the bpffs")?;
    std::fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    result
}
