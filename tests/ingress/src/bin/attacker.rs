//! An attacker: does one thing to one address until it is killed.

use std::net::SocketAddr;

use clap::Parser;
use weir_ingress_trial::attack::{Attack, attack};

#[derive(Parser)]
struct Args {
    /// What to do
    attack: Attack,
    /// The ingress
    target: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    attack(args.attack, args.target).await;
}
