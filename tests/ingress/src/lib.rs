//! The whole `weir-ingress` process from outside: what its tests have in common.
//!
//! A [`trial`] makes one network namespace whose every address of 10.0.0.0/8 is its own, so that clients, attackers and pods
//! have addresses of their own, and their ports never meet anybody else's. Pods are servers of the test itself.
//!
//! ```text
//!  10.1.0.0/16 normal clients ─┐                                   ┌─ 10.3.0.1:8080 pod
//!                              ├─▶ 10.0.0.1:80 :443 weir-ingress ──┼─ 10.3.0.2:8080 pod
//!  10.9.0.0/16 attackers ──────┘        :10254 probes              └─ …
//!                                        ▲ a folder of manifests that the test changes
//! ```

pub mod attack;
pub mod client;
pub mod edge;
pub mod frames;
pub mod h2spec;
pub mod ingress;
pub mod load;
pub mod objects;
pub mod pki;
pub mod pods;

pub use edge::{Edge, trial};
pub use ingress::Ingress;

use std::time::Duration;

/// Nothing that is waited for takes longer.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks every few milliseconds until it is so; an error that says what did not come.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let begun = weir_lab::clock::now();
    while !so().await {
        anyhow::ensure!(begun.elapsed() < SOON, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
