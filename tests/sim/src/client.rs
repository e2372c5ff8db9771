//! What clients do, in the order of the registry's verbs, and what they
//! remember of the answers.
//!
//! The registry itself would bring SQLite and RocksDB with it, so its order of
//! steps is repeated here: a blob is durable, then a note goes to the log, then
//! the catalog links it; a manifest pins what it names, its bytes become durable
//! with their note, then the catalog names it; a deletion leaves its note, then
//! the row goes.

use std::time::Duration;

use bytes::Bytes;
use orlop_engine::{Algorithm, Collected, Digest, Error, Reclaimed, Store, Trailer, UploadId};

use crate::catalog::Change;
use crate::model::Event;
use crate::world::World;

/// The result of what a client does.
pub type Result<T> = std::result::Result<T, Error>;

/// A client of an open store.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// The world they live in.
    pub world: &'a World,
    /// The store.
    pub store: &'a Store,
    /// A bug that may be planted: names are committed before their blobs.
    pub names_first: bool,
}

/// The SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

impl<'a> Client<'a> {
    /// A client.
    #[must_use]
    pub fn new(world: &'a World, store: &'a Store) -> Client<'a> {
        Client {
            world,
            store,
            names_first: names_first::is(),
        }
    }

    fn note(&self, event: Event) {
        self.world.ledger.note(event);
    }

    /// Notes that these bytes may appear, under both digests.
    fn try_bytes(&self, digest: Digest, bytes: &Bytes) {
        self.note(Event::Tried(sha256(bytes), bytes.clone()));
        self.note(Event::Tried(digest, bytes.clone()));
    }

    fn stored(&self, digest: Digest, bytes: &Bytes) {
        self.note(Event::Stored(sha256(bytes)));
        self.note(Event::Stored(digest));
    }

    /// Opens an upload that will carry these bytes.
    pub fn open(&self, owner: &str, bytes: &Bytes) -> Result<UploadId> {
        let id = self.store.upload_open(owner, None)?;
        self.note(Event::Opened(id, owner.to_owned(), bytes.clone()));
        Ok(id)
    }

    /// Sends an upload's bytes up to `to`, in pieces, and makes them durable.
    pub async fn send(&self, id: UploadId, owner: &str, bytes: &Bytes, to: usize) -> Result<()> {
        let mut upload = self.store.upload_resume(id, owner).await?;
        let from = usize::try_from(upload.offset()).unwrap_or(usize::MAX);
        self.note(Event::Sent(id, to as u64));
        for piece in bytes.get(from..to).unwrap_or_default().chunks(200_000) {
            upload.append(Bytes::copy_from_slice(piece)).await?;
        }
        let durable = upload.checkpoint().await?;
        self.note(Event::Durable(id, durable));
        Ok(())
    }

    /// Sends the rest of an upload and commits it.
    pub async fn finish(
        &self,
        id: UploadId,
        owner: &str,
        bytes: &Bytes,
        digest: Digest,
    ) -> Result<bool> {
        let mut upload = self.store.upload_resume(id, owner).await?;
        let from = usize::try_from(upload.offset()).unwrap_or(usize::MAX);
        self.try_bytes(digest, bytes);
        self.note(Event::Sent(id, bytes.len() as u64));
        for piece in bytes.get(from..).unwrap_or_default().chunks(200_000) {
            upload.append(Bytes::copy_from_slice(piece)).await?;
        }
        self.note(Event::Ending(id));
        let committed = upload.commit(digest, None).await?;
        self.stored(digest, bytes);
        self.note(Event::Ended(id));
        Ok(committed.new)
    }

    /// Gives an upload up.
    pub async fn cancel(&self, id: UploadId, owner: &str) -> Result<()> {
        let upload = self.store.upload_resume(id, owner).await?;
        self.note(Event::Ending(id));
        upload.cancel().await?;
        self.note(Event::Ended(id));
        Ok(())
    }

    /// Pushes a blob in one upload. Says whether it was new.
    pub async fn push(&self, bytes: &Bytes) -> Result<bool> {
        self.push_as(bytes, Algorithm::Sha256).await
    }

    /// Pushes a blob under a digest of this kind.
    pub async fn push_as(&self, bytes: &Bytes, algorithm: Algorithm) -> Result<bool> {
        let digest = Digest::of(algorithm, bytes);
        let also = Some(algorithm).filter(|also| *also != Algorithm::Sha256);
        let id = self.store.upload_open("client", also)?;
        self.note(Event::Opened(id, "client".to_owned(), bytes.clone()));
        self.finish(id, "client", bytes, digest).await
    }

    /// Pushes a blob into a repository.
    pub async fn push_blob(&self, repository: &str, bytes: &Bytes) -> Result<Digest> {
        let digest = sha256(bytes);
        let change = Change::Link {
            repository: repository.to_owned(),
            digest,
            size: bytes.len() as u64,
        };
        if self.names_first {
            self.world.catalog.commit(change).await;
            self.push(bytes).await?;
            return Ok(digest);
        }
        self.push(bytes).await?;
        self.store
            .note(format!("link {repository} {digest}").into_bytes())?;
        self.world.catalog.commit(change).await;
        Ok(digest)
    }

    /// Pushes a manifest that names blobs of a repository.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        blobs: &[Digest],
    ) -> Result<Digest> {
        let layers: Vec<String> = blobs.iter().map(ToString::to_string).collect();
        let body = format!("{{\"tag\":{tag:?},\"layers\":{layers:?}}}");
        let bytes = Bytes::from(body);
        let digest = sha256(&bytes);
        let (pin, sizes) = self.store.pin(blobs)?;
        if sizes.iter().any(Option::is_none) && !self.names_first {
            return Err(Error::NotFound {
                what: "a layer of a manifest".to_owned(),
            });
        }
        let change = Change::Manifest {
            repository: repository.to_owned(),
            digest,
            size: bytes.len() as u64,
            blobs: blobs.to_vec(),
            tag: tag.to_owned(),
        };
        self.try_bytes(digest, &bytes);
        let note = format!("manifest {repository} {digest} {tag}").into_bytes();
        if self.names_first {
            self.world.catalog.commit(change).await;
            self.store.put(bytes.clone(), digest, Some(note)).await?;
        } else {
            self.store.put(bytes.clone(), digest, Some(note)).await?;
            self.note(Event::Noted);
            self.stored(digest, &bytes);
            self.world.catalog.commit(change).await;
        }
        drop(pin);
        Ok(digest)
    }

    /// Deletes names: a note, then the row.
    pub async fn delete(&self, change: Change) -> Result<()> {
        self.store.note(format!("{change:?}").into_bytes())?;
        self.world.catalog.commit(change).await;
        Ok(())
    }

    /// Stores a copy of the catalog, as the server does it.
    pub async fn copy_catalog(&self, bytes: &Bytes, sequence: u64) -> Result<()> {
        let file = File::with(bytes)?;
        let digest = sha256(bytes);
        self.try_bytes(digest, bytes);
        self.note(Event::Copying(digest, sequence));
        self.store.catalog_copy(&file.0, CATALOG, sequence).await?;
        self.stored(digest, bytes);
        self.note(Event::Copied(digest, sequence));
        Ok(())
    }

    /// One collection: the live set is what the catalog names when it begins.
    /// `alone`: nobody else uses the store meanwhile.
    pub async fn collect(&self, sequence: u64, alone: bool) -> Result<Collected> {
        let mut collector = self.store.collect().await?;
        let (acknowledged, _) = self.world.catalog.mark();
        let live: Vec<Digest> = self
            .world
            .catalog
            .rows(acknowledged)
            .digests()
            .into_iter()
            .collect();
        for part in live.chunks(3) {
            collector.mark(part)?;
            // Not to the end each time.
            collector.look_up(false)?;
            self.world
                .machine
                .runtime()
                .pause(Duration::from_micros(1))
                .await;
        }
        let trailer = Trailer {
            digests: live.len() as u64,
            catalog: CATALOG,
            sequence,
        };
        let mut sweep = collector.whole(trailer, false)?;
        while let Some(garbage) = sweep.step()? {
            for blob in &garbage {
                self.note(Event::Dying(blob.digest));
            }
            for blob in sweep.end(&garbage, true).await? {
                if alone {
                    self.note(Event::Dead(blob.digest));
                }
            }
        }
        sweep.finish()
    }

    /// Gives back what is dead, with pauses in which others go on.
    pub async fn reclaim(&self) -> Result<Reclaimed> {
        let mut pass = self.store.reclaim().await?;
        while pass.step().await?.is_some() {
            self.world
                .machine
                .runtime()
                .pause(Duration::from_micros(1))
                .await;
        }
        Ok(pass.total())
    }

    /// Tells the store which catalog there is.
    pub async fn see_catalog(&self, sequence: u64) -> Result<()> {
        self.store.catalog_seen(CATALOG, sequence).await?;
        self.note(Event::Seen(sequence));
        Ok(())
    }
}

/// The catalog's id.
pub const CATALOG: [u8; 16] = [7; 16];

/// A file that is removed when it is dropped. The store reads the copy of the
/// catalog from a real file, which is the catalog's and not the store's.
struct File(std::path::PathBuf);

impl File {
    fn with(bytes: &[u8]) -> Result<File> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("orlop-sim-{}-{number}", std::process::id());
        let file = File(std::env::temp_dir().join(name));
        std::fs::write(&file.0, bytes).map_err(|error| Error::Io {
            what: format!("cannot write {}", file.0.display()),
            reason: error.to_string(),
        })?;
        Ok(file)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// The one planted bug that is not the store's: the order of the verbs.
pub mod names_first {
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether it is planted on this thread.
    #[must_use]
    pub fn is() -> bool {
        PLANTED.get()
    }

    /// Plants it on this thread.
    pub fn plant(planted: bool) {
        PLANTED.set(planted);
    }
}
