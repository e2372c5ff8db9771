//! Something done once for each of many numbers, over some connections at
//! once: how stores are filled. Nothing here is timed.

use crate::client::Connection;
use crate::error::{Error, Result};
use crate::load::runtime;
use crate::stop;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// Connections that fill a store.
const CONNECTIONS: u64 = 64;
/// Numbers between two lines of progress.
const PROGRESS: u64 = 20_000;

/// What is done for each number.
pub(crate) trait Task: Send + Sync + 'static {
    /// What the numbers count, for lines of progress.
    const WHAT: &'static str;

    /// Does it for `number`.
    fn run(
        &self,
        connection: &mut Connection,
        number: u64,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Runs `task` once for each number below `count`. The first failure ends all.
pub(crate) fn each<T: Task>(addr: SocketAddr, count: u64, task: &Arc<T>) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    runtime()?.block_on(async {
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS.min(count) {
            let connection = Connection::open(addr).await?;
            workers.spawn(work(Arc::clone(task), connection, Arc::clone(&next), count));
        }
        while let Some(done) = workers.join_next().await {
            done.map_err(|_| Error::Server("a client task ended".to_owned()))??;
        }
        Ok(())
    })
}

async fn work<T: Task>(
    task: Arc<T>,
    mut connection: Connection,
    next: Arc<AtomicU64>,
    count: u64,
) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        stop::check()?;
        task.run(&mut connection, number).await?;
        if number > 0 && number.is_multiple_of(PROGRESS) {
            eprintln!("orlop-bench: {number} of {count} {}", T::WHAT);
        }
    }
}
