//! What is asked at the begin of a flow and once a second, and for few packets only, as functions of their own.
//!
//! verifier: they are global functions (hence the names that stay). Such a function is verified once, for whatever numbers it is
//! given, and its callers go on with whatever number it gives; inlined, each way through it would be a case of its own for all
//! that follows. It finds the scratch memory by itself: a pointer that is handed over may be no map's key before Linux 5.19.

use core::hint::black_box;

use proxy_common::{Address, AddressKind, Reason};
use proxy_datapath::begin::Situation;
use proxy_datapath::sctp::Sums;
use proxy_datapath::snat::{self, Claim, Reach};
use proxy_datapath::{Place, Scratch, begin, half_open, keep, sctp};

use crate::maps;
use crate::tables::Kernel;

/// No [`Reason`].
const CHOSEN: u32 = 1 << 8;

/// Calls a function that reads and changes the scratch memory, of which the compiler is not told otherwise.
#[inline(always)]
fn call(s: &mut Scratch, function: impl FnOnce() -> u32) -> u32 {
    let s = black_box(s);
    let code = function();
    black_box(s);
    code
}

/// [`keep::keep`].
#[inline(always)]
pub(crate) fn keep(from_backend: bool, now: u32, s: &mut Scratch) -> Result<(), Reason> {
    match call(s, || weir_keep_rows(u32::from(from_backend), now)) {
        0 => Ok(()),
        1 => Err(Reason::RejectGoneBackend),
        _ => Err(Reason::RejectUnknownFlow),
    }
}

/// [`begin::choose`].
#[inline(always)]
pub(crate) fn choose(at: &Situation, s: &mut Scratch) -> Result<(), Reason> {
    let Address {
        kind,
        node_ports,
        vip,
        reserved,
    } = at.address;
    let address = u32::from_ne_bytes([kind, node_ports, vip, reserved]);
    let place = u32::from(at.place.uplink) | u32::from(at.place.guest) << 1;
    match call(s, || weir_choose(place, address, at.now)) {
        CHOSEN => Ok(()),
        code => Err(Reason::from_code(code as u8).unwrap_or(Reason::DropBackendMissing)),
    }
}

/// [`begin::write_rows`].
#[inline(always)]
pub(crate) fn write_rows(now: u32, s: &mut Scratch) -> Result<Reason, Reason> {
    match call(s, || weir_write_rows(now)) {
        0 => Ok(Reason::NewFlow),
        1 => Ok(Reason::Forward),
        2 => Err(Reason::DropSnatPorts),
        _ => Err(Reason::DropFlowTable),
    }
}

/// [`snat::claim`].
#[inline(always)]
pub(crate) fn claim(now: u32, reach: Reach, s: &mut Scratch) -> Claim {
    match call(s, || weir_claim(now, reach as u32)) {
        0 => Claim::Ours,
        1 => Claim::Taken,
        _ => Claim::Full,
    }
}

/// [`half_open::find`].
#[inline(always)]
pub(crate) fn find_half_open(s: &mut Scratch) -> bool {
    call(s, || weir_find_half_open()) != 0
}

/// [`sctp::flags`].
#[inline(always)]
pub(crate) fn sctp_flags(chunk: u8, tag: [u8; 4]) -> u8 {
    weir_sctp_flags(u32::from(chunk), u32::from_ne_bytes(tag)) as u8
}

/// [`sctp::sums`].
#[inline(always)]
pub(crate) fn sctp_sums(old: [u8; 4], ports: u32, length: u16, others: u32) -> Sums {
    let both = weir_sctp_sums(u32::from_ne_bytes(old), ports, u32::from(length), others);
    Sums {
        checksum: (both as u32).to_ne_bytes(),
        device: (both >> 32) as u32,
    }
}

/// [`sctp::abort`].
#[inline(always)]
pub(crate) fn abort_sctp(is_known: bool, s: &mut Scratch) -> bool {
    call(s, || weir_abort_sctp(u32::from(is_known))) != 0
}

/// [`keep::keep`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_keep_rows(from_backend: u32, now: u32) -> u32 {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return 2;
    };
    // SAFETY: this CPU's row; the caller leaves it alone until this returns.
    let s = unsafe { &mut *scratch };
    match keep::keep(&Kernel::NOWHERE, from_backend != 0, now, s) {
        Ok(()) => 0,
        Err(Reason::RejectGoneBackend) => 1,
        Err(_) => 2,
    }
}

/// [`begin::choose`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_choose(place: u32, address: u32, now: u32) -> u32 {
    let (Some(scratch), Some(config)) = (maps::SCRATCH.get_ptr_mut(0), maps::CONFIG.get(0)) else {
        return u32::from(Reason::DropNoConfig.code());
    };
    let [kind, node_ports, vip, reserved] = address.to_ne_bytes();
    let Some(known) = AddressKind::from_code(kind) else {
        return u32::from(Reason::DropBackendMissing.code());
    };
    let at = Situation {
        place: Place {
            uplink: place & 1 != 0,
            guest: place & 2 != 0,
            // Of no interest for what is chosen; and an argument that nobody reads is none that the caller sets ("R1 is
            // not a scalar").
            interface: 0,
            ethernet: true,
        },
        config: *config,
        address: Address {
            kind,
            node_ports,
            vip,
            reserved,
        },
        kind: known,
        now,
    };
    // SAFETY: as there.
    let s = unsafe { &mut *scratch };
    match begin::choose(&Kernel::NOWHERE, &at, s) {
        Ok(()) => CHOSEN,
        Err(reason) => u32::from(reason.code()),
    }
}

/// [`begin::write_rows`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_write_rows(now: u32) -> u32 {
    let (Some(scratch), Some(config)) = (maps::SCRATCH.get_ptr_mut(0), maps::CONFIG.get(0)) else {
        return 3;
    };
    // SAFETY: as there.
    let s = unsafe { &mut *scratch };
    match begin::write_rows(&Kernel::NOWHERE, config, now, s) {
        Ok(Reason::NewFlow) => 0,
        Ok(_) => 1,
        Err(Reason::DropSnatPorts) => 2,
        Err(_) => 3,
    }
}

/// [`snat::claim`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_claim(now: u32, reach: u32) -> u32 {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return 2;
    };
    // SAFETY: as there.
    let s = unsafe { &mut *scratch };
    let reach = match reach {
        0 => Reach::Free,
        1 => Reach::Expired,
        _ => Reach::Closed,
    };
    match snat::claim(&Kernel::NOWHERE, now, reach, s) {
        Claim::Ours => 0,
        Claim::Taken => 1,
        Claim::Full => 2,
    }
}

/// [`half_open::find`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_find_half_open() -> u32 {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as there.
    let s = unsafe { &mut *scratch };
    u32::from(half_open::find(&Kernel::NOWHERE, s))
}

/// [`sctp::flags`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_sctp_flags(chunk: u32, tag: u32) -> u32 {
    u32::from(sctp::flags(chunk as u8, tag.to_ne_bytes()))
}

/// [`sctp::sums`], both in one number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_sctp_sums(old: u32, ports: u32, length: u32, others: u32) -> u64 {
    let sums = sctp::sums(old.to_ne_bytes(), ports, length as u16, others);
    u64::from(sums.device) << 32 | u64::from(u32::from_ne_bytes(sums.checksum))
}

/// [`sctp::abort`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_abort_sctp(is_known: u32) -> u32 {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as there.
    let s = unsafe { &mut *scratch };
    u32::from(sctp::abort(is_known != 0, s))
}
