//! A device may have summed the packet (`CHECKSUM_COMPLETE`): what changes in the packet must change that sum as well,
//! or the receiver reports a hardware failure for each packet.

use anyhow::{Context as _, Result};
use weir_packet::craft::{ACK, Craft, Endpoint, SYN};
use weir_packet::kernel::Kernel;
use weir_packet::node::{self, Host, Port};
use weir_packet::user::{Arrival, Program, REDIRECT};

const fn at(program: Program, port: Port, bytes: Vec<u8>) -> Arrival {
    Arrival {
        program,
        interface: port.index(),
        segment: 0,
        bytes,
    }
}

fn from_outside(packet: &Craft) -> Arrival {
    at(Program::UplinkIngress, Port::Uplink, packet.bytes(true))
}

/// Runs packets, which must get these answers of the program, in both families.
fn run(packets: impl Fn(bool) -> Vec<(&'static str, Arrival, i32)>) -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.reset(&node::rows(1))?;
    for v6 in [false, true] {
        for (what, arrival, wanted) in packets(v6) {
            let action = kernel
                .run_summed(&arrival)
                .with_context(|| format!("{what}, IPv6 {v6}"))?;
            let Some(action) = action else {
                println!("SKIP: this kernel cannot pretend that a device has summed a packet");
                return Ok(());
            };
            assert_eq!(action, wanted, "{what}, IPv6 {v6}");
        }
    }
    Ok(())
}

/// Past the stack, with one hop less: the hop limit of IPv6 is in no checksum of the packet.
#[test]
fn a_packet_that_goes_past_the_stack() -> Result<()> {
    run(|v6| {
        let client: Endpoint = (Host::Outside(7).ip(v6), 50_000);
        let frontend: Endpoint = (Host::Node.ip(v6), 30443);
        let backend: Endpoint = (Host::Remote(6).ip(v6), 8443);
        let gate: Endpoint = (Host::OverlayGate.ip(v6), node::SNAT_FIRST);
        let answer = Craft::tcp(backend, gate, SYN | ACK).bytes(true);
        vec![
            ("SYN", from_outside(&Craft::tcp(client, frontend, SYN)), REDIRECT),
            (
                "answer",
                at(Program::UplinkIngress, Port::Overlay, answer),
                REDIRECT,
            ),
            (
                "data",
                from_outside(&Craft::tcp(client, frontend, ACK).data(vec![7; 99])),
                REDIRECT,
            ),
        ]
    })
}
