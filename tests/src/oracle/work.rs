//! What the oracle's threads do, and in which mixture.
//!
//! Each thread has a repository of its own, so that what must be there follows
//! from the order of its lines. Blobs with an odd seed may be deleted and are
//! used by nothing; the others stay, are used by manifests, and are mounted by
//! other threads. Some content is pushed by all threads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::content::{Content, Held};
use super::journal::{self, Attempt, Journal};
use super::model::Model;
use super::steps::{self, End, Hand, Session, Step};
use crate::client::Client;
use crate::random::Random;

/// Contents that all threads push.
const POPULAR: u64 = 12;
/// Blobs, manifests and sessions that a thread keeps in mind.
const KEPT: usize = 400;
/// Bytes of the blobs that fill the journal.
const FILL: usize = 64_000;
/// Sessions that a thread leaves open at a time.
const SESSIONS: usize = 6;
const TAGS: [&str; 8] = ["latest", "v1", "v2", "v3", "edge", "a", "b", "c"];

/// What stays in each repository, for mounts.
type Common = Mutex<Vec<(String, Content)>>;

/// Works on a server until that is gone. False when something was answered
/// that must never be.
#[must_use]
pub fn work(server: SocketAddr, path: &Path, seed: u64, threads: u64) -> bool {
    let model = Model::of(&journal::read(path));
    let journal = Journal::open(path);
    let client = Client::new(server);
    let common = Common::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let hand = Hand {
                    client: client.clone(),
                    journal: &journal,
                    repository: format!("crash/{number}"),
                };
                let mut worker = Worker::new(hand, &common, &model, seed, number);
                scope.spawn(move || worker.run())
            })
            .collect();
        let mut right = true;
        for worker in workers {
            right &= worker.join().is_ok_and(|end| end == End::Gone);
        }
        right
    })
}

/// Pushes small blobs that the journal carries, until there are so many: a
/// store that has seen some use, whose journal is recycled. False when one was
/// refused.
#[must_use]
pub fn fill(server: SocketAddr, path: &Path, seed: u64, threads: u64, count: u64) -> bool {
    let journal = Journal::open(path);
    let client = Client::new(server);
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let worker = || {
            let hand = Hand {
                client: client.clone(),
                journal: &journal,
                repository: "crash/fill".to_owned(),
            };
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return true;
                }
                let seed = seed.wrapping_add(number);
                if hand.post(Content { seed, size: FILL }).is_err() {
                    return false;
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut right = true;
        for worker in workers {
            right &= worker.join().unwrap_or(false);
        }
        right
    })
}

struct Worker<'a> {
    hand: Hand<'a>,
    common: &'a Common,
    random: Random,
    seed: u64,
    blobs: Vec<Content>,
    loose: Vec<Content>,
    deleted: Vec<Content>,
    manifests: BTreeMap<String, Held>,
    /// Children of indexes, which must stay.
    used: BTreeSet<String>,
    tags: BTreeMap<String, String>,
    sessions: Vec<Session>,
}

impl<'a> Worker<'a> {
    fn new(hand: Hand<'a>, common: &'a Common, model: &Model, seed: u64, number: u64) -> Self {
        let mut worker = Worker {
            random: Random::part(seed, number + 1),
            seed,
            common,
            blobs: Vec::new(),
            loose: Vec::new(),
            deleted: Vec::new(),
            manifests: BTreeMap::new(),
            used: BTreeSet::new(),
            tags: BTreeMap::new(),
            sessions: Vec::new(),
            hand,
        };
        worker.remember(model);
        worker
    }

