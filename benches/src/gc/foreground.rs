//! Pulls and pushes beside each other: for some seconds, or as long as
//! something else takes. Any answer but the expected ones is an error.

use super::report::{Figures, Foreground};
use super::shape::Shape;
use crate::client::Connection;
use crate::error::{Error, Result};
use crate::load::{self, Plan, Tally, Work, runtime};
use crate::payload::Payload;
use crate::push::{self, BlobPush, ImagePush};
use crate::server::Server;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Connections that pull.
pub(crate) const PULLS: usize = 8;
/// Connections that push.
pub(crate) const PUSHES: usize = 4;
/// Repository that is pushed to.
const REPOSITORY: &str = "bench/gc-load";
/// Size of each layer that is pushed, in bytes.
const LAYER_SIZE: u64 = 4096;
/// Load before the first figures.
const WARM_UP: Duration = Duration::from_secs(1);
/// No collection takes longer.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// Load on one server.
pub(crate) struct Traffic {
    pulls: Arc<Work>,
    pushes: Arc<Work>,
    budget: Arc<AtomicU64>,
}

impl Traffic {
    /// Prepares pulls of what stays and pushes of new images, and warms up.
    pub(crate) fn prepare(server: &Server, shape: Shape, max_disk: u64) -> Result<Traffic> {
        let config = runtime()?.block_on(async {
            let mut connection = Connection::open(server.addr).await?;
            push::push_bytes(&mut connection, REPOSITORY, b"{}").await
        })?;
        let layers = BlobPush::new(REPOSITORY, Payload::new(LAYER_SIZE));
        let traffic = Traffic {
            pulls: Arc::new(Work::Get(shape.pulled())),
            pushes: Arc::new(Work::Image(ImagePush::new(layers, config))),
            budget: Arc::new(AtomicU64::new(max_disk)),
        };
        traffic.during(server, WARM_UP)?;
        Ok(traffic)
    }

    /// Pulls and pushes for so long.
    pub(crate) fn during(&self, server: &Server, length: Duration) -> Result<Foreground> {
        let (figures, ()) = self.run(server, length, || Ok(()), false)?;
        Ok(figures)
    }

    /// Pulls and pushes as long as `work` takes.
    pub(crate) fn beside<T>(
        &self,
        server: &Server,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(Foreground, T)> {
        self.run(server, LONGEST, work, true)
    }

    fn run<T>(
        &self,
        server: &Server,
        length: Duration,
        work: impl FnOnce() -> Result<T>,
        ends: bool,
    ) -> Result<(Foreground, T)> {
        let ended = Arc::new(AtomicBool::new(false));
        let round = |work: &Arc<Work>, connections| {
            let plan = Plan {
                connections,
                threads: 1,
                duration: length,
            };
            let tally = load::round_until(work, server.addr, plan, &self.budget, &ended);
            // The other one does not go on alone.
            if tally.is_err() {
                ended.store(true, Ordering::Relaxed);
            }
            tally
        };
        let cpu = server.cpu_time()?;
        let (pulls, pushes, done) = std::thread::scope(|scope| {
            let pulls = scope.spawn(|| round(&self.pulls, PULLS));
            let pushes = scope.spawn(|| round(&self.pushes, PUSHES));
            let done = work();
            if ends {
                ended.store(true, Ordering::Relaxed);
            }
            (pulls.join(), pushes.join(), done)
        });
        let lost = |_| Error::Server("a client thread panicked".to_owned());
        // What ended the load says more than what was cut off by it.
        let (pulls, pushes) = (pulls.map_err(lost)??, pushes.map_err(lost)??);
        let done = done?;
        self.verify(server, &pushes)?;
        let cpu = server.cpu_time()?.saturating_sub(cpu);
        let figures = Foreground {
            pulls: figures(&pulls),
            pushes: figures(&pushes),
            server_cpu_seconds: cpu.as_secs_f64(),
        };
        Ok((figures, done))
    }

    /// Reads back and compares an image that was pushed.
    fn verify(&self, server: &Server, pushes: &Tally) -> Result<()> {
        let Some((path, digest)) = &pushes.last else {
            let message = "no push was answered while a load ran: nothing can be verified";
            return Err(Error::Answer(message.to_owned()));
        };
        runtime()?.block_on(async {
            let mut connection = Connection::open(server.addr).await?;
            push::verify(&mut connection, path, digest).await
        })
    }
}

fn figures(tally: &Tally) -> Figures {
    let ms = |quantile| tally.latency.quantile(quantile) as f64 / 1e6;
    let (requests, seconds) = (tally.latency.count(), tally.elapsed.as_secs_f64());
    Figures {
        requests,
        seconds,
        rate: requests as f64 / seconds.max(1e-9),
        p50_ms: ms(0.50),
        p99_ms: ms(0.99),
        max_ms: ms(1.0),
        cut_short: tally.cut_short,
    }
}
