//! Generated packets do the same in the kernel as in user space, and break no law.
//!
//! `WEIR_PARITY_PACKETS` says how many (100,000), `WEIR_PARITY_SEED` where the seeds of the batches begin. It is the same in
//! every run, so that what is red was made red by a change; the nightly run begins elsewhere and goes further.

use std::collections::BTreeMap;
use std::env;

use anyhow::{Context, Result};
use proxy_common::Reason;
use weir_packet::generate::Generator;
use weir_packet::kernel::Kernel;
use weir_packet::node::{self, Host, Masquerade, Rows};
use weir_packet::pair::{Pair, uptime};

/// Packets before both worlds are compared as a whole and begin anew.
const BATCH: u64 = 4_000;

fn number(name: &str) -> Result<Option<u64>> {
    match env::var(name) {
        Ok(text) => text
            .replace('_', "")
            .parse()
            .map(Some)
            .with_context(|| format!("{name} is no number: {text}")),
        Err(_) => Ok(None),
    }
}

/// The node of a batch, by its seed: so that the seed alone repeats it.
fn node(seed: u64) -> Rows {
    // Every third has so few source ports that they run out, and every fourth an operator who says nothing about sources.
    let rows = node::rows(if seed.is_multiple_of(3) { 2 } else { 20_000 });
    match seed % 4 {
        1 => rows.with(Masquerade::All),
        2 => rows.with(Masquerade::External),
        3 => rows.with(Masquerade::AllBut(Host::Pod1)),
        _ => rows,
    }
}

fn run(mut pair: Pair, packets: u64, seed: u64) -> Result<BTreeMap<String, u64>> {
    let mut told = BTreeMap::new();
    let mut done = 0;
    for seed in seed.. {
        if done >= packets {
            break;
        }
        pair.reset(&node(seed))?;
        let mut generator = Generator::new(seed);
        for index in 0..BATCH.min(packets - done) {
            let (_, outcome) = generator
                .step(&mut pair)
                .with_context(|| format!("packet {index} of WEIR_PARITY_SEED={seed}"))?;
            let name = outcome.verdict.reason().map_or("Ignore", Reason::name);
            *told.entry(name.to_owned()).or_default() += 1;
            done += 1;
        }
        pair.compare_all()
            .with_context(|| format!("after a batch with WEIR_PARITY_SEED={seed}"))?;
    }
    println!(
        "{} compared, {} too short for the kernel",
        pair.agreed, pair.too_short
    );
    Ok(told)
}

#[test]
fn a_hundred_thousand_packets_do_the_same_in_both_worlds() -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    let packets = number("WEIR_PARITY_PACKETS")?.unwrap_or(100_000);
    let seed = number("WEIR_PARITY_SEED")?.unwrap_or(1);
    println!("WEIR_PARITY_SEED={seed}");
    let pair = Pair::new(Some(Kernel::load()?), &node::rows(20_000))?;
    let began = uptime();
    let told = run(pair, packets, seed)?;
    println!(
        "{packets} packets in {:.1} s: {told:?}",
        uptime().saturating_sub(began).as_secs_f32()
    );
    // A generator that does not get everywhere proves less than it says.
    for reason in [
        Reason::NewFlow,
        Reason::Forward,
        Reason::Reverse,
        Reason::IcmpError,
        Reason::Fragment,
    ] {
        assert!(
            told.get(reason.name()).copied().unwrap_or(0) > packets / 1000,
            "{reason:?} hardly ever happened"
        );
    }
    Ok(())
}
