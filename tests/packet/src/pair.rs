//! Both worlds side by side: a packet runs in the kernel and in user space, and nothing may differ.

mod affinity;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proxy_common::{BackendState, Flow, FlowKey, Fragment, FragmentKey, Reason, Service, ServiceKey};
use proxy_datapath::tables::Room;
use proxy_datapath::{Scratch, Verdict};
use rustix::time::{ClockId, clock_gettime};

use crate::kernel::{Kernel, Ran};
use crate::laws;
use crate::memory::{Memory, Touched};
use crate::node::{self, Rows};
use crate::user::{self, Arrival, Outcome};

/// User space, and the kernel if there is one.
pub struct Pair {
    /// The rows in user space.
    pub memory: Memory,
    kernel: Option<Kernel>,
    counted: BTreeMap<Reason, u64>,
    /// Packets that both worlds agreed on.
    pub agreed: u64,
    /// Packets that the kernel takes no test run for.
    pub too_short: u64,
}

impl Pair {
    /// Both worlds with the node's rows, or user space alone.
    pub fn new(kernel: Option<Kernel>, rows: &Rows) -> Result<Self> {
        let mut pair = Self {
            memory: Memory::default(),
            kernel,
            counted: BTreeMap::new(),
            agreed: 0,
            too_short: 0,
        };
        if let Some(kernel) = &pair.kernel {
            kernel.enter()?;
        }
        pair.reset(rows)?;
        Ok(pair)
    }

    /// Gives the kernel back, for the next test.
    pub fn into_kernel(self) -> Option<Kernel> {
        self.kernel
    }

    /// Forgets all flows and writes the node's rows.
    pub fn reset(&mut self, rows: &Rows) -> Result<()> {
        self.memory = Memory {
            config: rows.config,
            addresses: rows.addresses.iter().copied().collect(),
            service_cidrs: rows.service_cidrs,
            local_sources: rows.local_sources,
            services: rows.services.iter().copied().collect(),
            sources: rows.sources.clone(),
            backends: rows.backends.iter().copied().collect(),
            states: rows.states.iter().copied().collect::<HashMap<_, _>>().into(),
            affinity_backends: affinity::backends(rows),
            cursors: rows.cursors.iter().copied().collect::<HashMap<_, _>>().into(),
            shared: rows.shared.iter().copied().collect::<HashSet<_>>().into(),
            routes: node::routes(),
            ..Memory::default()
        };
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        kernel.reset(rows)?;
        self.counted.clear();
        for reason in Reason::ALL {
            self.counted.insert(*reason, kernel.counter(*reason)?);
        }
        Ok(())
    }

    /// Runs a packet through both, compares, and tests the laws.
    pub fn run(&mut self, arrival: &Arrival) -> Result<Outcome> {
        let Some(kernel) = &mut self.kernel else {
            self.memory.now.set(self.memory.now.get().max(seconds().0));
            return in_user_space(&self.memory, arrival).map(|(outcome, _)| outcome);
        };
        let before = steady_second();
        let ran = kernel.run(arrival)?;
        let after = seconds().0;
        let Some(ran) = ran else {
            self.too_short += 1;
            self.memory.now.set(after);
            return in_user_space(&self.memory.clone(), arrival).map(|(outcome, _)| outcome);
        };
        // Almost always the same second. If not, either may have been the kernel's.
        if before != after {
            let earlier = self.memory.clone();
            earlier.now.set(before);
            if let Ok(outcome) = self.judge(&earlier, arrival, &ran) {
                self.memory = earlier;
                return Ok(self.agree(outcome));
            }
        }
        self.memory.now.set(after);
        let memory = std::mem::take(&mut self.memory);
        let outcome = self.judge(&memory, arrival, &ran);
        self.memory = memory;
        Ok(self.agree(outcome?))
    }

    fn agree(&mut self, outcome: Outcome) -> Outcome {
        self.agreed += 1;
        if let Some(reason) = outcome.verdict.reason() {
            *self.counted.entry(reason).or_default() += 1;
        }
        outcome
    }

