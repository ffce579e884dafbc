//! A door into the cluster: a port on the machine's loopback whose connections go on inside a namespace.
//!
//! So `kubectl` works from anywhere on the machine, and neither its routes nor its interfaces change.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use weir_lab::Host;

/// Serves until the process ends; the address to connect to.
pub(super) fn forward(inside: &Host, target: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on the loopback")?;
    let address = listener.local_addr()?;
    let inside = Arc::new(inside.clone());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let inside = Arc::clone(&inside);
            thread::spawn(move || {
                // A client that cannot be served sees its connection close.
                if let Ok(Ok(server)) = inside.run(|| connect(target)) {
                    let _ = join(&client, &server);
                }
            });
        }
    });
    Ok(address)
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&target, Duration::from_secs(5))
}

/// Copies both ways until both sides have said all.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let (client_again, server_again) = (client.try_clone()?, server.try_clone()?);
    let back = thread::spawn(move || copy(&server_again, &client_again));
    copy(client, server);
    let _ = back.join();
    Ok(())
}

/// Copies what one side says, and passes on that it has ended.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
