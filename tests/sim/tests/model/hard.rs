//! Steps in which the disk is full, or the machine stops: between two steps,
//! or in the middle of several requests.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use orlop_disk::Disk as _;
use orlop_disk::sim::{Crash, Fault, Plan};
use orlop_engine::{Algorithm, Error};

use crate::known::Upload;
use crate::run::{Outcome, Run, ensure};
use crate::steps::{OWNER, good, push, some_algorithm};
use crate::support::contents::Content;
use crate::support::world::{Left, folder, some_crash, some_left};

/// What a request that the machine stopped under was about.
enum Attempt {
    Commit(&'static Content, Algorithm),
    /// An upload, and the offset of its checkpoint.
    Checkpoint(usize, u64),
    Finish(usize),
    Cancel(usize),
}

/// Whether a request was answered well, and what a push said of "new".
type Answer = Result<(), Error>;

impl Run {
    /// A disk without room refuses pushes, loses nothing and poisons nothing.
    pub async fn full(&mut self) -> Outcome {
        let sim = self.world.sim.clone();
        let room = good("space", sim.space(&folder()).map_err(Error::from))?;
        let left = *self.random.pick(&[0, 4_096, 50_000, 300_000, 3_000_000]);
        sim.set_capacity(room.total - room.available + left);
        for _ in 0..4 {
            let content = self.some();
            let asked = some_algorithm(&mut self.random);
            let answer = if self.random.chance(50) {
                let digest = content.digest(asked);
                let put = self.store.put(content.bytes.clone(), digest, None).await;
                put.map(|_| ())
            } else {
                self.known.strays += 1;
                push(self.store.clone(), content, asked, 200_000)
                    .await
                    .map(|_| ())
            };
            match answer {
                Ok(()) => self.committed(content, &[asked]),
                Err(Error::Full { .. }) => self.counts.full += 1,
                Err(error) => return Err(format!("on a full disk: {error}")),
            }
        }
        if let Some(at) = self.some_upload() {
            self.append_full(at).await?;
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        let health = self.store.health().await;
        ensure!(
            health.poisoned.is_none(),
            "a full disk poisoned the store: {:?}",
            health.poisoned
        );
        sim.set_capacity(room.total);
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.put().await
    }

    /// An upload that finds no room stays at its durable offset.
    async fn append_full(&mut self, at: usize) -> Outcome {
        let now = self.now();
        let upload = &mut self.known.uploads[at];
        let mut taken = good("resume", self.store.upload_resume(upload.id, OWNER).await)?;
        ensure!(
            taken.offset() == upload.durable,
            "it goes on at {}",
            taken.offset()
        );
        let rest = upload.content.bytes.slice(upload.durable as usize..);
        let saved = match taken.append(rest).await {
            Ok(()) => taken.checkpoint().await,
            Err(error) => Err(error),
        };
        drop(taken);
        match saved {
            Ok(offset) => upload.durable = offset,
            Err(Error::Full { .. }) => self.counts.full += 1,
            Err(error) => return Err(format!("append on a full disk: {error}")),
        }
        upload.touched = now;
        let status = good("status", self.store.upload_status(upload.id, OWNER))?;
        ensure!(
            status == upload.durable,
            "status {status}, not {}",
            upload.durable
        );
        Ok(())
    }

    /// An orderly stop and a start, with the index or without.
    pub async fn reopen(&mut self, rebuild: bool) -> Outcome {
        self.count().await;
        good("close", self.store.close().await)?;
        self.known.named |= self.known.maybe_named;
        if rebuild {
            self.world.index = Default::default();
        }
        self.start().await
    }

    /// The machine stops between two requests.
    pub async fn crash(&mut self) -> Outcome {
        self.count().await;
        let crash = some_crash(&mut self.random);
        let left = some_left(&mut self.random);
        self.stop(crash, left).await
    }

    async fn stop(&mut self, crash: Crash, left: Left) -> Outcome {
        self.counts.crashes += 1;
        self.world.crash(crash, left);
        self.start()
            .await
            .map_err(|why| format!("after {crash:?} with the index {left:?}: {why}"))
    }

    /// Opens what is there and compares it.
    async fn start(&mut self) -> Outcome {
        self.store = good("open", self.world.open().await)?;
        let now = self.now();
        let before = std::mem::take(&mut self.known.uploads);
        self.known.restarted(now);
        for upload in before {
            match self.store.upload_status(upload.id, OWNER) {
                Ok(offset) if offset == upload.durable && offset > 0 => {
                    self.known.uploads.push(Upload {
                        touched: now,
                        ..upload
                    });
                }
                Err(Error::NotFound { .. }) if upload.durable == 0 => {}
                answer => {
                    let wanted = upload.durable;
                    return Err(format!("an upload durable up to {wanted}: {answer:?}"));
                }
            }
        }
        self.names_left().await?;
        self.check(25).await
    }

    /// A note that nobody answered for is there after a crash, or is not.
    async fn names_left(&mut self) -> Outcome {
        let names = good("names", self.store.names().await)?;
        self.known.named |= names.any && self.known.maybe_named;
        self.known.maybe_named &= self.known.named;
        Ok(())
    }

    /// The machine stops in the middle of several requests.
    pub async fn cut(&mut self) -> Outcome {
        self.count().await;
        let attempts = self.attempts();
        let crash = some_crash(&mut self.random);
        let left = some_left(&mut self.random);
        let after = self.random.below(30);
        self.world.sim.delay(30);
        self.world.sim.plan(Plan::new(Fault::PowerOff).after(after));
        let running = attempts.iter().map(|attempt| self.run(attempt));
        let answers = join_all(running).await;
        let mut unsure = Vec::new();
        for (attempt, answer) in attempts.into_iter().zip(answers) {
            match answer {
                Ok(()) => self.acknowledge(&attempt),
                Err(error) => unsure.push((attempt, error)),
            }
        }
        self.reconcile_after(unsure, crash, left).await
    }

    /// Up to four requests that touch different uploads.
    fn attempts(&mut self) -> Vec<Attempt> {
        let mut free: Vec<usize> = (0..self.known.uploads.len()).collect();
        let count = 1 + self.random.below(4);
        let mut attempts = Vec::new();
        for _ in 0..count {
            let kind = self.random.below(6);
            if kind < 3 || free.is_empty() {
                let asked = some_algorithm(&mut self.random);
                attempts.push(Attempt::Commit(self.some(), asked));
                continue;
            }
            let at = free.swap_remove(self.random.below(free.len() as u64) as usize);
            let upload = &self.known.uploads[at];
            let rest = upload.content.len() - upload.durable;
            let end = upload.durable + self.random.below(rest + 1);
            attempts.push(match kind {
                3 => Attempt::Checkpoint(at, end),
                4 => Attempt::Finish(at),
                _ => Attempt::Cancel(at),
            });
        }
        attempts
    }

    /// Carries a request out as far as the machine lets it.
    fn run<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match attempt {
                Attempt::Commit(content, asked) => {
                    let pushed = push(self.store.clone(), content, *asked, 100_000).await;
                    pushed.map(|_| ())
                }
                Attempt::Checkpoint(at, end) => {
                    let (upload, mut taken) = self.resume(*at).await?;
                    let range = upload.durable as usize..*end as usize;
                    taken.append(upload.content.bytes.slice(range)).await?;
                    taken.checkpoint().await.map(|_| ())
                }
                Attempt::Finish(at) => {
                    let (upload, mut taken) = self.resume(*at).await?;
                    let rest = upload.content.bytes.slice(upload.durable as usize..);
                    taken.append(rest).await?;
                    let digest = upload.content.sha256;
                    taken.commit(digest, None).await.map(|_| ())
                }
                Attempt::Cancel(at) => self.resume(*at).await?.1.cancel().await,
            }
        })
    }

    async fn resume(&self, at: usize) -> Result<(&Upload, orlop_engine::Upload), Error> {
        let upload = &self.known.uploads[at];
        let taken = self.store.upload_resume(upload.id, OWNER).await?;
        Ok((upload, taken))
    }

    /// Takes a good answer into the maps. An upload that ended is marked by
    /// an offset that none can have.
    fn acknowledge(&mut self, attempt: &Attempt) {
        match attempt {
            Attempt::Commit(content, asked) => self.committed(content, &[*asked]),
            Attempt::Checkpoint(at, end) => self.known.uploads[*at].durable = *end,
            Attempt::Finish(at) => {
                let upload = self.known.uploads[*at].clone();
                let further: Vec<_> = upload.also.into_iter().collect();
                self.committed(&upload.content, &further);
                self.known.uploads[*at].durable = ENDED;
            }
            Attempt::Cancel(at) => self.known.uploads[*at].durable = ENDED,
        }
    }

    /// Starts again and finds out what became of the requests that nobody
    /// answered: each was carried out wholly or not at all.
    async fn reconcile_after(
        &mut self,
        unsure: Vec<(Attempt, Error)>,
        crash: Crash,
        left: Left,
    ) -> Outcome {
        self.counts.crashes += 1;
        self.world.crash(crash, left);
        let place = format!("cut, then {crash:?} with the index {left:?}");
        let opened = self.world.open().await;
        self.store = opened.map_err(|error| format!("{place}: {error}"))?;
        let mut found = Vec::new();
        for (attempt, _) in &unsure {
            match attempt {
                Attempt::Commit(content, asked) => found.push(((*content).clone(), vec![*asked])),
                Attempt::Checkpoint(at, end) => {
                    let upload = &mut self.known.uploads[*at];
                    let old = upload.durable;
                    match self.store.upload_status(upload.id, OWNER) {
                        Ok(offset) if offset == old || offset == *end => {
                            // Its opening was kept, its first bytes were not.
                            self.known.empty += u64::from(offset == 0);
                            upload.durable = offset;
                        }
                        Err(Error::NotFound { .. }) if old == 0 => {}
                        answer => {
                            return Err(format!(
                                "{place}: durable up to {old} or {end}: {answer:?}"
                            ));
                        }
                    }
                }
                Attempt::Finish(at) | Attempt::Cancel(at) => {
                    let finish = matches!(attempt, Attempt::Finish(_));
                    let upload = self.known.uploads[*at].clone();
                    match self.store.upload_status(upload.id, OWNER) {
                        Ok(offset) if offset == upload.durable => {}
                        Err(Error::NotFound { .. }) => {
                            // The record that ends an upload makes the blob.
                            if finish && upload.durable > 0 {
                                good("ended", self.store.stat(&upload.content.sha256))?;
                            }
                            self.known.uploads[*at].durable = ENDED;
                        }
                        answer => return Err(format!("{place}: {answer:?}")),
                    }
                    if finish {
                        let further = upload.also.into_iter().collect();
                        found.push((upload.content, further));
                    }
                }
            }
        }
        self.known.uploads.retain(|upload| upload.durable != ENDED);
        for (content, further) in found {
            self.look(&content, &further)
                .await
                .map_err(|why| format!("{place}: {why}"))?;
        }
        self.look_back()
            .await
            .map_err(|why| format!("{place}: {why}"))
    }

    /// The rest of a start, on the store that is open.
    async fn look_back(&mut self) -> Outcome {
        let now = self.now();
        self.known.restarted(now);
        for upload in &self.known.uploads {
            let status = good("status", self.store.upload_status(upload.id, OWNER))?;
            ensure!(
                status == upload.durable,
                "an upload is durable up to {status}, not {}",
                upload.durable
            );
        }
        self.names_left().await?;
        self.check(25).await
    }
}

/// Marks an upload that ended.
const ENDED: u64 = u64::MAX;