    /// User space's answer, if the kernel's is the same.
    fn judge(&self, memory: &Memory, arrival: &Arrival, ran: &Ran) -> Result<Outcome> {
        let (outcome, touched) = in_user_space(memory, arrival)?;
        let kernel = self.kernel.as_ref().context("there is no kernel")?;
        let same = same_outcome(&outcome, ran)
            .and_then(|()| self.same_counter(kernel, &outcome))
            .and_then(|()| same_route(kernel, &outcome))
            .and_then(|()| same_rows(memory, kernel, &touched));
        same.with_context(|| report(arrival, &outcome, ran))?;
        Ok(outcome)
    }

    fn same_counter(&self, kernel: &Kernel, outcome: &Outcome) -> Result<()> {
        let Some(reason) = outcome.verdict.reason() else {
            return Ok(());
        };
        let expected = self.counted.get(&reason).copied().unwrap_or(0) + 1;
        let counted = kernel.counter(reason)?;
        ensure!(
            counted == expected,
            "the kernel has counted {reason:?} {counted} times, not {expected}"
        );
        Ok(())
    }

    /// Compares all flows, fragments, cursors, states and counters.
    pub fn compare_all(&self) -> Result<()> {
        let Some(kernel) = &self.kernel else { return Ok(()) };
        for room in [Room::Established, Room::HalfOpen] {
            let flows = kernel.flows(room)?;
            let expected = self.memory.room(room).borrow();
            for (key, row) in expected.iter() {
                ensure!(
                    flows.get(key) == Some(row),
                    "{room:?} flow {key:?}: user {row:?}, kernel {:?}",
                    flows.get(key)
                );
            }
            ensure!(
                flows.len() == expected.len(),
                "{room:?}: kernel has {} flows, user {}",
                flows.len(),
                expected.len()
            );
        }
        let fragments = kernel.fragments()?;
        ensure!(
            fragments == *self.memory.fragments.borrow(),
            "the worlds remember other fragments"
        );
        self.compare_affinity(kernel)?;
        for (id, turn) in self.memory.cursors.borrow().iter() {
            ensure!(kernel.cursor(*id)? == *turn, "cursor {id} is not {turn}");
        }
        for (id, state) in self.memory.states.borrow().iter() {
            ensure!(kernel.state(*id)? == *state, "backend {id} is not {state:?}");
        }
        for (reason, expected) in &self.counted {
            let counted = kernel.counter(*reason)?;
            ensure!(
                counted == *expected,
                "the kernel has counted {reason:?} {counted} times, not {expected}"
            );
        }
        Ok(())
    }

    /// Writes a flow's row, or removes it.
    pub fn set_flow(&mut self, room: Room, key: &FlowKey, row: Option<&Flow>) -> Result<()> {
        match row {
            Some(row) => self.memory.room(room).borrow_mut().insert(*key, *row),
            None => self.memory.room(room).borrow_mut().remove(key),
        };
        self.kernel
            .as_mut()
            .map_or(Ok(()), |kernel| kernel.set_flow(room, key, row))
    }

    /// Removes a flow's row from wherever it is.
    pub fn evict(&mut self, key: &FlowKey) -> Result<()> {
        self.set_flow(Room::Established, key, None)?;
        self.set_flow(Room::HalfOpen, key, None)
    }

    /// Writes the row of a datagram.
    pub fn set_fragment(&mut self, key: &FragmentKey, row: &Fragment) -> Result<()> {
        self.memory.fragments.borrow_mut().insert(*key, *row);
        self.kernel
            .as_mut()
            .map_or(Ok(()), |kernel| kernel.set_fragment(key, row))
    }

    /// Writes how a backend fares.
    pub fn set_state(&mut self, id: u32, row: &BackendState) -> Result<()> {
        self.memory.states.borrow_mut().insert(id, *row);
        self.kernel
            .as_mut()
            .map_or(Ok(()), |kernel| kernel.set_state(id, row))
    }

    /// Writes a service's row, or removes it.
    pub fn set_service(&mut self, key: &ServiceKey, row: Option<&Service>) -> Result<()> {
        match row {
            Some(row) => self.memory.services.insert(*key, *row),
            None => self.memory.services.remove(key),
        };
        self.kernel
            .as_mut()
            .map_or(Ok(()), |kernel| kernel.set_service(key, row))
    }

