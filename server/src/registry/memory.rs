//! Blobs and names in memory, for tests of the registry and of the API.
//! Faults can be set, and durable is told from received.

mod found;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use orlop_oci::{Algorithm, Digest, Reference, RepositoryName};

use tokio::sync::Notify;

use super::Registry;
use super::note::Note;
use super::seam::{
    Blobs, Body, BodyFault, Content, Fault, Health, Life, ManifestRow, Mismatch, Names,
    NewManifest, Pinned, Referrer, ReferrerPage, ReferrerQuery, Upload, UploadId,
};

use found::Found;

#[derive(Default)]
struct Session {
    owner: String,
    durable: usize,
    bytes: BytesMut,
    held: bool,
}

#[derive(Default)]
struct State {
    blobs: HashMap<Digest, Bytes>,
    uploads: HashMap<UploadId, Session>,
    opened: u8,
    pins: Vec<Digest>,
    notes: Vec<Note>,
    links: HashSet<(String, Digest)>,
    manifests: HashMap<(String, Digest), NewManifest>,
    tags: BTreeMap<(String, String), Digest>,
    /// Naming this manifest waits for this.
    held: Option<(Digest, Arc<Notify>)>,
    /// What every next write answers.
    writes: Option<Fault>,
    /// These are found, but fail in the middle of being read.
    damaged: HashSet<Digest>,
    /// How it is, it never says.
    silent: bool,
    /// How long writes have been under way: of the store and of the catalog.
    writing: (Duration, Duration),
}

/// A store and a catalog in one.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

