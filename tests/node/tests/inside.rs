//! What an operator sees: `weir services` and bpftool say the same, and `weir cleanup` leaves nothing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_lab::Node;
use weir_lab::peer::connect::ConnectOptions;
use weir_node::services::{TARGET, WEB};
use weir_node::{By, World, can_run, figures, names, services_json};

/// A frontend in words that both sources can be put into.
type Row = (IpAddr, u64, &'static str, u64, u64, Vec<u64>);

fn number(value: &Value, path: &str) -> Result<u64> {
    value
        .pointer(path)
        .and_then(Value::as_u64)
        .with_context(|| format!("no number {path} in {value}"))
}

fn protocol(row: &Value) -> Result<&'static str> {
    let protocol = row.get("protocol").context("no protocol")?;
    if protocol == "TCP" || protocol == 6 {
        Ok("TCP")
    } else {
        Ok("UDP")
    }
}

/// A row of `weir services`.
fn by_weir(row: &Value) -> Result<Row> {
    let address = row.get("address").and_then(Value::as_str).context("no address")?;
    let endpoints = row
        .get("endpoints")
        .and_then(Value::as_array)
        .context("no endpoints")?;
    let mut slots = endpoints
        .iter()
        .map(|one| number(one, "/slot"))
        .collect::<Result<Vec<_>>>()?;
    slots.sort_unstable();
    let (port, id, generation) = (
        number(row, "/port")?,
        number(row, "/id")?,
        number(row, "/generation")?,
    );
    Ok((address.parse()?, port, protocol(row)?, id, generation, slots))
}

/// A row of `bpftool map dump pinned …/SERVICES`, by the names of its fields.
fn by_bpftool(row: &Value) -> Result<Row> {
    let row = row
        .get("formatted")
        .context("bpftool does not know the names of the fields")?;
    let (key, value) = row.get("key").zip(row.get("value")).context("no key and value")?;
    let bytes = key
        .pointer("/address/bytes")
        .and_then(Value::as_array)
        .context("no address")?;
    let bytes: Vec<u8> = bytes
        .iter()
        .filter_map(|byte| u8::try_from(byte.as_u64()?).ok())
        .collect();
    let bytes: [u8; 16] = bytes.try_into().ok().context("not 16 bytes")?;
    // A node port has no address of its own, only a family.
    let address = match number(key, "/scope")? {
        4 => IpAddr::from([0; 4]),
        _ => Ipv6Addr::from(bytes).to_canonical(),
    };
    let (base, count) = (number(value, "/cluster/base")?, number(value, "/cluster/count")?);
    let slots = (base..base + count).collect();
    let (port, id, generation) = (
        number(key, "/port")?,
        number(value, "/id")?,
        number(value, "/generation")?,
    );
    Ok((address, port, protocol(key)?, id, generation, slots))
}

#[test]
fn weir_services_agrees_with_bpftool() -> Result<()> {
    if !can_run(&["bpftool"]) {
        return Ok(());
    }
    let world = World::new("agree")?;
    let pin = world.n1.bpffs().join("weir/v1/SERVICES");
    let dump: Value = serde_json::from_str(
        &world
            .n1
            .sh(&format!("bpftool -j map dump pinned {}", pin.display()))?,
    )?;
    let dump = dump.as_array().context("not a list")?;
    let mut seen = dump.iter().map(by_bpftool).collect::<Result<Vec<_>>>()?;
    let mut said = services_json(&world.n1)?
        .iter()
        .map(by_weir)
        .collect::<Result<Vec<_>>>()?;
    seen.sort();
    said.sort();
    println!(
        "{} frontends by bpftool, {} by weir services; the first: {:?}",
        seen.len(),
        said.len(),
        seen.first()
    );
    // Seven Services, two families, two ports, at the ClusterIP and at the node port.
    ensure!(seen.len() == 7 * 2 * 2 * 2, "{} frontends", seen.len());
    ensure!(seen == said, "bpftool: {seen:?}\nweir: {said:?}");
    let text = world
        .n1
        .sh(&format!("bpftool map dump pinned {}", pin.display()))?;
    for field in [
        "address",
        "port",
        "protocol",
        "scope",
        "id",
        "generation",
        "cluster",
        "base",
        "count",
    ] {
        ensure!(
            text.contains(&format!("\"{field}\":")),
            "bpftool shows no field {field}"
        );
    }
    Ok(())
}

