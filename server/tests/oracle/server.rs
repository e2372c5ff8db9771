//! A storage in this process whose jobs run, and the verbs of a client on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use orlop::catalog::Job;
use orlop::collection::{GC, Outcome, Why};
use orlop::registry::{
    Digest, Error, Hidden, Maintenance, Pushed, Reference, Registry, RepositoryName, Subject, Tag,
};
use orlop::settings::Settings;
use orlop::storage::{self, Storage};
use orlop::supervisor::Supervisor;
use orlop_disk::blocking::Blocking;
use orlop_engine::Progress;

const WHO: Subject = Subject::Anonymous;
/// How long a job may take.
const JOB_TIME: Duration = Duration::from_secs(120);

/// How a storage is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) lease: Duration,
    pub(crate) window: Duration,
    pub(crate) untagged: Option<Duration>,
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Opens, without upkeep.
pub(crate) async fn open(folder: &Path, rules: &Rules) -> Storage {
    let settings = Settings {
        gc_lease: rules.lease,
        undelete_window: rules.window,
        untagged: rules.untagged.into(),
        space_reserve: Some(0),
        ..Settings::stopped(folder.to_owned())
    };
    let (disk, lock) = (Blocking::new(2).unwrap(), storage::lock(folder).unwrap());
    let progress = Progress::default();
    let opened = Storage::open(&settings, lock, disk, &progress);
    opened.await.unwrap()
}

/// A storage with its upkeep.
pub(crate) struct Server {
    pub(crate) folder: PathBuf,
    pub(crate) rules: Rules,
    pub(crate) storage: Arc<Storage>,
    registry: Registry,
    watch: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(folder: &Path, rules: Rules) -> Server {
        let storage = Arc::new(open(folder, &rules).await);
        let watched = Arc::clone(&storage);
        let watch = tokio::spawn(async move {
            let (maintenance, supervisor) = (Maintenance::default(), Supervisor::default());
            watched.watch(&maintenance, &supervisor).await;
        });
        Server {
            folder: folder.to_owned(),
            rules,
            registry: storage.registry(),
            storage,
            watch,
        }
    }

    pub(crate) async fn stop(self) {
        self.registry.settle().await;
        self.storage.close(std::future::ready(())).await.unwrap();
        self.watch.await.unwrap();
    }

    pub(crate) async fn restart(self) -> Server {
        let (folder, rules) = (self.folder.clone(), self.rules);
        self.stop().await;
        Server::start(&folder, rules).await
    }

    /// Waits until leases that were taken so far are over.
    pub(crate) async fn leases_end(&self) {
        tokio::time::sleep(self.rules.lease * 2 + Duration::from_millis(5)).await;
    }

    pub(crate) async fn job_start(&self, params: &str) -> i64 {
        let jobs = self.storage.jobs().unwrap();
        jobs.start(GC, params).await.unwrap().id
    }

    /// Ends a job, if it has not ended.
    pub(crate) async fn job_cancel(&self, id: i64) {
        let jobs = self.storage.jobs().unwrap();
        let _ = jobs.cancel(id).await;
    }

