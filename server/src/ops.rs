//! The pages of the ops port: health, and `/metrics`.
//!
//! It is up while the store recovers and while requests are drained. What it
//! tells of store and catalog is there as long as they are open.
//!
//! Refuses to know: the distribution API, which is not on this port.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use orlop_engine::FindingCode;

use crate::api::{self, Answer, AnswerBody, ApiError, Readiness};
use crate::catalog::JobState;
use crate::commands::version::VERSION;
use crate::jobs::SCRUB;
use crate::metrics::{Http, Kind, Process, Text, Verbs};
use crate::storage::{Observed, Storage};
use crate::supervisor::Supervisor;

/// Methods of every page.
const METHODS: &[Method] = &[Method::GET, Method::HEAD];

/// What moves bytes to and from the disk, and why it does.
#[derive(Debug)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Why it was chosen.
    pub why: String,
}

/// Where everything that is published comes from. Clones share it.
#[derive(Clone)]
pub struct Ops(Arc<Inner>);

struct Inner {
    http: Arc<Http>,
    verbs: Arc<Verbs>,
    supervisor: Supervisor,
    process: Process,
    backend: Backend,
    /// There while it is open.
    storage: RwLock<Option<Arc<Storage>>>,
}

impl Ops {
    /// Nothing counted so far, no storage open.
    pub fn new(backend: Backend) -> Ops {
        Ops(Arc::new(Inner {
            http: Arc::default(),
            verbs: Arc::default(),
            supervisor: Supervisor::default(),
            process: Process::start(),
            backend,
            storage: RwLock::default(),
        }))
    }

    /// Where requests and connections are counted.
    pub fn http(&self) -> Arc<Http> {
        Arc::clone(&self.0.http)
    }

    /// Where verbs of the registry are counted.
    pub fn verbs(&self) -> Arc<Verbs> {
        Arc::clone(&self.0.verbs)
    }

    /// Who keeps the server's loops alive, and counts how often that was needed.
    pub fn supervisor(&self) -> Supervisor {
        self.0.supervisor.clone()
    }

    /// Says which storage is open now.
    pub fn watch(&self, storage: Option<Arc<Storage>>) {
        let mut current = self
            .0
            .storage
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = storage;
    }

    /// Answers a request on the ops port.
    ///
    /// # Errors
    /// There is no such page, or it has no such method.
    pub async fn handle(
        &self,
        readiness: &dyn Readiness,
        head: &Parts,
    ) -> Result<Answer, ApiError> {
        if let Some(answer) = api::health(readiness, head).await {
            return Ok(answer);
        }
        if head.uri.path() != "/metrics" {
            return Err(ApiError::not_found());
        }
        if !METHODS.contains(&head.method) {
            return Err(ApiError::method_not_allowed(METHODS));
        }
        let text = self.text(readiness).await;
        let mut answer = Response::new(AnswerBody::full(Bytes::from(text)));
        let headers = answer.headers_mut();
        let kind = HeaderValue::from_static(Text::MEDIA_TYPE);
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        Ok(answer)
    }

    async fn text(&self, readiness: &dyn Readiness) -> String {
        let mut text = Text::default();
        let inner = &self.0;
        text.info(
            "orlop_build_info",
            "The version of this server.",
            &[("version", VERSION)],
        );
        text.info(
            "orlop_disk_backend_info",
            "What moves bytes to and from the disk, and why.",
            &[
                ("backend", &inner.backend.name),
                ("reason", &inner.backend.why),
            ],
        );
        text.is(
            "orlop_ready",
            "Whether pulls are served, as /readyz says.",
            api::is_ready(readiness).await,
        );
        text.is(
            "orlop_read_only",
            "Whether an operator switched writes off.",
            readiness.read_only().is_some(),
        );
        inner.http.write(&mut text);
        inner.verbs.write(&mut text);
        let storage = inner
            .storage
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let observed = match storage {
            Some(storage) => Some(storage.observe().await),
            None => None,
        };
        const RESTARTS: &str = "orlop_upkeep_restarts_total";
        let help = "How often a task of the upkeep panicked and was started again.";
        text.family(RESTARTS, help, Kind::Counter);
        let of_catalog = observed
            .iter()
            .flat_map(|observed| &observed.catalog_restarts);
        for (task, restarts) in inner.supervisor.restarts().iter().chain(of_catalog) {
            text.sample(RESTARTS, &[("task", task)], restarts);
        }
        if let Some(observed) = &observed {
            write_store(&mut text, observed);
            write_catalog(&mut text, observed);
            write_scrub(&mut text, observed);
            write_jobs(&mut text, observed);
            write_gc(&mut text, observed);
        }
        inner.process.write(&mut text);
        text.finish()
    }
}

