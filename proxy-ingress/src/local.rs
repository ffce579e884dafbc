//! Tasks stay on the thread of their worker.

use std::future::Future;

/// hyper's way to begin tasks of an HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