    pub(crate) async fn job_end(&self, id: i64) -> Job {
        let jobs = self.storage.jobs().unwrap();
        let began = std::time::Instant::now();
        while began.elapsed() < JOB_TIME {
            let job = jobs.show(id).await.unwrap();
            if job.ended_at.is_some() {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("job {id} did not end");
    }

    /// A job from its start to its end.
    pub(crate) async fn job(&self, params: &str) -> Outcome {
        let id = self.job_start(params).await;
        outcome(&self.job_end(id).await)
    }

    /// Whether the store has a blob, and what is known of it. No lease.
    pub(crate) async fn why(&self, digest: &Digest) -> Why {
        self.storage.gc().why(digest).await.unwrap()
    }

    pub(crate) async fn has(&self, digest: &Digest) -> bool {
        self.why(digest).await.size.is_some()
    }
}

/// What a job that has to be done came to.
pub(crate) fn outcome(job: &Job) -> Outcome {
    assert_eq!(job.state.name(), "done", "{}", job.outcome);
    serde_json::from_str(&job.outcome).unwrap()
}

pub(crate) fn name(of: &str) -> RepositoryName {
    RepositoryName::parse(of).unwrap()
}

/// What clients do. Each gives back what the registry answered.
impl Server {
    /// Uploads a blob, in one piece or in several.
    pub(crate) async fn upload(
        &self,
        repository: &str,
        digest: Digest,
        bytes: &Bytes,
        pieces: usize,
    ) -> Result<(), Error> {
        let (name, registry) = (name(repository), &self.registry);
        let whole = stream::iter([Ok(bytes.clone())]).boxed();
        if pieces <= 1 {
            return registry.upload_whole(WHO, &name, whole, digest).await;
        }
        let also = Some(digest.algorithm());
        let id = registry.upload_start(WHO, &name, also)?;
        let first = bytes.slice(..bytes.len() / 2);
        let rest = bytes.slice(first.len()..);
        let first = stream::iter([Ok(first)]).boxed();
        registry.upload_append(WHO, &name, id, None, first).await?;
        let rest = stream::iter([Ok(rest)]).boxed();
        let finished = registry.upload_finish(WHO, &name, id, None, rest, digest);
        finished.await
    }

    /// Begins an upload that is cancelled, or left alone.
    pub(crate) async fn upload_given_up(
        &self,
        repository: &str,
        bytes: &Bytes,
        cancel: bool,
    ) -> Result<(), Error> {
        let (name, registry) = (name(repository), &self.registry);
        let id = registry.upload_start(WHO, &name, None)?;
        let body = stream::iter([Ok(bytes.clone())]).boxed();
        registry.upload_append(WHO, &name, id, None, body).await?;
        if cancel {
            registry.upload_cancel(WHO, &name, id).await?;
        }
        Ok(())
    }

    pub(crate) async fn blob_size(&self, repository: &str, digest: &Digest) -> Result<u64, Error> {
        self.registry
            .blob_stat(WHO, &name(repository), digest)
            .await
    }

    pub(crate) async fn blob(&self, repository: &str, digest: &Digest) -> Result<Bytes, Error> {
        let name = name(repository);
        let opened = self.registry.blob_open(WHO, &name, digest);
        Ok(opened.await?.bytes(1 << 24).await?)
    }

    pub(crate) async fn mount(
        &self,
        repository: &str,
        from: Option<&str>,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let from = from.map(name);
        let name = name(repository);
        let mounted = self
            .registry
            .blob_mount(WHO, &name, from.as_ref(), digest)
            .await?;
        Ok(mounted)
    }

    pub(crate) async fn blob_delete(&self, repository: &str, digest: &Digest) -> Result<(), Error> {
        let name = name(repository);
        self.registry.blob_delete(WHO, &name, digest).await
    }

    pub(crate) async fn push(
        &self,
        repository: &str,
        reference: &Reference,
        kind: &str,
        bytes: &Bytes,
    ) -> Result<Pushed, Error> {
        let name = name(repository);
        let room = self.registry.manifest_room(WHO, &name, bytes.len())?;
        let pushed = self.registry.manifest_push(
            WHO,
            &name,
            (reference, &[]),
            Some(kind),
            (bytes.clone(), room),
        );
        pushed.await
    }

    pub(crate) async fn stat(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<Digest, Error> {
        let row = self
            .registry
            .manifest_stat(WHO, &name(repository), reference)
            .await?;
        Ok(row.digest)
    }

    pub(crate) async fn pull(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<(Digest, Bytes), Error> {
        let name = name(repository);
        let pulled = self.registry.manifest_pull(WHO, &name, reference).await?;
        Ok((pulled.row.digest, pulled.content.bytes(1 << 24).await?))
    }

    pub(crate) async fn delete(&self, repository: &str, digest: &Digest) -> Result<(), Error> {
        let name = name(repository);
        self.registry.manifest_delete(WHO, &name, digest).await
    }

    pub(crate) async fn untag(&self, repository: &str, tag: &str) -> Result<(), Error> {
        let (name, tag) = (name(repository), Tag::parse(tag).unwrap());
        self.registry.tag_delete(WHO, &name, &tag).await
    }

    pub(crate) async fn undelete(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<Hidden, Error> {
        let name = name(repository);
        let back = self.registry.undelete(Subject::Operator, &name, reference);
        back.await
    }

    pub(crate) async fn tags(&self, repository: &str) -> Vec<String> {
        let listed = self
            .registry
            .tag_list(WHO, &name(repository), None, None)
            .await;
        match listed {
            Ok(page) => page.entries,
            Err(Error::NameUnknown) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn referrers(&self, repository: &str, subject: &Digest) -> Vec<Digest> {
        let name = name(repository);
        let listed = self
            .registry
            .referrer_list(WHO, &name, subject, None, None, None);
        let page = listed.await.unwrap();
        page.entries.iter().map(|entry| entry.digest).collect()
    }
}
