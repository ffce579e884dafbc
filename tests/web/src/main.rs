//! `weir-web`: the server and the client, as a program.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use http::Uri;
use serde_json::json;
use weir_web::client::{self, Target};
use weir_web::load::{self, Plan, Speech};
use weir_web::serve::{self, Options};

#[derive(Parser)]
#[command(about = "Stands behind an ingress, and in front of it")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answers with its name, host and path; calls of gRPC and WebSockets get back what they say
    Serve {
        /// The name
        #[arg(long)]
        name: String,
        /// Port for HTTP/1.1 and HTTP/2 in clear text
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Seconds to serve after SIGTERM
        #[arg(long, default_value_t = 0)]
        linger: u64,
    },
    /// Makes one request, and prints what came of it as JSON
    Get(Ask),
    /// Makes requests at a rate, and prints a report as JSON
    Load {
        #[command(flatten)]
        ask: Ask,
        /// What is spoken
        #[arg(long, value_enum)]
        speech: Speech,
        /// Requests a second
        #[arg(long, default_value_t = 100)]
        rate: u32,
        /// For how long; until SIGTERM without
        #[arg(long)]
        seconds: Option<u64>,
        /// Requests for which a connection is used
        #[arg(long, default_value_t = u32::MAX)]
        reuse: u32,
    },
}

#[derive(clap::Args)]
struct Ask {
    /// `https://host/path`
    url: Uri,
    /// Where to connect to, in turn: `ADDRESS:PORT`
    #[arg(long, value_delimiter = ',', required = true)]
    connect: Vec<SocketAddr>,
    /// Certificate in PEM that vouches for what is shown
    #[arg(long)]
    ca: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Serve { name, port, linger } => {
            let listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            let linger = Duration::from_secs(linger);
            serve::serve(Options { name, listen, linger }).await
        }
        Verb::Get(ask) => get(ask).await,
        Verb::Load {
            ask,
            speech,
            rate,
            seconds,
            reuse,
        } => {
            let plan = Plan {
                target: Target::new(ask.url, ask.ca.as_deref(), speech.protocols())?,
                speech,
                to: ask.connect,
                rate,
                time: seconds.map(Duration::from_secs),
                reuse,
            };
            let report = load::run(plan).await?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
    }
}

async fn get(ask: Ask) -> Result<()> {
    let target = Target::new(ask.url, ask.ca.as_deref(), Speech::Http1.protocols())?;
    for to in ask.connect {
        let (answer, certificate) = client::get(&target, to).await?;
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let told = json!({
            "status": answer.status,
            "pod": header(serve::POD),
            "location": header("location"),
            "body": answer.body.trim_end(),
            "certificate": certificate,
        });
        println!("{told}");
    }
    Ok(())
}
