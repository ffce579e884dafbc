//! Damaged packets and raw bytes.

use super::conversation::where_addresses;
use crate::decode::decode;
use crate::node::{Host, Port};
use crate::random::Random;
use crate::user::{Arrival, Program};

/// Longest frame.
const LONGEST: usize = 1600;

/// Changes a packet that was in order.
pub(super) fn damage(random: &mut Random, mut arrival: Arrival) -> Arrival {
    for _ in 0..=random.below(3) {
        strike(random, &mut arrival);
    }
    arrival
}

fn strike(random: &mut Random, arrival: &mut Arrival) {
    let length = arrival.bytes.len();
    match random.below(8) {
        // Anywhere.
        0 | 1 => set(arrival, random.below(length), random.byte()),
        // In the headers, where it hurts.
        2 | 3 => set(arrival, random.below(length.min(60)), random.byte()),
        4 => {
            let bit = 1 << random.below(8);
            let at = 12 + random.below(length.saturating_sub(12).min(50));
            let old = arrival.bytes.get(at).copied().unwrap_or(0);
            set(arrival, at, old ^ bit);
        }
        5 => arrival.bytes.truncate(random.below(length + 1)),
        6 => {
            let more = random.below(40);
            arrival.bytes.extend(random.bytes(more));
        }
        _ => elsewhere(random, arrival),
    }
}

fn set(arrival: &mut Arrival, at: usize, value: u8) {
    if let Some(byte) = arrival.bytes.get_mut(at) {
        *byte = value;
    }
}

/// At another hook or interface, or as a GSO packet.
fn elsewhere(random: &mut Random, arrival: &mut Arrival) {
    match random.below(3) {
        0 => arrival.program = random.pick(&Program::ALL).unwrap_or(arrival.program),
        1 => arrival.interface = random.pick(&Port::ALL).unwrap_or(Port::Uplink).index(),
        _ => arrival.segment = u32::from(random.short() % 2000),
    }
}

/// Bytes that nobody made on purpose, some with a header that is read at least.
pub(super) fn raw(random: &mut Random) -> Arrival {
    let program = random.pick(&Program::ALL).unwrap_or(Program::PodEgress);
    let interface = random.pick(&Port::ALL).unwrap_or(Port::Uplink).index();
    let longest = if random.percent(90) { 120 } else { LONGEST };
    let length = 14 + random.below(longest);
    let mut arrival = Arrival {
        program,
        interface,
        segment: 0,
        bytes: random.bytes(length),
    };
    let v6 = random.percent(50);
    let l3 = if program.ethernet() { 14 } else { 0 };
    if random.percent(70) {
        if program.ethernet() {
            let [a, b] = if v6 { [0x86, 0xdd] } else { [8, 0] };
            set(&mut arrival, 12, a);
            set(&mut arrival, 13, b);
        }
        set(&mut arrival, l3, if v6 { 0x60 } else { 0x45 });
        let protocols = [6, 17, 132, 1, 58, 0, 43, 44, 60];
        let at = if v6 { l3 + 6 } else { l3 + 9 };
        set(&mut arrival, at, random.pick(&protocols).unwrap_or(6));
        aim(random, &mut arrival, v6);
    }
    arrival
}

/// Sends noise to somebody whom weir knows.
fn aim(random: &mut Random, arrival: &mut Arrival, v6: bool) {
    let Some(packet) = decode(&arrival.bytes, arrival.program.ethernet()) else {
        return;
    };
    let target = random.pick(&[
        Host::Vip(10),
        Host::Vip(53),
        Host::Node,
        Host::Vip(30),
        Host::Vip(70),
        Host::Pod1,
    ]);
    let Some(target) = target.map(|host| host.ip(v6)) else {
        return;
    };
    let (at, size) = where_addresses(&packet);
    let half = size / 2;
    let address = if v6 {
        target.bytes.to_vec()
    } else {
        target.v4_bytes().to_vec()
    };
    if let Some(field) = arrival.bytes.get_mut(at + half..at + size) {
        field.copy_from_slice(&address);
    }
}