/// Ids of the programs behind the pinned links of a node.
fn programs(node: &Node, links: &Path) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    for name in names(links) {
        let link: Value = serde_json::from_str(&node.sh(&format!(
            "bpftool -j link show pinned {}",
            links.join(name).display()
        ))?)?;
        ids.push(number(&link, "/prog_id")?);
    }
    Ok(ids)
}

/// ClusterIPs are nobody's, and pods are reached as before.
fn assert_only_direct(world: &World) -> Result<()> {
    let [web_1, ..] = &world.web;
    for (ip, direct) in WEB.tcp().into_iter().zip(web_1.addresses()) {
        for by in By::BOTH {
            let timeout = Duration::from_millis(300);
            let report = by.connect(
                &world.client,
                &ConnectOptions {
                    timeout,
                    ..ConnectOptions::new(ip, 2, 2)
                },
            )?;
            ensure!(report.ok == 0, "a ClusterIP works without weir: {report:?}");
            let direct = ConnectOptions::new(SocketAddr::new(direct, TARGET), 20, 5);
            let report = by.connect(&world.client, &direct)?;
            figures(&format!("direct after the cleanup, {by:?}"), &report);
            ensure!(report.is_clean(), "{report:?}");
        }
    }
    Ok(())
}

#[test]
fn cleanup_leaves_nothing() -> Result<()> {
    if !can_run(&["bpftool", "tc"]) {
        return Ok(());
    }
    let mut world = World::new("cleanup")?;
    let node = world.n1.clone();
    let root: PathBuf = node.bpffs().join("weir");
    let ids = programs(&node, &root.join("v1/links"))?;
    println!("{} links; programs {ids:?}", ids.len());
    ensure!(
        ids.len() == 8 + 2 * 5,
        "8 socket hooks, and two hooks on each of five interfaces: {}",
        ids.len()
    );

    let refused = node.weir_output(&["cleanup"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    println!("while the agent runs: {}", said.trim());
    ensure!(
        !refused.status.success(),
        "weir cleanup works under a running agent"
    );

    world.weir()?.term()?;
    println!("{} pins removed", node.weir(&["cleanup"])?.lines().count());
    ensure!(
        !root.exists(),
        "{} is still there: {:?}",
        root.display(),
        names(&root)
    );
    // Programs go with the last reference, after a grace period of the kernel.
    let left = || {
        ids.iter()
            .filter(|id| node.sh(&format!("bpftool prog show id {id}")).is_ok())
            .count()
    };
    let gone = weir_lab::clock::wait_until(Duration::from_secs(3), || left() == 0);
    ensure!(gone, "{} programs are still there", left());
    let attached = node.sh(&format!("bpftool -j cgroup show {}", node.cgroup().display()))?;
    ensure!(
        ["", "[]"].contains(&attached.trim()),
        "still on the cgroup: {attached}"
    );
    let clsact = node.sh("tc qdisc show")?;
    ensure!(!clsact.contains("clsact"), "{clsact}");

    assert_only_direct(&world)?;
    println!("again: {}", node.weir(&["cleanup"])?.trim());
    world.weir()?.restart()?;
    let report = By::Packet.connect(&world.client, &ConnectOptions::new(WEB.tcp()[0], 30, 5))?;
    figures("after a new start", &report);
    ensure!(report.is_clean() && report.counts() == [10; 3], "{report:?}");
    Ok(())
}
