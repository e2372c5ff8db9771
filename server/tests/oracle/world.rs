//! One store through many steps of one client, with collections, restarts and
//! restored catalogs between them: after each of those the whole of it is
//! compared with the model.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orlop::registry::{Error, Unpaired};
use tempfile::TempDir;

use crate::actor::Actor;
use crate::check;
use crate::model::{Collection, Model, Span};
use crate::pool::Pool;
use crate::random::Random;
use crate::server::{Rules, Server, name, now, open, outcome};

/// The catalog's file, and what may be beside it.
const CATALOG: [&str; 3] = ["catalog.db", "catalog.db-wal", "catalog.db-shm"];
/// Copies of the catalog that a store keeps, at most.
const COPIES: u64 = 2;
/// A window that no test sees the end of.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A catalog of an older day.
struct Saved {
    folder: TempDir,
    sequence: u64,
    model: Model,
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) server: Server,
    pub(crate) pool: Arc<Pool>,
    pub(crate) model: Model,
    pub(crate) random: Random,
    saved: Option<Saved>,
    pub(crate) told: Told,
}

/// What came to pass.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) collections: u64,
    pub(crate) dead: u64,
    pub(crate) retired: u64,
    pub(crate) purged: u64,
    pub(crate) cancelled: u64,
    pub(crate) restarts: u64,
    pub(crate) restored: u64,
    pub(crate) held: u64,
    pub(crate) dangling: u64,
}

/// A folder for a test's data: in memory where there is such a place, since
/// nothing here depends on what is durable.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if std::env::var_os("TMPDIR").is_none() && memory.is_dir() {
        return TempDir::new_in(memory).unwrap();
    }
    TempDir::new().unwrap()
}

