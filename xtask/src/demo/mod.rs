//! `demo`: weir at work on one machine.

use anyhow::Result;

use crate::build;

/// What `demo` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Verify all that is shown, and fail if anything is not as it should be
    #[arg(long)]
    check: bool,
    /// Leave the nodes in place at the end, to play with
    #[arg(long)]
    keep: bool,
}

/// Builds weir and shows it.
pub(crate) fn run(args: &Args) -> Result<()> {
    build::all()?;
    anyhow::bail!(
        "there is nothing to show yet (check: {}, keep: {})",
        args.check,
        args.keep
    )
}
