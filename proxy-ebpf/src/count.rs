//! Counters for every verdict, events for those that a person would ask about.

use core::hint::cold_path;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_log_ebpf::{debug, warn};
use proxy_common::{Event, EventKind, Ip, Reason};
use proxy_datapath::{Place, Scratch, Verdict};

use crate::maps;

/// Counts a packet.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(u32::from(reason.code())) {
        // SAFETY: this CPU's own number; the program is not moved to another while it runs.
        unsafe { *counter += 1 };
    }
}

/// Counts a verdict, and tells who listens.
#[inline(always)]
pub(crate) fn verdict(ctx: &impl EbpfContext, verdict: Verdict, place: Place, s: &Scratch) {
    let Some(reason) = verdict.reason() else { return };
    count(reason);
    let kind = match verdict {
        Verdict::Translate(Reason::NewFlow) | Verdict::Redirect(Reason::NewFlow) => EventKind::Flow,
        Verdict::Reply(_) => EventKind::Reject,
        Verdict::Drop(_) => EventKind::Drop,
        _ => return,
    };
    cold_path();
    log(ctx, reason, place.interface);
    if !somebody_listens() {
        return;
    }
    let Some(mut event) = maps::EVENTS.reserve(0) else {
        return;
    };
    let flow = matches!(kind, EventKind::Flow);
    event.write(Event {
        time: now(),
        client: s.key.source,
        frontend: s.key.destination,
        backend: if flow { s.flow.backend } else { Ip::UNSPECIFIED },
        client_port: s.key.source_port,
        frontend_port: s.key.destination_port,
        backend_port: if flow { s.flow.backend_port } else { 0 },
        protocol: s.key.protocol,
        kind: kind.code(),
        service: if flow { s.flow.service } else { u32::MAX },
        interface: place.interface,
        reason: reason.code(),
        reserved: [0; 7],
    });
    event.submit(0);
}

/// Writes an event of the socket hook.
#[inline(always)]
pub(crate) fn socket(kind: EventKind, reason: Reason, frontend: (Ip, u16, u8), backend: (Ip, u16)) {
    count(reason);
    if !somebody_listens() {
        return;
    }
    let Some(mut event) = maps::EVENTS.reserve(0) else {
        return;
    };
    event.write(Event {
        time: now(),
        client: Ip::UNSPECIFIED,
        frontend: frontend.0,
        backend: backend.0,
        client_port: 0,
        frontend_port: frontend.1,
        backend_port: backend.1,
        protocol: frontend.2,
        kind: kind.code(),
        service: u32::MAX,
        interface: 0,
        reason: reason.code(),
        reserved: [0; 7],
    });
    event.submit(0);
}

/// Kernel logs, for those who turn them on: off, the verifier leaves the code out.
#[inline(always)]
fn log(ctx: &impl EbpfContext, reason: Reason, interface: u32) {
    match reason {
        Reason::NewFlow => debug!(ctx, "new flow at interface {}", interface),
        Reason::DropRewrite | Reason::DropFlowTable | Reason::DropSnatPorts | Reason::DropBackendMissing => {
            warn!(
                ctx,
                "dropped a packet at interface {}: reason {}",
                interface,
                reason.code()
            );
        }
        _ => debug!(
            ctx,
            "refused a packet at interface {}: reason {}",
            interface,
            reason.code()
        ),
    }
}

/// Whether a monitor holds a lease.
#[inline(always)]
fn somebody_listens() -> bool {
    let Some(lease) = maps::MONITOR.get(0) else {
        return false;
    };
    lease.until != 0 && u64::from(lease.until) > now() / 1_000_000_000
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_ktime_get_ns() }
}
