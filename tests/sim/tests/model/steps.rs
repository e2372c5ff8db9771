//! Steps on a machine that is well: every answer is known before.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join_all, poll_fn};
use futures_util::{FutureExt, StreamExt};
use orlop_engine::{Algorithm, CatalogMatch, Digest, Error, Invalid, Store};

use crate::known::{Held, Upload};
use crate::run::{Outcome, Run, ensure};
use crate::support::contents::{self, Content};
use crate::support::random::Random;
use crate::support::world::LEASE;

/// Who owns the uploads.
pub const OWNER: &str = "owner";

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];

/// An answer that must be good.
pub fn good<T>(what: &str, answer: Result<T, Error>) -> Outcome<T> {
    answer.map_err(|error| format!("{what}: {error}"))
}

pub fn some_algorithm(random: &mut Random) -> Algorithm {
    *random.pick(&[
        Algorithm::Sha256,
        Algorithm::Sha256,
        Algorithm::Sha512,
        Algorithm::Blake3,
    ])
}

/// Pushes a content in pieces of a size; `true` when it was new.
pub async fn push(
    store: Store,
    content: &Content,
    asked: Algorithm,
    piece: usize,
) -> Result<bool, Error> {
    let id = store.upload_open("pusher", None)?;
    let mut upload = store.upload_resume(id, "pusher").await?;
    for piece in content.bytes.chunks(piece) {
        upload.append(content.bytes.slice_ref(piece)).await?;
    }
    let done = upload.commit(content.digest(asked), None).await?;
    Ok(done.new)
}

impl Run {
    pub async fn put(&mut self) -> Outcome {
        let content = self.some();
        let asked = some_algorithm(&mut self.random);
        let note = self.random.chance(30).then(|| vec![7; 40]);
        self.known.maybe_named |= note.is_some();
        let noted = note.is_some();
        let absent = !self.known.blobs.contains_key(&content.sha256);
        let digest = content.digest(asked);
        let done = self.store.put(content.bytes.clone(), digest, note).await;
        let done = good("put", done)?;
        ensure!(
            (done.digest, done.size, done.new) == (digest, content.len(), absent),
            "{done:?}, absent before: {absent}"
        );
        self.committed(content, &[asked]);
        self.known.named |= noted;
        Ok(())
    }

    pub fn committed(&mut self, content: &Content, further: &[Algorithm]) {
        let now = self.now();
        self.known.commit(content, further, now);
        self.counts.commits += 1;
    }

    pub async fn push(&mut self) -> Outcome {
        let content = self.some();
        let asked = some_algorithm(&mut self.random);
        let piece = *self
            .random
            .pick(&[1_000, 65_536, 65_537, 300_000, 5_000_000]);
        let piece = piece.max(content.bytes.len() / 50);
        let absent = !self.known.blobs.contains_key(&content.sha256);
        let new = good(
            "push",
            push(self.store.clone(), content, asked, piece).await,
        )?;
        ensure!(new == absent, "new is {new}, absent before: {absent}");
        self.committed(content, &[asked]);
        Ok(())
    }

    pub fn open(&mut self) -> Outcome {
        if self.known.uploads.len() >= 8 {
            return Ok(());
        }
        let content = self.some().clone();
        let algorithm = *self.random.pick(&ALGORITHMS);
        let also = self.random.chance(50).then_some(algorithm);
        let id = good("open", self.store.upload_open(OWNER, also))?;
        self.known.uploads.push(Upload {
            id,
            content,
            also,
            durable: 0,
            touched: self.now(),
        });
        Ok(())
    }

