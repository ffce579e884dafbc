//! What operators see: answers of the running process, as tables or as JSON.

mod explain;
mod lists;

use anyhow::{Result, ensure};
use proxy_daemon::answer;
use proxy_daemon::table::Table;
use serde::Serialize;

pub use self::explain::explain;
pub use self::lists::{certificates, conflicts, endpoints, routes};
use crate::admin::Question;
use crate::admin::socket::ask;
use crate::config::{AskFlags, Output, ReadyFlags};

/// An error if clients are not taken.
pub fn ready(flags: &ReadyFlags) -> Result<()> {
    let ready: bool = ask(&flags.admin_socket, &Question::Ready)?;
    ensure!(
        ready,
        "clients are not taken: not everything has been read yet, or it ends"
    );
    Ok(())
}

/// Prints an answer.
fn show<T: Serialize>(flags: &AskFlags, rows: &[T], what: &str, table: impl FnOnce() -> Table) -> Result<()> {
    if flags.output == Output::Json {
        return Ok(answer::print_json(&rows)?);
    }
    if rows.is_empty() {
        eprintln!("no {what}");
    }
    Ok(answer::print(&table().render(!flags.no_headers))?)
}