fn write_store(text: &mut Text, observed: &Observed) {
    let (health, counts) = (&observed.store, &observed.store.counts);
    for (name, help, is_so) in [
        (
            "orlop_poisoned",
            "Whether nothing is written until a restart, since a write failed or what writes panicked.",
            health.poisoned.is_some() || observed.is_catalog_poisoned,
        ),
        (
            "orlop_full",
            "Whether pushes are refused for want of space.",
            health.full,
        ),
        (
            "orlop_unpaired",
            "Whether pushes are refused because the catalog is not the store's.",
            observed.is_unpaired,
        ),
    ] {
        text.is(name, help, is_so);
    }
    const WRITING: &str = "orlop_write_under_way_seconds";
    let help = "Since what is being written now was begun; 0 when nothing is.";
    text.family(WRITING, help, Kind::Gauge);
    for (part, since) in [
        ("store", health.writing),
        ("catalog", observed.catalog_writing),
    ] {
        text.sample(WRITING, &[("part", part)], since.as_secs_f64());
    }
    for (name, help, value) in [
        (
            "orlop_space_available_bytes",
            "Bytes available on the file system of the data folder.",
            health.available,
        ),
        (
            "orlop_space_reserved_bytes",
            "Available bytes below which pushes are refused.",
            health.reserve,
        ),
        (
            "orlop_uploads_open",
            "Upload sessions in memory.",
            health.uploads,
        ),
        (
            "orlop_cache_bytes",
            "Bytes of hot content in memory.",
            health.cached,
        ),
        (
            "orlop_index_memory_bytes",
            "Bytes of memory that the index holds: its cache, and what it did not write out yet.",
            health.index_memory,
        ),
        (
            "orlop_store_opened",
            "How often the store was opened so far.",
            health.epoch,
        ),
    ] {
        text.gauge(name, help, value);
    }
    for (name, help, value) in [
        (
            "orlop_cache_hits_total",
            "Pages and small blobs found in memory.",
            counts.cache_hits,
        ),
        (
            "orlop_cache_misses_total",
            "Pages and small blobs that had to be read from the disk.",
            counts.cache_misses,
        ),
        (
            "orlop_disk_page_reads_total",
            "Reads of content from the disk.",
            counts.page_reads,
        ),
        (
            "orlop_disk_extent_bytes_total",
            "Bytes of content written to segments.",
            counts.extent_bytes,
        ),
        (
            "orlop_journal_groups_total",
            "Groups written to the journal, each with one sync.",
            counts.groups,
        ),
        (
            "orlop_journal_records_total",
            "Records in these groups.",
            counts.records,
        ),
        (
            "orlop_journal_bytes_total",
            "Bytes written to the journal.",
            counts.journal_bytes,
        ),
        (
            "orlop_journal_recycled_total",
            "Journal files recycled.",
            counts.recycled,
        ),
        (
            "orlop_blobs_deduplicated_total",
            "Blobs and manifests pushed that were stored already.",
            counts.duplicates,
        ),
        (
            "orlop_blobs_deduplicated_bytes_total",
            "Bytes of them, which were not stored again.",
            counts.duplicate_bytes,
        ),
        (
            "orlop_blobs_quarantined_total",
            "Blobs set aside because they were found damaged.",
            counts.quarantined,
        ),
    ] {
        text.counter(name, help, value);
    }
    text.counter(
        "orlop_journal_sync_seconds_total",
        "Time that syncs of the journal took.",
        counts.sync_time.as_secs_f64(),
    );
}

fn write_catalog(text: &mut Text, observed: &Observed) {
    let counts = &observed.catalog;
    for (name, help, value) in [
        (
            "orlop_catalog_verbs_total",
            "Changes of the catalog that were kept.",
            counts.verbs,
        ),
        (
            "orlop_catalog_commits_total",
            "Transactions that carried them.",
            counts.commits,
        ),
        (
            "orlop_catalog_checkpoints_total",
            "Times the catalog's write-ahead file was emptied.",
            counts.checkpoints,
        ),
        (
            "orlop_catalog_cache_hits_total",
            "Lookups of names answered from memory.",
            counts.hits,
        ),
        (
            "orlop_catalog_cache_misses_total",
            "Lookups of names that asked the database.",
            counts.misses,
        ),
        (
            "orlop_pull_statistics_written_total",
            "Pulls whose count and time went into the catalog.",
            observed.pulls.written,
        ),
        (
            "orlop_pull_statistics_dropped_total",
            "Pulls that were not counted for want of memory.",
            observed.pulls.dropped,
        ),
    ] {
        text.counter(name, help, value);
    }
    text.gauge(
        "orlop_catalog_queue",
        "Changes that wait for the catalog's writer.",
        counts.queued,
    );
    text.gauge(
        "orlop_catalog_sequence",
        "The number of the last change.",
        observed.sequence,
    );
}

