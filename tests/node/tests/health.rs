//! What load balancers ask at health check node ports.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_lab::manifest::{Endpoint, Port, Service};
use weir_lab::{Node, Pod, clock};
use weir_node::ask::{Answer, ask, at, falls_silent};
use weir_node::services::{TARGET, endpoints};
use weir_node::{World, can_run};

const CHECK: u16 = 32_100;
const WITHIN: Duration = Duration::from_secs(5);

/// A Service behind a load balancer, number `number`, with its slices.
fn balanced(number: u8, policy: &str, check: u16, endpoints: &[Endpoint]) -> Vec<String> {
    let ips = [
        Ipv4Addr::new(10, 96, 1, number).into(),
        Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 1, number.into()).into(),
    ];
    let port = Port::tcp("http", 80, TARGET).node_port(30_200 + u16::from(number));
    let service = Service::new(&format!("lb-{number}"), &ips, &[port])
        .spec(&format!("externalTrafficPolicy: {policy}"))
        .spec(&format!("healthCheckNodePort: {check}"));
    let mut documents = vec![service.to_yaml().replace("type: NodePort", "type: LoadBalancer")];
    documents.extend(service.slices(endpoints));
    documents
}

fn write(world: &World, number: u8, check: u16, pods: &[&Pod]) -> Result<()> {
    let documents = balanced(number, "Local", check, &endpoints(pods));
    world.manifests.write(&format!("lb-{number}.yaml"), &documents)
}

/// Waits for so many endpoints at a node, in both families.
fn counts(world: &World, node: &Node, port: u16, count: usize) -> Result<()> {
    for ip in node.host().addresses() {
        let to = at(ip, port);
        let mut last = None;
        let weight = format!("x-load-balancing-endpoint-weight: {count}");
        clock::wait_until(WITHIN, || {
            last = ask(&world.outside, to, "/healthz").ok();
            let head = last.as_ref().map_or("", |answer: &Answer| &answer.head);
            head.lines().any(|line| line == weight)
        });
        let code = if count > 0 { 200 } else { 503 };
        ensure!(
            last.as_ref().is_some_and(|answer| answer.code == code
                && answer.body.contains(&format!("\"localEndpoints\": {count},"))
                && answer.body.contains("\"serviceProxyHealthy\": true")),
            "{to}: {last:?}, not {count}"
        );
    }
    Ok(())
}

#[test]
fn health_checks_tell_of_each_nodes_own_endpoints() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("health")?;
    let [web_1, web_2, web_3] = &world.web;
    write(&world, 1, CHECK, &[web_1, web_2, web_3])?;
    counts(&world, &world.n1, CHECK, 2)?;
    counts(&world, &world.n2, CHECK, 1)?;
    // Several Services, each with its own.
    write(&world, 2, CHECK + 1, &[web_3])?;
    counts(&world, &world.n1, CHECK + 1, 0)?;
    counts(&world, &world.n2, CHECK + 1, 1)?;
    // A terminating endpoint serves on, and is not counted.
    let mut leaving = endpoints(&[web_1, web_3]);
    for endpoint in &mut leaving {
        if web_1.addresses().contains(&endpoint.address) {
            endpoint.ready = false;
            endpoint.terminating = true;
        }
    }
    let documents = balanced(1, "Local", CHECK, &leaving);
    world.manifests.write("lb-1.yaml", &documents)?;
    counts(&world, &world.n1, CHECK, 0)?;
    counts(&world, &world.n2, CHECK, 1)?;
    // The port changes, and goes with the policy.
    write(&world, 1, CHECK + 2, &[web_1])?;
    counts(&world, &world.n1, CHECK + 2, 1)?;
    falls_silent(&world.outside, at(world.n1.v4(), CHECK))?;
    let documents = balanced(1, "Cluster", CHECK + 2, &endpoints(&[web_1]));
    world.manifests.write("lb-1.yaml", &documents)?;
    for ip in world.n1.host().addresses() {
        falls_silent(&world.outside, at(ip, CHECK + 2))?;
    }
    world.manifests.remove("lb-2.yaml")?;
    falls_silent(&world.outside, at(world.n2.v6(), CHECK + 1))
}

#[test]
fn a_taken_health_check_port_costs_one_service() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("healthtaken")?;
    let squatter = world
        .n1
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, CHECK)))??;
    let [web_1, ..] = &world.web;
    write(&world, 1, CHECK, &[web_1])?;
    write(&world, 2, CHECK + 1, &[web_1])?;
    counts(&world, &world.n1, CHECK + 1, 1)?;
    let sentence = format!("Service default/lb-1: healthCheckNodePort {CHECK} cannot be answered at");
    ensure!(clock::wait_until(WITHIN, || says(&mut world, &sentence)));
    let status = world.weir()?.cli(&["status"])?;
    ensure!(status.contains(&sentence), "{status}");
    drop(squatter);
    let to = at(world.n1.v4(), CHECK);
    let answers = || ask(&world.outside, to, "/").is_ok_and(|answer| answer.code == 200);
    ensure!(clock::wait_until(3 * WITHIN, answers), "{to} is not tried again");
    let settled = format!("settled: {sentence}");
    ensure!(clock::wait_until(WITHIN, || says(&mut world, &settled)));
    let status = world.weir()?.cli(&["status"])?;
    ensure!(!status.contains(&sentence), "{status}");
    Ok(())
}

fn says(world: &mut World, sentence: &str) -> bool {
    world.weir().is_ok_and(|agent| agent.log().contains(sentence))
}
