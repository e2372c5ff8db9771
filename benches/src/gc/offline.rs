//! A peer's collector. It must not run beside pushes, so its server is made
//! read-only meanwhile, and tries to push are counted that were refused.

use super::report::Offline;
use super::shape::Shape;
use crate::client::Connection;
use crate::error::{Context as _, Error, Result};
use crate::load::runtime;
use crate::server::{self, CONFIG, DATA, Kind, Programs, READY_LIMIT, Server};
use crate::{contender, push};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Where both versions keep blobs in their data folder.
const BLOBS: &str = "docker/registry/v2/blobs/sha256";
/// Pause between two tries to push.
const TRY_PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether the collector has ended.
const LOOK: Duration = Duration::from_millis(5);
/// Repository that pushes are tried to.
const REPOSITORY: &str = "bench/gc-refused";

/// Fills a peer in `folder`, deletes half of it and lets its collector run.
pub(crate) fn measure(
    kind: Kind,
    programs: &Programs,
    folder: &Path,
    shape: Shape,
) -> Result<Offline> {
    let counts = shape.counts();
    let server = Server::start(kind, programs, folder, READY_LIMIT)?;
    let (fill_seconds, delete_seconds) = shape.make(&server)?;
    // Peers end with a failure on every signal. They write each file before
    // they answer.
    server.kill()?;
    contender::sync(folder)?;

    let before = blobs(folder)?;
    let server = Server::start_read_only(kind, programs, folder)?;
    let begin = Instant::now();
    let collector = collector(programs.find(kind)?, folder)?;
    let (ended, pushes_refused) = runtime()?.block_on(watch(&server, collector))?;
    let collect_seconds = (ended - begin).as_secs_f64();
    server.kill()?;
    let dead = before.saturating_sub(blobs(folder)?);
    if dead != counts.garbage {
        return Err(Error::Server(format!(
            "the collector removed {dead} blobs, and {} were garbage",
            counts.garbage
        )));
    }

    let server = Server::start(kind, programs, folder, READY_LIMIT)?;
    let verified = shape.verify(&server, true)?;
    server.kill()?;
    Ok(Offline {
        server: kind,
        counts,
        fill_seconds,
        delete_seconds,
        collect_seconds,
        dead,
        deaths_per_minute: dead as f64 / collect_seconds.max(1e-9) * 60.0,
        pushes_refused,
        verified,
    })
}

/// The collector's process, its output in a file.
fn collector(program: &Path, folder: &Path) -> Result<Child> {
    let path = folder.join("gc.log");
    let log = File::create(&path).context(|| format!("create {}", path.display()))?;
    let log_too = log.try_clone().context(|| "share a log file".to_owned())?;
    let mut command = server::bare(program);
    command.arg("garbage-collect").arg(folder.join(CONFIG));
    command.env("OTEL_TRACES_EXPORTER", "none");
    command.stdin(Stdio::null()).stdout(log).stderr(log_too);
    command
        .spawn()
        .context(|| format!("start {}", program.display()))
}

/// Tries to push until the collector has ended; returns when that was and how
/// many pushes were refused.
async fn watch(server: &Server, mut collector: Child) -> Result<(Instant, u64)> {
    let watched = async {
        let mut connection = Connection::open(server.addr).await?;
        let mut refused = 0;
        let mut next = Instant::now();
        loop {
            let status = collector.try_wait();
            if let Some(status) = status.context(|| "wait for a collector".to_owned())? {
                if status.success() {
                    return Ok((Instant::now(), refused));
                }
                let message = format!("the collector ended with {status}");
                return Err(Error::Server(message));
            }
            crate::stop::check()?;
            if Instant::now() >= next {
                if push::takes_pushes(&mut connection, REPOSITORY).await? {
                    let message = "a read-only server opened an upload beside its collector";
                    return Err(Error::Answer(message.to_owned()));
                }
                refused += 1;
                next = Instant::now() + TRY_PAUSE;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let result = watched.await;
    if result.is_err() {
        // Fails only when it has ended, which is what is wanted.
        collector.kill().ok();
        collector.wait().ok();
    }
    result
}

/// Number of blobs in a peer's folder.
fn blobs(folder: &Path) -> Result<u64> {
    let root = folder.join(DATA).join(BLOBS);
    let list = |path: &Path| fs::read_dir(path).context(|| format!("list {}", path.display()));
    let mut count = 0;
    for entry in list(&root)? {
        let entry = entry.context(|| format!("list {}", root.display()))?;
        for blob in list(&entry.path())? {
            let blob = blob.context(|| format!("list {}", entry.path().display()))?;
            count += u64::from(blob.path().join("data").is_file());
        }
    }
    Ok(count)
}
