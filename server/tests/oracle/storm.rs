//! Several clients at once, each in its own repositories and with the layers of
//! all, while collections run back to back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::actor::Actor;
use crate::check;
use crate::model::{Collection, Kind, Model, Repo, Span};
use crate::random::Random;
use crate::server::{Server, now};
use crate::world::{How, LONG, Told, World};

impl World {
    /// So many steps in each repository; then everything is compared.
    pub(crate) async fn storm(mut self, steps: u64) -> World {
        let purges = self.server.rules.window < LONG;
        if purges {
            for repo in &mut self.model.repos {
                repo.doubt(self.server.rules.untagged.is_some());
            }
        }
        let from = now();
        let names: Vec<String> = self.model.repos.iter().map(|r| r.name.clone()).collect();
        let server = Arc::new(self.server);
        let mut clients = Vec::new();
        for (number, mut repo) in self.model.repos.drain(..).enumerate() {
            let (server, pool) = (Arc::clone(&server), Arc::clone(&self.pool));
            let mut random = Random::part(self.random.any(), number as u64);
            let mut dangling = self.model.dangling.clone();
            let others: Vec<String> = names
                .iter()
                .filter(|of| **of != repo.name)
                .cloned()
                .collect();
            clients.push(tokio::spawn(async move {
                for _ in 0..steps {
                    let mut actor = Actor {
                        server: &server,
                        pool: &pool,
                        repo: &mut repo,
                        random: &mut random,
                        dangling: &mut dangling,
                        others: &others,
                        beside: true,
                        purges,
                        any: server.rules.untagged.is_some(),
                    };
                    actor.step().await;
                }
                (repo, dangling)
            }));
        }
        let over = Arc::new(AtomicBool::new(false));
        let random = Random::part(self.random.any(), 0);
        let collector = tokio::spawn(collect(Arc::clone(&server), Arc::clone(&over), random));
        let mut failed = None;
        for client in clients {
            match client.await {
                Ok((repo, dangling)) => {
                    self.model.repos.push(repo);
                    self.model
                        .dangling
                        .retain(|digest| dangling.contains(digest));
                }
                Err(error) => failed = Some(error),
            }
        }
        over.store(true, Ordering::Relaxed);
        let told = collector.await.unwrap();
        if let Some(error) = failed {
            std::panic::resume_unwind(error.into_panic());
        }
        self.told.collections += told.collections;
        self.told.dead += told.dead;
        self.told.retired += told.retired;
        self.told.cancelled += told.cancelled;
        self.server = Arc::into_inner(server).unwrap();
        let window = if purges { Duration::ZERO } else { LONG };
        let at = Collection {
            at: Span { from, to: now() },
            window: i64::try_from(window.as_millis()).unwrap(),
            whole: false,
        };
        self.model.purge(at);
        check::retired(&self.server, &mut self.model, at, purges).await;
        unnamed_links(&mut self.model);
        check::blobs(&self.server, &self.pool, &mut self.model, false).await;
        self.names(true).await;
        self.collect(How::Normal).await;
        self.nothing_is_left().await;
        self
    }
}

/// A blob that no manifest names may have died with its links, and have come
/// back elsewhere.
fn unnamed_links(model: &mut Model) {
    for repo in &mut model.repos {
        let Repo { rows, links, .. } = repo;
        for (digest, is_sure) in links {
            *is_sure &= rows.values().filter(|row| row.sure).any(|row| {
                let is_blob = |edge: &&crate::model::Edge| edge.kind == Kind::Blob;
                row.edges
                    .iter()
                    .filter(is_blob)
                    .any(|edge| edge.digest == *digest)
            });
        }
    }
}

/// Collections back to back, some of them ended early.
async fn collect(server: Arc<Server>, over: Arc<AtomicBool>, mut random: Random) -> Told {
    let mut told = Told::default();
    while !over.load(Ordering::Relaxed) {
        let params = match random.below(10) {
            0 => r#"{"plan":true}"#,
            1 | 2 if server.rules.window < LONG => r#"{"undelete_window":0}"#,
            _ => "{}",
        };
        let id = server.job_start(params).await;
        if random.percent(20) {
            tokio::time::sleep(Duration::from_micros(random.below(40_000))).await;
            server.job_cancel(id).await;
        }
        let job = server.job_end(id).await;
        if job.state.name() == "cancelled" {
            told.cancelled += 1;
            continue;
        }
        let done = crate::server::outcome(&job);
        assert_eq!(done.bounded, 0);
        told.collections += 1;
        told.retired += done.retired;
        told.dead += if done.plan { 0 } else { done.dead };
    }
    told
}