impl Memory {
    pub(crate) fn registry(&self) -> Registry {
        Registry::new(Arc::new(self.clone()), Arc::new(self.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Puts a blob into the store and links it.
    pub(crate) fn add(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = self.store(content);
        self.state().links.insert((repository.to_owned(), digest));
        digest
    }

    /// Puts a blob into the store only.
    pub(crate) fn store(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let content = Bytes::copy_from_slice(content);
        self.state().blobs.insert(digest, content);
        digest
    }

    pub(crate) fn fail_writes(&self, fault: Option<Fault>) {
        self.state().writes = fault;
    }

    /// Holds up the naming of a manifest until it is notified.
    pub(crate) fn hold(&self, digest: Digest) -> Arc<Notify> {
        let held = Arc::<Notify>::default();
        self.state().held = Some((digest, Arc::clone(&held)));
        held
    }

    pub(crate) fn silence(&self) {
        self.state().silent = true;
    }

    pub(crate) fn hang(&self, store: Duration, catalog: Duration) {
        self.state().writing = (store, catalog);
    }

    pub(crate) fn damage(&self, digest: Digest) {
        self.state().damaged.insert(digest);
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.state().blobs.contains_key(digest)
    }

    pub(crate) fn uploads(&self) -> usize {
        self.state().uploads.len()
    }

    pub(crate) fn pins(&self) -> usize {
        self.state().pins.len()
    }

    pub(crate) fn notes(&self) -> Vec<Note> {
        self.state().notes.clone()
    }

    pub(crate) fn set_tag(&self, repository: &str, tag: &str, digest: Digest) {
        let key = (repository.to_owned(), tag.to_owned());
        self.state().tags.insert(key, digest);
    }

    /// Names an image that is in the store, with these tags.
    pub(crate) fn push_image(&self, repository: &str, tags: &[&str]) -> Digest {
        let digest = self.store(repository.as_bytes());
        for tag in tags {
            self.set_tag(repository, tag, digest);
        }
        let manifest = NewManifest {
            repository: RepositoryName::parse(repository).unwrap(),
            digest,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            artifact_type: None,
            size: repository.len() as u64,
            subject: None,
            edges: Vec::new(),
            tags: Vec::new(),
            annotations: BTreeMap::new(),
            links: Vec::new(),
            children: Vec::new(),
        };
        let key = (repository.to_owned(), digest);
        self.state().manifests.insert(key, manifest);
        digest
    }

    fn writable(&self) -> Result<(), Fault> {
        self.state().writes.clone().map_or(Ok(()), Err)
    }
}

/// Nothing ends here, so that every life is the first.
fn life(bytes: &Bytes) -> Life {
    let (size, birth) = (bytes.len() as u64, 1);
    Life { size, birth }
}

/// A body of these pieces, which then ends as said.
pub(crate) fn body(pieces: &[&[u8]], end: Option<BodyFault>) -> Body {
    let pieces: Vec<Result<Bytes, BodyFault>> = pieces
        .iter()
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .chain(end.map(Err))
        .collect();
    stream::iter(pieces).boxed()
}

impl Blobs for Memory {
    fn upload_open(&self, owner: &str, _also: Option<Algorithm>) -> Result<UploadId, Fault> {
        self.writable()?;
        let mut state = self.state();
        state.opened += 1;
        let id = UploadId([state.opened; 16]);
        let session = Session {
            owner: owner.to_owned(),
            ..Session::default()
        };
        state.uploads.insert(id, session);
        Ok(id)
    }

    fn upload_status(&self, id: UploadId, owner: &str) -> Result<u64, Fault> {
        let state = self.state();
        match state.uploads.get(&id) {
            Some(session) if session.owner == owner => Ok(session.durable as u64),
            _ => Err(Fault::NotFound),
        }
    }

    fn upload_resume<'a>(
        &'a self,
        id: UploadId,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, Fault>> {
        async move {
            self.upload_status(id, owner)?;
            let mut state = self.state();
            let session = state.uploads.get_mut(&id).ok_or(Fault::NotFound)?;
            if session.held {
                return Err(Fault::Busy("held".into()));
            }
            session.held = true;
            let memory = self.clone();
            Ok(Box::new(Held { memory, id }) as Box<dyn Upload>)
        }
        .boxed()
    }

    fn put(
        &self,
        bytes: Bytes,
        expected: Digest,
        note: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.writable()?;
            assert_eq!(Digest::of(expected.algorithm(), &bytes), expected);
            let mut state = self.state();
            assert!(state.pins.contains(&expected), "stored without a pin");
            state.notes.push(Note::decode(&note).unwrap());
            state.blobs.insert(expected, bytes);
            Ok(())
        }
        .boxed()
    }

    fn stat(&self, digest: &Digest) -> Result<Life, Fault> {
        let state = self.state();
        let blob = state.blobs.get(digest).ok_or(Fault::NotFound)?;
        Ok(life(blob))
    }

    fn read(&self, digest: &Digest) -> Result<Box<dyn Content>, Fault> {
        let state = self.state();
        let bytes = state.blobs.get(digest).ok_or(Fault::NotFound)?.clone();
        let damaged = state.damaged.contains(digest);
        Ok(Box::new(Found { bytes, damaged }))
    }

    fn pin(&self, digests: &[Digest]) -> Result<Pinned, Fault> {
        let mut state = self.state();
        state.pins.extend_from_slice(digests);
        let found = digests
            .iter()
            .map(|digest| state.blobs.get(digest).map(life))
            .collect();
        Ok(Pinned {
            found,
            guard: Box::new(Unpin(self.clone(), digests.to_vec())),
        })
    }

    fn note(&self, note: Vec<u8>) -> Result<(), Fault> {
        let note = Note::decode(&note).unwrap();
        self.state().notes.push(note);
        Ok(())
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        let is_silent = self.state().silent;
        let writing = self.state().writing.0;
        async move {
            if is_silent {
                std::future::pending::<()>().await;
            }
            Health {
                writing,
                ..Health::default()
            }
        }
        .boxed()
    }
}

struct Unpin(Memory, Vec<Digest>);

impl Drop for Unpin {
    fn drop(&mut self) {
        let mut state = self.0.state();
        for digest in &self.1 {
            let at = state.pins.iter().position(|pinned| pinned == digest);
            state.pins.remove(at.unwrap());
        }
    }
}

struct Held {
    memory: Memory,
    id: UploadId,
}

impl Held {
    fn with<T>(&self, act: impl FnOnce(&mut Session) -> T) -> T {
        act(self.memory.state().uploads.get_mut(&self.id).unwrap())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(session) = self.memory.state().uploads.get_mut(&self.id) {
            session.held = false;
            session.bytes.truncate(session.durable);
        }
    }
}

impl Upload for Held {
    fn offset(&self) -> u64 {
        self.with(|session| session.bytes.len() as u64)
    }

    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.memory.writable()?;
            self.with(|session| session.bytes.extend_from_slice(&bytes));
            Ok(())
        }
        .boxed()
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, Result<u64, Fault>> {
        async move {
            self.memory.writable()?;
            Ok(self.with(|session| {
                session.durable = session.bytes.len();
                session.durable as u64
            }))
        }
        .boxed()
    }

    fn commit(self: Box<Self>, expected: Digest) -> BoxFuture<'static, Result<Life, Fault>> {
        async move {
            self.memory.writable()?;
            let bytes = self.with(|session| session.bytes.clone().freeze());
            self.memory.state().uploads.remove(&self.id);
            let actual = Digest::of(expected.algorithm(), &bytes);
            if actual != expected {
                return Err(Fault::Mismatch(Box::new(Mismatch { expected, actual })));
            }
            let life = life(&bytes);
            self.memory.state().blobs.insert(expected, bytes);
            Ok(life)
        }
        .boxed()
    }

