//! `weir-node-probe`: runs one probe, given as JSON, and prints its finding as JSON.

use anyhow::{Context, Result};
use weir_node::probe::Probe;

fn main() -> Result<()> {
    let text = std::env::args()
        .nth(1)
        .context("usage: weir-node-probe PROBE-AS-JSON")?;
    let probe: Probe = serde_json::from_str(&text).context("not a probe")?;
    println!("{}", serde_json::to_string(&probe.run())?);
    Ok(())
}