fn write_scrub(text: &mut Text, observed: &Observed) {
    let counts = &observed.store.counts;
    text.counter(
        "orlop_scrub_bytes_total",
        "Bytes that scrubs read.",
        counts.scrub_bytes,
    );
    text.counter(
        "orlop_scrub_frames_total",
        "Extents and groups that scrubs verified.",
        counts.scrub_frames,
    );
    const FINDINGS: &str = "orlop_scrub_findings_total";
    text.family(FINDINGS, "What scrubs found, by code.", Kind::Counter);
    for (code, count) in FindingCode::ALL.iter().zip(counts.scrub_findings) {
        text.sample(FINDINGS, &[("code", code.name())], count);
    }
}

fn write_jobs(text: &mut Text, observed: &Observed) {
    const AGE: &str = "orlop_job_heartbeat_age_seconds";
    let help = "Since the last sign of life of a running job, by kind; 0 when none runs.";
    text.family(AGE, help, Kind::Gauge);
    for (kind, age) in &observed.job_ages {
        text.sample(AGE, &[("kind", kind)], age);
    }
    let Some(jobs) = &observed.jobs else { return };
    let is_running = |row: &&(String, JobState, u64)| row.0 == SCRUB && row.1 == JobState::Running;
    let running = jobs.counts.iter().find(is_running);
    text.is(
        "orlop_scrub_running",
        "Whether a scrub runs.",
        running.is_some_and(|row| row.2 > 0),
    );
    let done = jobs.done.iter().find(|row| row.0 == SCRUB);
    text.gauge(
        "orlop_scrub_last_success_timestamp_seconds",
        "When the last scrub came to its end; 0 when none did.",
        done.map_or(0, |row| row.1 / 1000),
    );
    const JOBS: &str = "orlop_jobs";
    text.family(JOBS, "Jobs, by kind and state.", Kind::Gauge);
    for (kind, state, count) in &jobs.counts {
        let labels = [("kind", kind.as_str()), ("state", state.name())];
        text.sample(JOBS, &labels, count);
    }
}

fn write_gc(text: &mut Text, observed: &Observed) {
    let (counts, gc) = (&observed.store.counts, &observed.gc);
    for (name, help, value) in [
        (
            "orlop_gc_blobs_total",
            "Blobs that collections ended.",
            counts.collected,
        ),
        (
            "orlop_gc_bytes_total",
            "Bytes of them.",
            counts.collected_bytes,
        ),
        (
            "orlop_gc_freed_bytes_total",
            "Bytes that went back to the file system.",
            gc.freed,
        ),
        (
            "orlop_gc_moved_bytes_total",
            "Bytes that were copied to join segments of which little lived.",
            counts.moved_bytes,
        ),
        (
            "orlop_gc_cycles_total",
            "Cycles of collection that came to their end.",
            gc.cycles,
        ),
        (
            "orlop_gc_purged_manifests_total",
            "Deleted manifests whose rows were purged.",
            gc.purged,
        ),
    ] {
        text.counter(name, help, value);
    }
    for (name, help, value) in [
        (
            "orlop_gc_paused",
            "Whether an operator has paused collection.",
            u64::from(gc.is_paused),
        ),
        (
            "orlop_gc_last_blobs",
            "Blobs that there were in the last cycle.",
            gc.last.blobs,
        ),
        (
            "orlop_gc_last_live_blobs",
            "Those of them that a name reached.",
            gc.last.live,
        ),
        (
            "orlop_gc_condemned_blobs",
            "Those of them that die in the next cycle unless they are used.",
            gc.last.condemned,
        ),
        (
            "orlop_gc_condemned_bytes",
            "Bytes of them.",
            gc.last.condemned_bytes,
        ),
        (
            "orlop_gc_bounded_blobs",
            "Those of them that stayed since no delete explains them and more were to die than may in one cycle.",
            gc.last.bounded,
        ),
        (
            "orlop_gc_last_success_timestamp_seconds",
            "When the last cycle came to its end; 0 when none did since the start.",
            gc.ended_at.unsigned_abs() / 1000,
        ),
    ] {
        text.gauge(name, help, value);
    }
    if let Some(space) = &observed.space {
        for (name, help, value) in [
            (
                "orlop_segments_live_bytes",
                "Bytes of segments that blobs and uploads refer to.",
                space.live,
            ),
            (
                "orlop_segments_reclaimable_bytes",
                "Bytes of closed segments that nothing refers to and that take room.",
                space.dead,
            ),
            (
                "orlop_segments_released_bytes",
                "Bytes of holes: what was given back of segments that are there.",
                space.released,
            ),
            ("orlop_segments", "Segments that are there.", space.segments),
        ] {
            text.gauge(name, help, value);
        }
    }
    text.gauge(
        "orlop_gc_last_seconds",
        "How long it took.",
        gc.took.as_secs_f64(),
    );
}
