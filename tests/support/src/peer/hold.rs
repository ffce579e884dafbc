//! Long connections: a message every 10 to 100 ms, and the same server must answer each.

use std::io;
use std::thread;
use std::time::Duration;

use super::connect::Run;

/// Exchanges messages until the time is over, the run is stopped, or the connection breaks.
pub(crate) fn hold(
    run: &Run,
    number: u64,
    backend: &str,
    mut exchange: impl FnMut(&str) -> io::Result<String>,
) -> io::Result<()> {
    // Different for each connection, so that they do not march in step.
    let pause = Duration::from_millis(10 + number * 37 % 91);
    let mut sent = 0_u64;
    while !run.stopped() && run.start.elapsed() < run.options.hold {
        thread::sleep(pause);
        let message = format!("{number}/{sent}\n");
        let answer = exchange(&message)?;
        run.message(is_answer(&answer, backend, message.trim_end()));
        sent += 1;
    }
    Ok(())
}

/// Whether the answer is from the server that greeted, and to this message.
fn is_answer(answer: &str, backend: &str, message: &str) -> bool {
    let mut words = answer.split_whitespace();
    words.next() == Some(backend) && words.next_back() == Some(message)
}

#[cfg(test)]
mod tests {
    use super::is_answer;

    #[test]
    fn an_answer_is_checked() {
        assert!(is_answer("web-1 3/0\n", "web-1", "3/0"));
        assert!(is_answer("web-1 10.0.0.1:4000 3/0", "web-1", "3/0"));
        assert!(!is_answer("web-2 3/0\n", "web-1", "3/0"));
        assert!(!is_answer("web-1 3/1\n", "web-1", "3/0"));
    }
}
