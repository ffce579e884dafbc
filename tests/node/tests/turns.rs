//! Round robin stays exact while a Service's policies and its endpoints' conditions say who takes part: each set of backends
//! has turns of its own, and what is left out takes none.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use weir_lab::manifest::Endpoint;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, Pod};
use weir_node::services::{Known, TARGET, endpoints, family};
use weir_node::{By, World, can_run, figures};

/// Three backends, two of them on node 1, and `externalTrafficPolicy: Local`.
const HERE: Known = Known {
    name: "here",
    number: 18,
    target: TARGET,
};
const CONNECTIONS: u64 = 600;
const CLIENTS: u64 = 12;

/// How an endpoint stands.
#[derive(Clone, Copy)]
enum Condition {
    Ready,
    /// Terminating, and serving until it is gone.
    Leaving,
}

/// Writes the Service and waits until the node has it: `usable` are those that take turns, of either set. They have to differ
/// from those before.
fn write(world: &World, conditions: [Condition; 3], usable: &[&Pod]) -> Result<()> {
    let mut all: Vec<Endpoint> = Vec::new();
    for (pod, condition) in world.web.iter().zip(conditions) {
        for mut endpoint in endpoints(&[pod]) {
            endpoint.ready = matches!(condition, Condition::Ready);
            endpoint.terminating = !endpoint.ready;
            all.push(endpoint);
        }
    }
    let service = HERE.service().spec("externalTrafficPolicy: Local");
    let mut documents = vec![service.to_yaml()];
    documents.extend(service.slices(&all));
    world.manifests.write(&HERE.file(), &documents)?;
    world.settled(HERE, usable)?;
    Ok(())
}

/// Opens connections from everywhere at once; each backend gets its exact share of each client's kind.
fn assert_shares(world: &World, what: &str, local: &[&str], all: &[&str]) -> Result<()> {
    let node_ports = world.at_n1(HERE.node_tcp());
    for (cluster_ip, node_port) in HERE.tcp().into_iter().zip(node_ports) {
        let options = |target: SocketAddr| ConnectOptions::new(target, CONNECTIONS, CLIENTS);
        let kinds: [(&Host, By, SocketAddr, &[&str]); 3] = [
            (&world.outside, By::Packet, node_port, local),
            (world.sandbox.host(), By::Packet, cluster_ip, all),
            (world.n1.host(), By::Socket, cluster_ip, all),
        ];
        let loads = kinds.map(|(host, by, target, _)| by.start(host, &options(target)));
        let mut pods = vec![0; all.len()];
        for (load, (host, by, target, shared)) in loads.into_iter().zip(kinds) {
            let report = load?.wait()?;
            figures(
                &format!("{what}, {}, {by:?}, {}", host.name(), family(target)),
                &report,
            );
            ensure!(report.is_clean(), "{what}: {report:?}");
            let counts: Vec<u64> = shared.iter().map(|name| report.backend(name)).collect();
            ensure!(
                counts.iter().sum::<u64>() == CONNECTIONS,
                "{what}: {:?}",
                report.backends
            );
            if by == By::Packet && target == node_port {
                let share = CONNECTIONS / shared.len() as u64;
                ensure!(counts.iter().all(|count| *count == share), "{what}: {counts:?}");
            } else {
                // Two kinds of clients take turns of one cursor.
                pods.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        let share = 2 * CONNECTIONS / all.len() as u64;
        ensure!(pods.iter().all(|sum| *sum == share), "{what}: {pods:?}");
    }
    Ok(())
}

#[test]
fn exact_with_policies_and_leaving_endpoints() -> Result<()> {
    use Condition::{Leaving, Ready};
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("turns")?;
    let [web_1, web_2, web_3] = &world.web;
    let (here, everywhere) = (["web-1", "web-2"], ["web-1", "web-2", "web-3"]);

    write(&world, [Ready; 3], &[web_1, web_2, web_3])?;
    assert_shares(&world, "all ready", &here, &everywhere)?;

    write(&world, [Ready, Leaving, Ready], &[web_1, web_3])?;
    assert_shares(&world, "one leaves", &["web-1"], &["web-1", "web-3"])?;

    // Ready ones elsewhere do not help those who want one here.
    write(&world, [Leaving, Leaving, Ready], &[web_1, web_2, web_3])?;
    assert_shares(&world, "only leaving ones here", &here, &["web-3"])?;

    write(&world, [Ready, Leaving, Ready], &[web_1, web_3])?;
    write(&world, [Leaving; 3], &[web_1, web_2, web_3])?;
    assert_shares(&world, "all leave", &here, &everywhere)
}