    fn cancel(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        async move {
            self.memory.state().uploads.remove(&self.id);
            Ok(())
        }
        .boxed()
    }
}

impl Names for Memory {
    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<ManifestRow>, Fault>> {
        async move {
            let state = self.state();
            let repository = repository.to_string();
            let digest = match reference {
                Reference::Digest(digest) => Some(*digest),
                Reference::Tag(tag) => state
                    .tags
                    .get(&(repository.clone(), tag.to_string()))
                    .copied(),
            };
            let Some(digest) = digest else {
                return Ok(None);
            };
            let manifest = state.manifests.get(&(repository, digest));
            Ok(manifest.map(|manifest| ManifestRow {
                digest,
                media_type: manifest.media_type.clone(),
                size: manifest.size,
            }))
        }
        .boxed()
    }

    fn blob_linked<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move {
            let key = (repository.to_string(), *digest);
            Ok(self.state().links.contains(&key))
        }
        .boxed()
    }

    fn link_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        life: Life,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        async move {
            self.writable()?;
            let mut state = self.state();
            let blob = state.blobs.get(digest).expect("linked before it is stored");
            assert_eq!(blob.len() as u64, life.size);
            state.links.insert((repository.to_string(), *digest));
            Ok(())
        }
        .boxed()
    }

    fn put_manifest(&self, manifest: NewManifest) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.writable()?;
            let held = self.state().held.clone();
            if let Some((_, held)) = held.filter(|(digest, _)| *digest == manifest.digest) {
                held.notified().await;
            }
            let mut state = self.state();
            assert!(state.blobs.contains_key(&manifest.digest));
            for digest in manifest.edges.iter().map(|edge| edge.digest) {
                assert!(state.pins.contains(&digest), "named without a pin");
            }
            let repository = manifest.repository.to_string();
            for tag in &manifest.tags {
                let key = (repository.clone(), tag.clone());
                state.tags.insert(key, manifest.digest);
            }
            let key = (repository, manifest.digest);
            state.manifests.insert(key, manifest);
            Ok(())
        }
        .boxed()
    }

    fn unlink_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move {
            self.writable()?;
            let key = (repository.to_string(), *digest);
            Ok(self.state().links.remove(&key))
        }
        .boxed()
    }

    fn holders<'a>(
        &'a self,
        digest: &'a Digest,
        n: usize,
    ) -> BoxFuture<'a, Result<Vec<RepositoryName>, Fault>> {
        async move {
            let state = self.state();
            let holders = state.links.iter().filter(|(_, linked)| linked == digest);
            let names = holders.map(|(name, _)| RepositoryName::parse(name).unwrap());
            Ok(names.take(n).collect())
        }
        .boxed()
    }

    fn delete_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move {
            self.writable()?;
            let mut state = self.state();
            let name = repository.to_string();
            let tags = &mut state.tags;
            tags.retain(|(of, _), to| *of != name || to != digest);
            Ok(state.manifests.remove(&(name, *digest)).is_some())
        }
        .boxed()
    }

    fn delete_tag<'a>(
        &'a self,
        repository: &'a RepositoryName,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        async move {
            self.writable()?;
            let key = (repository.to_string(), tag.to_owned());
            Ok(self.state().tags.remove(&key).is_some())
        }
        .boxed()
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a RepositoryName,
        query: ReferrerQuery<'a>,
    ) -> BoxFuture<'a, Result<ReferrerPage, Fault>> {
        async move {
            let state = self.state();
            let mut found: Vec<Referrer> = state
                .manifests
                .iter()
                .filter(|((name, _), _)| name == repository.as_str())
                .map(|(_, manifest)| manifest)
                .filter(|manifest| manifest.subject.as_ref() == Some(query.subject))
                .filter(|manifest| Some(&manifest.digest) > query.last)
                .map(|manifest| Referrer {
                    digest: manifest.digest,
                    media_type: manifest.media_type.clone(),
                    artifact_type: manifest.artifact_type.clone(),
                    size: manifest.size,
                    annotations: Some(serde_json::json!(manifest.annotations).to_string()),
                })
                .filter(|found| {
                    query.artifact_type.is_none()
                        || found.artifact_type.as_deref() == query.artifact_type
                })
                .collect();
            found.sort_unstable_by_key(|found| found.digest);
            let mut total = 0;
            let fits = |found: &&Referrer| {
                total += found.size;
                total <= query.bytes || total == found.size
            };
            let page = found.iter().take_while(fits).take(query.limit);
            let page: Vec<Referrer> = page.cloned().collect();
            let more = found.len() > page.len() && query.limit > 0;
            let last = page.last().map(|last| last.digest);
            Ok((page, last.filter(|_| more)))
        }
        .boxed()
    }

    fn repositories<'a>(
        &'a self,
        last: Option<&'a str>,
        n: usize,
    ) -> BoxFuture<'a, Result<Vec<RepositoryName>, Fault>> {
        async move {
            let state = self.state();
            let links = state.links.iter().map(|(name, _)| name.as_str());
            let manifests = state.manifests.keys().map(|(name, _)| name.as_str());
            let names: BTreeSet<&str> = links.chain(manifests).collect();
            let page = names.into_iter().filter(|name| Some(*name) > last);
            let page = page.map(|name| RepositoryName::parse(name).unwrap());
            Ok(page.take(n).collect())
        }
        .boxed()
    }

    fn tags<'a>(
        &'a self,
        repository: &'a RepositoryName,
        last: Option<&'a str>,
        n: usize,
    ) -> BoxFuture<'a, Result<Option<Vec<String>>, Fault>> {
        async move {
            let state = self.state();
            let repository = repository.as_str();
            let tags: Vec<&String> = state
                .tags
                .keys()
                .filter(|(name, _)| name == repository)
                .map(|(_, tag)| tag)
                .collect();
            let mut links = state.links.iter().map(|(name, _)| name);
            let mut manifests = state.manifests.keys().map(|(name, _)| name);
            let known =
                links.any(|name| name == repository) || manifests.any(|name| name == repository);
            if tags.is_empty() && !known {
                return Ok(None);
            }
            let page = tags.into_iter().filter(|tag| Some(tag.as_str()) > last);
            Ok(Some(page.take(n).cloned().collect()))
        }
        .boxed()
    }

    fn poisoned(&self) -> Option<String> {
        match &self.state().writes {
            Some(Fault::Poisoned(why)) => Some(why.clone()),
            _ => None,
        }
    }

    fn writing(&self) -> Duration {
        self.state().writing.1
    }
}