    /// The place of any upload.
    pub fn some_upload(&mut self) -> Option<usize> {
        let count = self.known.uploads.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    /// Sends a part of an upload, durable or not.
    pub async fn append(&mut self) -> Outcome {
        let Some(at) = self.some_upload() else {
            return Ok(());
        };
        let durable = self.random.chance(75);
        let part = *self
            .random
            .pick(&[0, 1, 700, 4_096, 30_000, 65_537, 200_000, 1_500_000]);
        let now = self.now();
        let upload = &mut self.known.uploads[at];
        let mut taken = good("resume", self.store.upload_resume(upload.id, OWNER).await)?;
        ensure!(
            taken.offset() == upload.durable,
            "it goes on at {}, not at {}",
            taken.offset(),
            upload.durable
        );
        let again = self.store.upload_resume(upload.id, OWNER).await;
        ensure!(
            matches!(again, Err(Error::Busy { .. })),
            "two at once: {again:?}"
        );
        let end = (upload.durable + part).min(upload.content.len());
        let bytes = upload
            .content
            .bytes
            .slice(upload.durable as usize..end as usize);
        for piece in bytes.chunks(250_000) {
            good("append", taken.append(bytes.slice_ref(piece)).await)?;
        }
        if durable {
            let offset = good("checkpoint", taken.checkpoint().await)?;
            ensure!(offset == end, "durable up to {offset}, not {end}");
            upload.durable = end;
        }
        drop(taken);
        upload.touched = now;
        let status = good("status", self.store.upload_status(upload.id, OWNER))?;
        ensure!(
            status == upload.durable,
            "status {status}, not {}",
            upload.durable
        );
        Ok(())
    }

    pub async fn finish(&mut self) -> Outcome {
        let Some(at) = self.some_upload() else {
            return Ok(());
        };
        let upload = self.known.uploads.swap_remove(at);
        let asked = some_algorithm(&mut self.random);
        let mut taken = good("resume", self.store.upload_resume(upload.id, OWNER).await)?;
        ensure!(
            taken.offset() == upload.durable,
            "it goes on at {}, not at {}",
            taken.offset(),
            upload.durable
        );
        let rest = upload.content.bytes.slice(upload.durable as usize..);
        good("append", taken.append(rest).await)?;
        let absent = !self.known.blobs.contains_key(&upload.content.sha256);
        let digest = upload.content.digest(asked);
        let done = good("commit", taken.commit(digest, None).await)?;
        ensure!(
            (done.size, done.new) == (upload.content.len(), absent),
            "{done:?}"
        );
        let mut further = vec![asked];
        further.extend(upload.also);
        self.committed(&upload.content, &further);
        self.gone(&upload)
    }

    fn gone(&self, upload: &Upload) -> Outcome {
        let status = self.store.upload_status(upload.id, OWNER);
        ensure!(
            matches!(status, Err(Error::NotFound { .. })),
            "it has ended: {status:?}"
        );
        Ok(())
    }

    pub async fn cancel(&mut self) -> Outcome {
        let Some(at) = self.some_upload() else {
            return Ok(());
        };
        let upload = self.known.uploads.swap_remove(at);
        let taken = good("resume", self.store.upload_resume(upload.id, OWNER).await)?;
        good("cancel", taken.cancel().await)?;
        self.gone(&upload)
    }

    /// A commit under the digest of other bytes ends the upload.
    pub async fn mismatch(&mut self) -> Outcome {
        let Some(at) = self.some_upload() else {
            return Ok(());
        };
        let upload = self.known.uploads.swap_remove(at);
        let taken = good("resume", self.store.upload_resume(upload.id, OWNER).await)?;
        let wrong = Digest::of(Algorithm::Sha256, b"other bytes");
        let answer = taken.commit(wrong, None).await;
        let refused = matches!(answer, Err(Error::Invalid(Invalid::DigestMismatch { .. })));
        ensure!(refused, "{answer:?}");
        let stat = self.store.stat(&wrong);
        ensure!(matches!(stat, Err(Error::NotFound { .. })), "{stat:?}");
        self.gone(&upload)
    }

    /// Another owner's upload is not there.
    pub async fn stranger(&mut self) -> Outcome {
        let Some(at) = self.some_upload() else {
            return Ok(());
        };
        let id = self.known.uploads[at].id;
        let status = self.store.upload_status(id, "stranger");
        ensure!(matches!(status, Err(Error::NotFound { .. })), "{status:?}");
        let taken = self.store.upload_resume(id, "stranger").await;
        ensure!(matches!(taken, Err(Error::NotFound { .. })), "{taken:?}");
        Ok(())
    }

    /// The reaper ends what nobody asked for, and nothing else.
    pub async fn expire(&mut self) -> Outcome {
        tokio::time::advance(Duration::from_secs(self.random.below(900))).await;
        let idle = Duration::from_secs(600);
        let now = self.now();
        let is_old = |upload: &Upload| now - upload.touched >= idle;
        let (old, young): (Vec<_>, Vec<_>) = self.known.uploads.drain(..).partition(is_old);
        self.known.uploads = young;
        let ended = good("expire", self.store.upload_expire(idle).await)?;
        // Requests that went away left uploads of their own.
        let most = old.len() as u64 + self.known.strays + self.known.empty;
        ensure!(
            (old.len() as u64..=most).contains(&ended),
            "{ended} were ended, not {} to {most}",
            old.len()
        );
        for upload in &old {
            self.gone(upload)?;
        }
        for upload in &mut self.known.uploads {
            let status = good("status", self.store.upload_status(upload.id, OWNER))?;
            ensure!(
                status == upload.durable,
                "status {status}, not {}",
                upload.durable
            );
            upload.touched = now;
        }
        Ok(())
    }

    /// Any digest that is known.
    fn some_digest(&mut self) -> Option<Digest> {
        let known = self.known.digests.keys();
        let here: Vec<&Digest> = known
            .filter(|digest| self.known.resolve(digest).is_some())
            .collect();
        let at = self.random.below(here.len() as u64) as usize;
        here.get(at).map(|digest| **digest)
    }

    pub async fn read(&mut self) -> Outcome {
        let Some(digest) = self.some_digest() else {
            return Ok(());
        };
        let Some((_, blob)) = self.known.resolve(&digest) else {
            return Err(format!("the maps have no {digest}"));
        };
        let bytes = blob.bytes.clone();
        let len = bytes.len() as u64;
        let (mut from, mut to) = (0, len);
        if self.random.chance(70) {
            from = self.random.below(len + 1);
            let most = *self.random.pick(&[1, 5_000, 70_000, 3_000_000]);
            to = from + self.random.below((len - from).min(most) + 1);
        }
        let opened = good("read", self.store.read(&digest))?;
        ensure!(opened.size() == len, "size {}, not {len}", opened.size());
        // What lies behind the end is cut off.
        let beyond = if to == len { 1_000 } else { 0 };
        let mut stream = opened.stream(from..to + beyond);
        let mut found = Vec::new();
        while let Some(piece) = stream.next().await {
            found.extend_from_slice(&good("stream", piece)?);
        }
        ensure!(
            found == bytes[from as usize..to as usize],
            "{from}..{to} of {digest}, {len} bytes, are others"
        );
        let now = self.now();
        self.known.used(&digest, now);
        self.counts.reads += 1;
        Ok(())
    }

    pub fn stat(&mut self) -> Outcome {
        let content = self.some();
        for algorithm in ALGORITHMS {
            let digest = content.digest(algorithm);
            let known = self.known.resolve(&digest).is_some();
            match self.store.stat(&digest) {
                Ok(stat) if known => {
                    ensure!(stat.size == content.len(), "size {}", stat.size);
                }
                Err(Error::NotFound { .. }) if !known => {}
                answer => return Err(format!("{digest}, known: {known}: {answer:?}")),
            }
            let now = self.now();
            self.known.used(&digest, now);
        }
        Ok(())
    }

    /// Pins some, or lets go of a pin.
    pub fn pin(&mut self) -> Outcome {
        if !self.known.pins.is_empty() && self.random.chance(50) {
            let count = self.known.pins.len() as u64;
            let at = self.random.below(count) as usize;
            drop(self.known.pins.swap_remove(at));
        } else {
            let wanted: Vec<Digest> = (0..4)
                .map(|_| {
                    let algorithm = some_algorithm(&mut self.random);
                    self.some().digest(algorithm)
                })
                .collect();
            let (pin, found) = good("pin", self.store.pin(&wanted))?;
            let mut held = Vec::new();
            for (digest, found) in wanted.iter().zip(found) {
                let size = found.map(|found| found.size);
                let known = self.known.resolve(digest);
                let len = known.map(|(_, blob)| blob.bytes.len() as u64);
                ensure!(size == len, "pinned {digest} with {size:?}, not {len:?}");
                match known {
                    Some((sha256, _)) => held.push(*sha256),
                    None if digest.algorithm() == Algorithm::Sha256 => held.push(*digest),
                    // A further digest of a blob that died goes on naming it.
                    None => held.extend(self.known.digests.get(digest)),
                }
            }
            self.known.pins.push((pin, held));
        }
        self.known.count_pins();
        self.leases()
    }

    fn leases(&self) -> Outcome {
        let now = self.now();
        for (digest, blob) in &self.known.blobs {
            let held = good("held", self.store.held(digest))?;
            match self.known.held(blob, now) {
                Held::Yes => ensure!(held, "{digest} is promised and not held"),
                Held::No => ensure!(!held, "{digest} is held by nobody's promise"),
                Held::Either => {}
            }
        }
        Ok(())
    }

    pub fn note(&mut self) -> Outcome {
        self.known.maybe_named = true;
        good("note", self.store.note(vec![3; 200]))
    }

    /// Notes enough to fill half a journal file.
    pub async fn notes(&mut self) -> Outcome {
        for _ in 0..34 {
            self.note_of(60_000)?;
            tokio::task::yield_now().await;
        }
        self.put().await
    }

    fn note_of(&mut self, len: usize) -> Outcome {
        self.known.maybe_named = true;
        good("note", self.store.note(vec![5; len]))
    }

    pub async fn copy(&mut self) -> Outcome {
        let content = &contents::all()[self.random.below(30) as usize];
        let id = [1 + self.random.below(2) as u8; 16];
        let sequence = self.random.below(1_000);
        let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        std::fs::write(file.path(), &content.bytes).map_err(|error| error.to_string())?;
        let copied = self.store.catalog_copy(file.path(), id, sequence).await;
        good("copy", copied)?;
        self.committed(content, &[]);
        (self.known.named, self.known.maybe_named) = (true, true);
        self.known.copies.push((content.sha256, sequence));
        let extra = self.known.copies.len().saturating_sub(2);
        self.known.copies.drain(..extra);
        Ok(())
    }

    pub async fn catalog(&mut self) -> Outcome {
        let id = [1 + self.random.below(2) as u8; 16];
        let sequence = self.random.below(1_000);
        if self.random.chance(25) {
            good("adopt", self.store.catalog_adopt(id, sequence).await)?;
            self.known.catalog = Some((id, sequence));
            return Ok(());
        }
        let answer = good("seen", self.store.catalog_seen(id, sequence).await)?;
        let wanted = match self.known.catalog {
            Some((known, _)) if known != id => CatalogMatch::Other,
            Some((_, seen)) if seen > sequence => CatalogMatch::Older { seen },
            _ => CatalogMatch::Same,
        };
        ensure!(answer == wanted, "{answer:?}, not {wanted:?}");
        if wanted == CatalogMatch::Same {
            self.known.catalog = Some((id, sequence));
        }
        Ok(())
    }

    /// Time passes: sessions cool, leases end, marks are written.
    pub async fn wait(&mut self) -> Outcome {
        let seconds = *self.random.pick(&[1, 40, LEASE.as_secs(), 5_000, 9_000]);
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.leases()
    }

    /// Several at once on a disk that puts them off, some of which go away.
    pub async fn together(&mut self) -> Outcome {
        self.world.sim.delay(60);
        let count = 2 + self.random.below(6);
        let same = self.random.chance(40).then(|| self.some());
        let mut jobs = Vec::new();
        for _ in 0..count {
            let content = same.unwrap_or_else(|| self.some());
            let asked = some_algorithm(&mut self.random);
            let patience = self.random.chance(20).then(|| self.random.below(6));
            jobs.push((content, asked, patience));
        }
        let (reader, store) = (self.reader(), self.store.clone());
        let pushes = jobs.iter().map(|(content, asked, patience)| {
            let pushing = push(store.clone(), content, *asked, 100_000);
            patiently(pushing, *patience)
        });
        let (answers, read) = futures_util::future::join(join_all(pushes), reader).await;
        self.world.sim.delay(0);
        read?;
        let (mut answered, mut unsure) = (Vec::new(), Vec::new());
        for ((content, asked, _), answer) in jobs.iter().zip(answers) {
            match answer {
                Some(answer) => answered.push((*content, *asked, good("push", answer)?)),
                None => unsure.push((*content, *asked)),
            }
        }
        self.known.strays += unsure.len() as u64;
        let mut new: BTreeMap<Digest, u64> = BTreeMap::new();
        for (content, _, is_new) in &answered {
            *new.entry(content.sha256).or_default() += u64::from(*is_new);
        }
        for (digest, count) in &new {
            let absent = !self.known.blobs.contains_key(digest);
            let gone = unsure.iter().any(|(content, _)| content.sha256 == *digest);
            let right = *count == u64::from(absent) || (gone && absent && *count == 0);
            ensure!(
                right,
                "{digest} was new {count} times, absent before: {absent}"
            );
        }
        for (content, asked, _) in answered {
            self.committed(content, &[asked]);
        }
        self.settle(&unsure).await
    }

    /// A read that runs beside others.
    fn reader(&mut self) -> impl Future<Output = Outcome> + use<> {
        let digest = self.some_digest();
        let blob = digest.and_then(|digest| self.known.resolve(&digest));
        let wanted = blob.map(|(sha256, blob)| (*sha256, blob.bytes.clone()));
        let now = self.now();
        if let Some(digest) = digest {
            self.known.used(&digest, now);
        }
        let store = self.store.clone();
        async move {
            let Some((digest, bytes)) = wanted else {
                return Ok(());
            };
            let found = good("read", crate::support::world::pull(&store, &digest).await)?;
            ensure!(found == bytes, "{digest} has other bytes");
            Ok(())
        }
    }

    /// Requests that went away: what they had queued was carried out or not,
    /// wholly.
    pub async fn settle(&mut self, unsure: &[(&'static Content, Algorithm)]) -> Outcome {
        if unsure.is_empty() {
            return Ok(());
        }
        // Answered after all that was queued before it.
        let content = &contents::all()[1];
        let done = self
            .store
            .put(content.bytes.clone(), content.sha256, Some(vec![1]))
            .await;
        good("put", done)?;
        self.known.maybe_named = true;
        self.committed(content, &[]);
        for (content, asked) in unsure {
            self.look(content, &[*asked]).await?;
        }
        Ok(())
    }

    /// Takes into the maps what is there of a commit that nobody answered for.
    pub async fn look(&mut self, content: &Content, further: &[Algorithm]) -> Outcome {
        let mut names = vec![Algorithm::Sha256];
        names.extend(further);
        for algorithm in names {
            let digest = content.digest(algorithm);
            match self.store.stat(&digest) {
                Ok(_) => {
                    let found = crate::support::world::pull(&self.store, &digest).await;
                    let found = good("pull", found)?;
                    ensure!(found == content.bytes, "{digest} is there with other bytes");
                    self.committed(content, &[algorithm]);
                }
                Err(Error::NotFound { .. }) => {
                    let known = self.known.resolve(&digest).is_some();
                    ensure!(!known, "{digest} is lost");
                }
                Err(error) => return Err(format!("{digest}: {error}")),
            }
        }
        Ok(())
    }
}

/// Polls a future so often at most, then lets it go.
async fn patiently<T>(future: impl Future<Output = T>, polls: Option<u64>) -> Option<T> {
    let Some(polls) = polls else {
        return Some(future.await);
    };
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(move |context| {
        if let std::task::Poll::Ready(done) = future.poll_unpin(context) {
            return std::task::Poll::Ready(Some(done));
        }
        if left == 0 {
            return std::task::Poll::Ready(None);
        }
        left -= 1;
        std::task::Poll::Pending
    })
    .await
}
