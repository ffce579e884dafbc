//! Load by ready tools: wrk for HTTP/1.1, h2load for HTTP/2; and what they print.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_lab::Pod;

/// Connections of wrk.
const CONNECTIONS: usize = 64;
/// Connections of h2load, and requests at a time on each.
const H2: (usize, usize) = (16, 8);

/// What came of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Answered {
    /// Right answers.
    pub(crate) good: u64,
    /// Anything else.
    pub(crate) failed: u64,
}

/// HTTP/1.1 in clear text, on connections that are kept.
pub(crate) fn wrk(
    client: &Pod,
    target: Ipv4Addr,
    (host, path): (&str, &str),
    seconds: u64,
) -> Result<Answered> {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "-H"]);
    command.args([format!("Host: {host}"), format!("http://{target}{path}")]);
    let said = run(client, command)?;
    parse_wrk(&said).with_context(|| format!("wrk says:\n{said}"))
}

/// HTTP/2 over TLS.
pub(crate) fn h2load(
    client: &Pod,
    target: Ipv4Addr,
    (host, path): (&str, &str),
    seconds: u64,
) -> Result<Answered> {
    let mut command = Command::new("h2load");
    command.args([
        "-t1",
        &format!("-c{}", H2.0),
        &format!("-m{}", H2.1),
        &format!("-D{seconds}"),
    ]);
    command.args(["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]);
    command.args([
        format!("--connect-to={target}:443"),
        format!("https://{host}{path}"),
    ]);
    let said = run(client, command)?;
    parse_h2load(&said).with_context(|| format!("h2load says:\n{said}"))
}

fn run(client: &Pod, command: Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = client.output(command)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} failed ({}): {said}{errors}",
        output.status
    );
    Ok(said)
}

/// ```text
///   45012 requests in 1.00s, 50.12MB read
///   Socket errors: connect 0, read 3, write 0, timeout 0
///   Non-2xx or 3xx responses: 5
/// ```
fn parse_wrk(said: &str) -> Option<Answered> {
    let all = said
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))?
        .0;
    let all: u64 = all.parse().ok()?;
    let after = |label: &str| said.lines().find_map(|line| line.trim().strip_prefix(label));
    let broken = after("Socket errors: ").map_or(0, numbers);
    let wrong = after("Non-2xx or 3xx responses: ").map_or(0, numbers);
    Some(Answered {
        good: all.saturating_sub(wrong),
        failed: broken + wrong,
    })
}

/// ```text
/// requests: 9000 total, 9128 started, 9000 done, 9000 succeeded, 0 failed, 0 errored, 0 timeout
/// status codes: 9000 2xx, 0 3xx, 0 4xx, 0 5xx
/// ```
fn parse_h2load(said: &str) -> Option<Answered> {
    let requests = said.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let codes = said
        .lines()
        .find_map(|line| line.strip_prefix("status codes: "))?;
    let value = |line: &str, label: &str| -> Option<u64> {
        let part = line.split(", ").find_map(|part| part.strip_suffix(label))?;
        part.trim().parse().ok()
    };
    let failed = ["failed", "errored", "timeout"].map(|label| value(requests, label));
    let wrong = ["3xx", "4xx", "5xx"].map(|label| value(codes, label));
    let failed = failed.into_iter().chain(wrong).sum::<Option<u64>>()?;
    Some(Answered {
        good: value(codes, "2xx")?,
        failed,
    })
}

/// The sum of the numbers in a line.
fn numbers(line: &str) -> u64 {
    let words = line.split(|letter: char| !letter.is_ascii_digit());
    words.filter_map(|word| word.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let said = "Running 1s test @ http://10.0.0.1/\n  1 threads and 64 connections\n\
                    \x20 45012 requests in 1.00s, 50.12MB read\n";
        let good = Answered {
            good: 45012,
            failed: 0,
        };
        assert_eq!(parse_wrk(said), Some(good));
        let said = format!(
            "{said}  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 12\n"
        );
        let bad = Answered {
            good: 45000,
            failed: 19,
        };
        assert_eq!(parse_wrk(&said), Some(bad));
        assert_eq!(parse_wrk("unable to connect"), None);
    }

    #[test]
    fn h2load_is_understood() {
        let said = "finished in 1.00s, 9000 req/s, 9MB/s\n\
                    requests: 9010 total, 9128 started, 9010 done, 9004 succeeded, 6 failed, 2 errored, 1 timeout\n\
                    status codes: 9004 2xx, 0 3xx, 5 4xx, 1 5xx\n";
        let expected = Answered {
            good: 9004,
            failed: 15,
        };
        assert_eq!(parse_h2load(said), Some(expected));
        assert_eq!(parse_h2load("connect failed"), None);
    }
}