    /// Lets all flows look as if they had been silent for so long.
    pub fn age(&mut self, seconds: u32) -> Result<()> {
        for (room, key, row) in self.memory.rows() {
            let aged = Flow {
                last_seen: row.last_seen.saturating_sub(seconds),
                ..row
            };
            self.set_flow(room, &key, Some(&aged))?;
        }
        let rows: Vec<_> = self
            .memory
            .fragments
            .borrow()
            .iter()
            .map(|(key, row)| (*key, *row))
            .collect();
        for (key, row) in rows {
            self.set_fragment(
                &key,
                &Fragment {
                    seen: row.seen.saturating_sub(seconds),
                    ..row
                },
            )?;
        }
        self.age_affinity(seconds)
    }
}

/// Runs a packet in user space, and tests the laws.
fn in_user_space(memory: &Memory, arrival: &Arrival) -> Result<(Outcome, Touched)> {
    memory.take_touched();
    let flows = memory.rows().len();
    // Fresh, where the kernel's holds what the packet before left: nothing may depend on that.
    let outcome = user::run(memory, arrival, &mut Scratch::default());
    let touched = memory.take_touched();
    laws::hold(memory, arrival, &outcome, (&touched, flows))
        .with_context(|| format!("a law is broken by {}", describe(arrival, &outcome)))?;
    Ok((outcome, touched))
}

/// Time since boot, for telling how long something took.
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The clock that the programs read, in seconds and nanoseconds.
fn seconds() -> (u32, i64) {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    (u32::try_from(now.tv_sec).unwrap_or(u32::MAX), now.tv_nsec)
}

/// The second that it is, not at its very end.
fn steady_second() -> u32 {
    loop {
        let (second, nanoseconds) = seconds();
        if nanoseconds < 970_000_000 {
            return second;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn same_outcome(outcome: &Outcome, ran: &Ran) -> Result<()> {
    ensure!(
        ran.action == outcome.action,
        "action: kernel {}, user {}",
        ran.action,
        outcome.action
    );
    if outcome.action != user::DROP {
        ensure!(ran.bytes == outcome.bytes, "the bytes differ");
    }
    Ok(())
}

fn same_route(kernel: &Kernel, outcome: &Outcome) -> Result<()> {
    let Some(expected) = outcome.route else {
        return Ok(());
    };
    let routes = kernel.last_routes()?;
    if routes
        .iter()
        .any(|route| (route.interface, route.next_hop) == expected)
    {
        return Ok(());
    }
    bail!("redirected by {routes:?}, not by {expected:?}")
}

fn same_rows(memory: &Memory, kernel: &Kernel, touched: &Touched) -> Result<()> {
    for key in &touched.flows {
        for room in [Room::Established, Room::HalfOpen] {
            let expected = memory.room(room).borrow().get(key).copied();
            let found = kernel.flow(room, key)?;
            ensure!(
                found == expected,
                "{room:?} flow {key:?}: user {expected:?}, kernel {found:?}"
            );
        }
    }
    for key in &touched.fragments {
        let (expected, found) = (memory.fragments.borrow().get(key).copied(), kernel.fragment(key)?);
        ensure!(
            found == expected,
            "fragment {key:?}: user {expected:?}, kernel {found:?}"
        );
    }
    affinity::same(memory, kernel, touched)?;
    for id in &touched.cursors {
        let expected = memory.cursors.borrow().get(id).copied().unwrap_or(0);
        ensure!(kernel.cursor(*id)? == expected, "cursor {id} is not {expected}");
    }
    for id in &touched.chosen {
        let expected = memory.states.borrow().get(id).copied().unwrap_or_default();
        ensure!(kernel.state(*id)? == expected, "backend {id} is not {expected:?}");
    }
    Ok(())
}

/// Bytes as people read them.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn describe(arrival: &Arrival, outcome: &Outcome) -> String {
    let Arrival {
        program,
        interface,
        segment,
        bytes,
    } = arrival;
    format!(
        "{program:?} interface {interface} segment {segment}\n  in   {}\n  user {:?} action {} {}",
        hex(bytes),
        outcome.verdict,
        outcome.action,
        hex(&outcome.bytes)
    )
}

fn report(arrival: &Arrival, outcome: &Outcome, ran: &Ran) -> String {
    format!(
        "{}\n  kernel action {} {}",
        describe(arrival, outcome),
        ran.action,
        hex(&ran.bytes)
    )
}

/// Whether a verdict sends the packet on, translated.
pub const fn is_translated(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Translate(_) | Verdict::Redirect(_))
}
