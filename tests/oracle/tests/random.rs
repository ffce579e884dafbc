//! kube-proxy and weir side by side, over random states.

use std::path::PathBuf;

use anyhow::{Context, Result};
use weir_oracle::run::{Options, run};
use weir_oracle::world::Parts;

fn number(name: &str, default: u64) -> Result<u64> {
    let Ok(text) = std::env::var(name) else {
        return Ok(default);
    };
    text.parse()
        .with_context(|| format!("{name}={text} is not a number"))
}

/// `./x test oracle` starts the API server that this needs.
#[test]
fn weir_does_what_kube_proxy_does() -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(kubeconfig), Some(kube_proxy)) =
        (path("WEIR_ORACLE_KUBECONFIG"), path("WEIR_ORACLE_KUBE_PROXY"))
    else {
        let required = std::env::var("REQUIRE_ROOT").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "REQUIRE_ROOT=1, but there is no API server: run this with `./x test oracle`"
        );
        eprintln!("SKIP: this needs an API server and kube-proxy: ./x test oracle");
        return Ok(());
    };
    let options = Options {
        seed: number("WEIR_ORACLE_SEED", 1)?,
        states: number("WEIR_ORACLE_STATES", 150)?,
        parts: Parts {
            kubeconfig,
            kube_proxy,
            client: env!("CARGO_BIN_EXE_weir-oracle-client").into(),
        },
        folder: weir_lab::workspace_root().join("target/oracle"),
    };
    let tally = run(&options)?;
    assert_eq!(tally.different, 0, "weir and kube-proxy differ, see above");
    assert!(tally.states == options.states && tally.probes > 0);
    Ok(())
}
