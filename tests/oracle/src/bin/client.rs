//! The oracle's client, as a process of its own: a socket belongs to the cgroup of the process that makes it.

fn main() -> std::io::Result<()> {
    weir_oracle::client::serve()
}