    /// Goes on with what the journal says of the own repository.
    fn remember(&mut self, model: &Model) {
        let own = self.hand.repository.clone();
        for ((repository, digest), state) in &model.blobs {
            let known = model.contents.get(digest);
            if let Some(content) = known
                && *repository == own
                && state.is_sure()
            {
                match (state.sure, content.seed % 2) {
                    (true, 0) => self.keep(*content),
                    (true, _) => self.loose.push(*content),
                    (false, _) => self.deleted.push(*content),
                }
            }
        }
        for ((repository, digest), state) in &model.held {
            if let Some(held) = model.manifests.get(digest)
                && *repository == own
                && state.is_sure()
                && state.sure
            {
                self.used.extend(held.children());
                self.manifests.insert(digest.clone(), held.clone());
            }
        }
        for ((repository, tag), state) in &model.tags {
            if let Some(digest) = &state.sure
                && *repository == own
                && state.is_sure()
            {
                self.tags.insert(tag.clone(), digest.clone());
            }
        }
        for (number, upload) in &model.uploads {
            if let Some(location) = &upload.location
                && upload.repository == own
            {
                self.sessions.push(Session {
                    number: *number,
                    content: upload.content,
                    location: location.clone(),
                    offset: upload.acknowledged,
                });
            }
        }
    }

    fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.step() {
                return end;
            }
        }
    }

    fn step(&mut self) -> Step<()> {
        match self.random.below(100) {
            0..22 => self.push(),
            22..27 => self.popular(),
            27..40 => self.session(),
            40..46 => self.resume(),
            46..52 => self.mount(),
            52..66 => self.image(),
            66..70 => self.index(),
            70..75 => self.referrer(),
            75..80 => self.retag(),
            80..84 => self.delete_tag(),
            84..88 => self.delete_manifest(),
            88..92 => self.delete_blob(),
            92..94 => self.push_deleted(),
            _ => self.read(),
        }
    }

    /// Content that nobody has; even seeds stay.
    fn fresh(&mut self) -> Content {
        Content::of(self.random.any())
    }

    /// A blob that stays.
    fn keep(&mut self, content: Content) {
        let own = self.hand.repository.clone();
        let mut common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
        common.push((own, content));
        self.blobs.push(content);
        if self.blobs.len() > KEPT {
            self.blobs.remove(0);
        }
    }

    fn came(&mut self, content: Content) {
        if content.seed.is_multiple_of(2) {
            self.keep(content);
        } else {
            self.loose.push(content);
        }
    }

    fn push(&mut self) -> Step<()> {
        let content = self.fresh();
        if self.random.percent(30) {
            self.hand.post(content)?;
        } else {
            self.hand.push(content)?;
        }
        self.came(content);
        Ok(())
    }

    /// What other threads push at the same time.
    fn popular(&mut self) -> Step<()> {
        let seed = self.seed.wrapping_add(self.random.below(POPULAR)) << 1;
        let content = Content::of(seed);
        self.hand.push(content)?;
        self.came(content);
        Ok(())
    }

    /// A session in chunks, which is ended, or left open.
    fn session(&mut self) -> Step<()> {
        let seed = self.random.any();
        let size = 1 + self.random.index(900_000);
        let mut session = self.hand.open(Content { seed, size })?;
        let chunks = self.random.below(4);
        for _ in 0..chunks {
            self.chunk(&mut session)?;
        }
        if self.random.percent(60) || self.sessions.len() >= SESSIONS {
            self.hand.finish(&session)?;
            self.came(session.content);
        } else {
            self.sessions.push(session);
        }
        Ok(())
    }

    fn chunk(&mut self, session: &mut Session) -> Step<()> {
        let left = session.content.size - session.offset;
        if left == 0 {
            return Ok(());
        }
        let to = session.offset + 1 + self.random.index(left);
        let ranged = self.random.percent(50);
        self.hand.chunk(session, to, ranged)
    }

    /// Goes on with a session of before, perhaps of before a crash.
    fn resume(&mut self) -> Step<()> {
        if self.sessions.is_empty() {
            return self.session();
        }
        let at = self.random.index(self.sessions.len());
        let mut session = self.sessions.swap_remove(at);
        self.hand.status(&mut session)?;
        self.chunk(&mut session)?;
        if self.random.percent(50) {
            self.hand.finish(&session)?;
            self.came(session.content);
        } else {
            self.sessions.push(session);
        }
        Ok(())
    }

    fn mount(&mut self) -> Step<()> {
        let from = {
            let common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
            self.random.one(&common).cloned()
        };
        match from {
            Some((repository, content)) if repository != self.hand.repository => {
                self.hand.mount(&repository, content)?;
                self.keep(content);
                Ok(())
            }
            _ => self.push(),
        }
    }

    fn put(&mut self, held: Held, tag: Option<&str>) -> Step<()> {
        let digest = self.hand.put(&held, tag)?;
        self.used.extend(held.children());
        if let Some(tag) = tag {
            self.tags.insert(tag.to_owned(), digest.clone());
        }
        self.manifests.insert(digest, held);
        Ok(())
    }

    fn tag(&mut self) -> Option<&'static str> {
        let tag = self.random.one(&TAGS).copied();
        tag.filter(|_| self.random.percent(75))
    }

    fn image(&mut self) -> Step<()> {
        let Some(config) = self.random.one(&self.blobs).copied() else {
            return self.push();
        };
        let count = self.random.below(4);
        let layers: Vec<Content> = (0..count)
            .filter_map(|_| self.random.one(&self.blobs).copied())
            .collect();
        let held = steps::image(config, &layers, self.random.any());
        let tag = self.tag();
        self.put(held, tag)
    }

    fn any_manifest(&mut self) -> Option<(String, Held)> {
        if self.manifests.is_empty() {
            return None;
        }
        let at = self.random.index(self.manifests.len());
        let entry = self.manifests.iter().nth(at);
        entry.map(|(digest, held)| (digest.clone(), held.clone()))
    }

    fn index(&mut self) -> Step<()> {
        let children: Vec<(String, Held)> = (0..2).filter_map(|_| self.any_manifest()).collect();
        if children.is_empty() {
            return self.image();
        }
        let held = steps::index(&children, self.random.any());
        let tag = self.tag();
        self.put(held, tag)
    }

    fn referrer(&mut self) -> Step<()> {
        let file = self.random.one(&self.blobs).copied();
        let (Some(file), Some((digest, subject))) = (file, self.any_manifest()) else {
            return self.image();
        };
        let held = steps::artifact(file, (&digest, &subject), self.random.any());
        self.put(held, None)
    }

    fn retag(&mut self) -> Step<()> {
        let Some((_, held)) = self.any_manifest() else {
            return self.image();
        };
        let tag = self.random.one(&TAGS).copied();
        self.put(held, tag)
    }

    fn delete_tag(&mut self) -> Step<()> {
        let names: Vec<String> = self.tags.keys().cloned().collect();
        let Some(tag) = self.random.one(&names) else {
            return self.image();
        };
        let own = self.hand.repository.clone();
        self.hand.delete(Attempt::TagGone(own, tag.clone()))?;
        self.tags.remove(tag);
        Ok(())
    }

    fn delete_manifest(&mut self) -> Step<()> {
        let Some((digest, held)) = self.any_manifest() else {
            return self.image();
        };
        if self.used.contains(&digest) {
            return self.hand.read_manifest(&held, &digest);
        }
        let own = self.hand.repository.clone();
        self.hand
            .delete(Attempt::ManifestGone(own, digest.clone()))?;
        self.tags.retain(|_, to| *to != digest);
        self.manifests.remove(&digest);
        // Pushed again at once, sometimes: a new life of the same bytes.
        if self.random.percent(25) {
            return self.put(held, None);
        }
        Ok(())
    }

    fn delete_blob(&mut self) -> Step<()> {
        if self.loose.is_empty() {
            return self.push();
        }
        let at = self.random.index(self.loose.len());
        let content = self.loose.swap_remove(at);
        let own = self.hand.repository.clone();
        self.hand.delete(Attempt::BlobGone(own, content.digest()))?;
        self.deleted.push(content);
        Ok(())
    }

    fn push_deleted(&mut self) -> Step<()> {
        let Some(content) = self.deleted.pop() else {
            return self.push();
        };
        self.hand.push(content)?;
        self.came(content);
        Ok(())
    }

    fn read(&mut self) -> Step<()> {
        if self.random.percent(40)
            && let Some((digest, held)) = self.any_manifest()
        {
            return self.hand.read_manifest(&held, &digest);
        }
        let Some(content) = self.random.one(&self.blobs).copied() else {
            return self.push();
        };
        let from = match content.size {
            0 | 1 => 0,
            _ if self.random.percent(50) => 0,
            size => self.random.index(size),
        };
        self.hand.read(content, from)
    }
}