/// Copies the catalog's files, in place of what is there.
fn replace(from: &Path, to: &Path) {
    for file in CATALOG {
        let _ = std::fs::remove_file(to.join(file));
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

/// What a job is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Normal,
    /// Without an undelete window.
    Now,
    /// Ended at some moment.
    Cancelled,
    /// The storage is closed meanwhile, and goes on when it is opened.
    Restarted,
}

impl World {
    pub(crate) async fn new(rules: Rules, random: Random, names: &[&str]) -> World {
        let folder = folder();
        World {
            server: Server::start(folder.path(), rules).await,
            folder,
            pool: Arc::new(Pool::new()),
            model: Model::new(names),
            random,
            saved: None,
            told: Told::default(),
        }
    }

    /// A step of a client, or of an operator.
    pub(crate) async fn step(mut self) -> World {
        match self.random.below(1000) {
            0..=29 => self.collect(How::Normal).await,
            30..=35 => self.collect(How::Now).await,
            36..=41 => self.plan().await,
            42..=48 => self.collect(How::Cancelled).await,
            49..=52 => return self.collect_over_a_restart().await,
            53..=55 => return self.restart().await,
            56..=58 => return self.save().await,
            59..=61 => return self.restore().await,
            62..=63 => return self.held().await,
            _ => self.act().await,
        }
        self
    }

    async fn act(&mut self) {
        let at = self.random.index(self.model.repos.len());
        let names: Vec<String> = self.model.repos.iter().map(|r| r.name.clone()).collect();
        let others: Vec<String> = names
            .iter()
            .filter(|of| **of != names[at])
            .cloned()
            .collect();
        let mut actor = Actor {
            server: &self.server,
            pool: &self.pool,
            repo: &mut self.model.repos[at],
            random: &mut self.random,
            dangling: &mut self.model.dangling,
            others: &others,
            beside: false,
            purges: false,
            any: false,
        };
        actor.step().await;
    }

    fn window(&self, how: How) -> i64 {
        match how {
            How::Now => 0,
            _ => i64::try_from(self.server.rules.window.as_millis()).unwrap(),
        }
    }

    pub(crate) async fn act_often(&mut self, steps: u64) {
        for _ in 0..steps {
            self.act().await;
        }
    }

    pub(crate) async fn collect(&mut self, how: How) {
        let moment = Duration::from_micros(self.random.below(25_000));
        let whole = self.collect_until(how, moment).await == "done";
        if whole && self.random.percent(20) {
            self.nothing_is_left().await;
        }
    }

    /// Cancels a collection after so long. How it ended.
    pub(crate) async fn cancel_after(&mut self, moment: Duration) -> &'static str {
        self.collect_until(How::Cancelled, moment).await
    }

    async fn collect_until(&mut self, how: How, moment: Duration) -> &'static str {
        self.server.leases_end().await;
        let from = now();
        let params = match how {
            How::Now => r#"{"undelete_window":0}"#,
            _ => "{}",
        };
        let id = self.server.job_start(params).await;
        if how == How::Cancelled {
            tokio::time::sleep(moment).await;
            self.server.job_cancel(id).await;
        }
        let job = self.server.job_end(id).await;
        let whole = how != How::Cancelled || job.state.name() == "done";
        if whole {
            let done = outcome(&job);
            self.told.dead += done.dead;
            self.told.retired += done.retired;
            self.told.purged += done.purged[1];
            assert_eq!(done.bounded, 0);
        } else {
            assert_eq!(job.state.name(), "cancelled", "{}", job.outcome);
            self.told.cancelled += 1;
        }
        self.told.collections += 1;
        self.after(how, from, whole).await;
        job.state.name()
    }

    /// The model goes on past jobs that were run one after another.
    pub(crate) async fn jobs_since(&mut self, from: i64) {
        self.after(How::Restarted, from, true).await;
        check::blobs(&self.server, &self.pool, &mut self.model, true).await;
        self.names(true).await;
    }

    /// The model goes on past a collection and is compared.
    async fn after(&mut self, how: How, from: i64, whole: bool) {
        let at = Collection {
            at: Span { from, to: now() },
            window: self.window(how),
            whole,
        };
        let is_again = matches!(how, How::Now | How::Restarted) || !whole;
        self.model.purge(at);
        check::retired(&self.server, &mut self.model, at, is_again).await;
        // After a start all leases of before are in doubt.
        let is_strict = whole && how != How::Restarted;
        check::blobs(&self.server, &self.pool, &mut self.model, is_strict).await;
        let all = self.random.percent(10);
        self.names(all).await;
    }

    pub(crate) async fn names(&mut self, all: bool) {
        let (pool, random) = (Arc::clone(&self.pool), &mut self.random);
        check::names(&self.server, &pool, &mut self.model, random, all).await;
    }

    /// Another collection finds as many blobs as the model has.
    pub(crate) async fn nothing_is_left(&mut self) {
        self.server.leases_end().await;
        let from = now();
        let done = self.server.job("{}").await;
        self.after(How::Normal, from, true).await;
        if let Some(count) = check::count(&self.model)
            && !done.idle
            && done.dead == 0
        {
            // The store keeps copies of the catalog, as blobs of its own.
            let is_right = (count..=count + COPIES).contains(&done.blobs);
            assert!(is_right, "{count} blobs are known: {done:?}");
        }
    }

    /// A plan says what would go, and nothing goes.
    async fn plan(&mut self) {
        self.server.leases_end().await;
        let here = self.here().await;
        let from = now();
        let is_now = self.random.percent(50);
        let params = if is_now {
            r#"{"plan":true,"undelete_window":0}"#
        } else {
            r#"{"plan":true}"#
        };
        let done = self.server.job(params).await;
        assert_eq!((done.purged, done.retired), ([0; 4], 0));
        assert_eq!(self.here().await, here, "a plan deleted something");
        let mut then = self.model.clone();
        then.purge(Collection {
            at: Span { from, to: now() },
            window: self.window(if is_now { How::Now } else { How::Normal }),
            whole: true,
        });
        if check::count(&then).is_some() && self.model.dangling.is_empty() {
            let may = then.may_live();
            let garbage = here.iter().filter(|digest| !may.contains_key(digest));
            let would = done.condemned + done.dead;
            assert_eq!(would, garbage.count() as u64, "{done:?}");
        }
    }

    /// The known contents that are in the store.
    async fn here(&self) -> Vec<orlop::registry::Digest> {
        let mut here = Vec::new();
        let known = self.pool.blobs().map(|blob| blob.sha256);
        for digest in known.chain(self.model.manifests()) {
            if self.server.has(&digest).await {
                here.push(digest);
            }
        }
        here
    }

    async fn restart(mut self) -> World {
        self.server = self.server.restart().await;
        self.told.restarts += 1;
        self.names(false).await;
        self
    }

    async fn collect_over_a_restart(mut self) -> World {
        self.server.leases_end().await;
        let from = now();
        let id = self.server.job_start("{}").await;
        for _ in 0..=self.random.below(3) {
            tokio::time::sleep(Duration::from_micros(self.random.below(25_000))).await;
            self.server = self.server.restart().await;
            self.told.restarts += 1;
        }
        let done = outcome(&self.server.job_end(id).await);
        self.told.dead += done.dead;
        self.told.collections += 1;
        self.after(How::Restarted, from, true).await;
        self
    }

    /// Something holds collection up, as a catalog does that repair made without
    /// some names: nothing goes, until an operator says that it is right.
    async fn held(mut self) -> World {
        let (folder, rules) = (self.server.folder.clone(), self.server.rules);
        self.server.stop().await;
        let options = sqlx::sqlite::SqliteConnectOptions::new();
        let options = options.filename(folder.join("catalog.db"));
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let sql = "UPDATE catalog SET gc_hold = 'names are missing'";
        sqlx::query(sql).execute(&pool).await.unwrap();
        pool.close().await;
        self.server = Server::start(&folder, rules).await;
        self.told.restarts += 1;
        self.server.leases_end().await;
        let here = self.here().await;
        for params in ["{}", r#"{"undelete_window":0,"unlimited":true}"#] {
            let id = self.server.job_start(params).await;
            let job = self.server.job_end(id).await;
            assert_eq!(job.state.name(), "failed", "{}", job.outcome);
            assert!(job.outcome.contains("names are missing"), "{}", job.outcome);
        }
        assert_eq!(self.here().await, here, "a collection that is held deleted");
        self.names(false).await;
        self.server.leases_end().await;
        let from = now();
        let done = self.server.job(r#"{"release":true}"#).await;
        self.told.dead += done.dead;
        self.told.collections += 1;
        self.told.held += 1;
        self.after(How::Normal, from, true).await;
        self
    }

    /// Keeps a copy of the catalog.
    pub(crate) async fn save(mut self) -> World {
        let (folder, rules) = (self.server.folder.clone(), self.server.rules);
        self.server.stop().await;
        let copy = self::folder();
        replace(&folder, copy.path());
        self.server = Server::start(&folder, rules).await;
        self.saved = Some(Saved {
            folder: copy,
            sequence: self.server.storage.catalog().1,
            model: self.model.clone(),
        });
        self
    }

    /// Puts the catalog of an older day back, and adopts it.
    pub(crate) async fn restore(mut self) -> World {
        let Some(saved) = self.saved.take() else {
            return self;
        };
        let newest = self.server.storage.catalog().1;
        if newest == saved.sequence {
            self.saved = Some(saved);
            return self;
        }
        let (folder, rules) = (self.server.folder.clone(), self.server.rules);
        self.server.stop().await;
        replace(saved.folder.path(), &folder);
        self.server = Server::start(&folder, rules).await;
        self.refuses(&saved.model).await;
        let before = std::mem::replace(&mut self.model, saved.model);
        self.server.stop().await;
        let mut storage = open(&folder, &rules).await;
        assert_eq!(storage.adopt().await.unwrap(), Some(Unpaired::Older));
        storage.close(std::future::pending()).await.unwrap();
        drop(storage);
        self.server = Server::start(&folder, rules).await;
        self.adopted(&before).await;
        self
    }

    /// A catalog that is older than one before is served, and nothing is
    /// written or collected.
    async fn refuses(&self, saved: &Model) {
        assert!(
            self.server.storage.jobs().is_none(),
            "it would be collected"
        );
        let blob = &self.pool.layers[1];
        let repository = &saved.repos[0].name;
        let pushed = self.server.upload(repository, blob.sha256, &blob.bytes, 1);
        assert_eq!(pushed.await, Err(Error::Unpaired(Unpaired::Older)));
        let untagged = self.server.untag(repository, "t0").await;
        assert_eq!(untagged, Err(Error::Unpaired(Unpaired::Older)));
        let (now, then) = (self.model.must_live(), saved.must_live());
        for digest in now.values().flatten() {
            assert!(self.server.has(digest).await, "{digest} died at a restore");
        }
        for repo in &saved.repos {
            for (digest, row) in repo.visible().filter(|(_, row)| row.sure) {
                if !now.contains_key(&row.sha256) || !then.contains_key(&row.sha256) {
                    continue;
                }
                let reference = orlop::registry::Reference::Digest(*digest);
                let pulled = self.server.pull(&repo.name, &reference).await;
                let (_, bytes) = pulled.unwrap_or_else(|error| {
                    panic!("{}@{digest} is not served: {error}", name(&repo.name))
                });
                assert_eq!(bytes, row.bytes);
            }
        }
    }

    /// What the catalog names and died since is known to be gone; the rest is
    /// to live on.
    async fn adopted(&mut self, before: &Model) {
        let lived = before.must_live();
        let mut dangling = std::collections::BTreeSet::new();
        for (sha256, digests) in self.model.may_live() {
            let mut is_here = true;
            for digest in digests {
                is_here &= self.server.has(&digest).await;
            }
            if !is_here {
                let is_lost = lived.contains_key(&sha256) && !self.server.has(&sha256).await;
                assert!(!is_lost, "{sha256} lived and died at a restore");
                dangling.insert(sha256);
            }
        }
        self.told.restored += 1;
        self.told.dangling += dangling.len() as u64;
        // What was pulled meanwhile is not known.
        self.model.floor = now();
        for repo in &mut self.model.repos {
            for row in repo.rows.values_mut() {
                row.sure &= row.hidden.is_some() || !dangling.contains(&row.sha256);
            }
        }
        self.model.dangling = dangling;
        self.model.buried.extend(before.manifests());
        check::blobs(&self.server, &self.pool, &mut self.model, false).await;
        self.names(true).await;
    }

    /// The end: everything is compared, and fsck finds nothing.
    pub(crate) async fn end(mut self) -> Told {
        self.collect(How::Now).await;
        self.collect(How::Now).await;
        self.names(true).await;
        self.server.stop().await;
        check::fsck(self.folder.path());
        self.told
    }
}
