//! A door into a namespace: a listening socket in one place whose connections go on in another.
//!
//! So `kubectl` works from anywhere on the machine, and programs in several labs reach one API server, and neither
//! routes nor interfaces change.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Serves until the process ends; each connection is joined to one that `connect` makes.
pub fn forward(listener: TcpListener, connect: impl Fn() -> io::Result<TcpStream> + Send + Sync + 'static) {
    let connect = Arc::new(connect);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let connect = Arc::clone(&connect);
            thread::spawn(move || {
                // A client that cannot be served sees its connection close.
                if let Ok(server) = connect() {
                    let _ = join(&client, &server);
                }
            });
        }
    });
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
