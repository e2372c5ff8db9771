//! An undelete that a purge overtakes: between its look and its change the purge
//! takes tags that were deleted along with the manifest.

use futures_util::future::BoxFuture;
use orlop_oci::Algorithm;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::*;
use crate::registry::note::{Deletion, Note};
use crate::registry::{Blobs, Content, Fault, Health, Life, Pinned, Upload, UploadId};

/// The store, and a purge of everything at the first note.
struct Overtaken {
    store: Arc<dyn Blobs>,
    catalog: Catalog,
    notes: sync::Mutex<Vec<Note>>,
}

impl Blobs for Overtaken {
    fn upload_open(&self, owner: &str, also: Option<Algorithm>) -> Result<UploadId, Fault> {
        self.store.upload_open(owner, also)
    }

    fn upload_status(&self, id: UploadId, owner: &str) -> Result<u64, Fault> {
        self.store.upload_status(id, owner)
    }

    fn upload_resume<'a>(
        &'a self,
        id: UploadId,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, Fault>> {
        self.store.upload_resume(id, owner)
    }

    fn put(
        &self,
        bytes: Bytes,
        expected: Digest,
        note: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        self.store.put(bytes, expected, note)
    }

    fn stat(&self, digest: &Digest) -> Result<Life, Fault> {
        self.store.stat(digest)
    }

    fn read(&self, digest: &Digest) -> Result<Box<dyn Content>, Fault> {
        self.store.read(digest)
    }

    fn pin(&self, digests: &[Digest]) -> Result<Pinned, Fault> {
        self.store.pin(digests)
    }

    fn note(&self, note: Vec<u8>) -> Result<(), Fault> {
        let mut notes = self.notes.lock().unwrap();
        if notes.is_empty() {
            block_in_place(|| {
                Handle::current().block_on(async {
                    let mut purge = self.catalog.purge(i64::MAX);
                    while purge.next().await.unwrap().is_some() {}
                });
            });
        }
        notes.push(Note::decode(&note).unwrap());
        Ok(())
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        self.store.health()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undelete_that_a_purge_overtakes_notes_and_tells_what_came_back() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open_with(folder.path(), |_| {}).await;
    let running = Running {
        registry: storage.registry(),
        storage: Arc::new(storage),
        maintenance: Maintenance::default(),
        watch: tokio::spawn(async {}),
    };
    let storage = &running.storage;
    let overtaken = || {
        let blobs = Arc::new(Overtaken {
            store: Arc::new(storage.store.clone()),
            catalog: storage.catalog.clone(),
            notes: sync::Mutex::default(),
        });
        let names = Arc::new(storage.catalog.clone());
        (Registry::new(Arc::clone(&blobs) as _, names), blobs)
    };
    let name = RepositoryName::parse("a").unwrap();
    let child = running.image("a", "v1", "content").await;
    running.index("a", "all", &[child]).await;
    running.delete("a", &child).await;
    // The index keeps the manifest; its tag goes.
    let (registry, blobs) = overtaken();
    let by_digest = Reference::Digest(child);
    let back = registry.undelete(Subject::Operator, &name, &by_digest);
    let back = back.await.unwrap();
    assert_eq!((back.digest, back.tags), (child, Vec::new()));
    let notes = std::mem::take(&mut *blobs.notes.lock().unwrap());
    let [Note::Manifest { tags, .. }, Note::Deletion(gone)] = notes.as_slice() else {
        panic!("{notes:?}");
    };
    assert_eq!(tags, &["v1"]);
    let tag = "v1".to_owned();
    let repository = name.clone();
    assert_eq!(*gone, Deletion::Tag { repository, tag });
    assert!(running.pulls("a", &child.to_string()).await);
    assert!(!running.pulls("a", "v1").await);

    // By a tag whose manifest stays.
    running.image("a", "v2", "content").await;
    running.untag("a", "v2").await;
    let (registry, blobs) = overtaken();
    let v2 = Reference::parse("v2").unwrap();
    let back = registry.undelete(Subject::Operator, &name, &v2).await;
    assert!(matches!(back, Err(Error::ManifestUnknown)), "{back:?}");
    let last = blobs.notes.lock().unwrap().pop().unwrap();
    let tag = "v2".to_owned();
    let repository = name.clone();
    assert_eq!(last, Note::Deletion(Deletion::Tag { repository, tag }));
    assert!(running.pulls("a", &child.to_string()).await);

    // And one of which nothing is left.
    let alone = running.image("a", "v3", "alone").await;
    running.delete("a", &alone).await;
    let (registry, blobs) = overtaken();
    let v3 = Reference::parse("v3").unwrap();
    let back = registry.undelete(Subject::Operator, &name, &v3).await;
    assert!(matches!(back, Err(Error::ManifestUnknown)), "{back:?}");
    let last = blobs.notes.lock().unwrap().pop().unwrap();
    let (repository, digest) = (name, alone);
    let gone = Deletion::Manifest { repository, digest };
    assert_eq!(last, Note::Deletion(gone));
    drop((registry, blobs));
    running.stop().await;
}

/// The notes of a repository that a purge overtakes say in the end that it is as
/// deleted as before, and that what was to make way is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_a_purge_overtakes_is_noted_as_deleted_again() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |settings| {
        settings.gc_lease = Duration::from_secs(3600);
    })
    .await;
    let catalog = &running.storage.catalog;
    let a = RepositoryName::parse("a").unwrap();
    let row_of = async |text: &str| catalog.repository_row(text).await.unwrap().unwrap();
    for (to, makes_way) in [("b", false), ("a", true)] {
        running.image("a", "v1", to).await;
        let row = row_of("a").await;
        let deleted = running.registry.repository_delete(Subject::Operator, &a);
        deleted.await.unwrap();
        let mut other = None;
        if makes_way {
            running.blob("a", "of a push that goes on").await;
            other = Some(row_of("a").await);
        }
        let blobs = Arc::new(Overtaken {
            store: Arc::new(running.storage.store.clone()),
            catalog: catalog.clone(),
            notes: sync::Mutex::default(),
        });
        let registry = Registry::new(Arc::clone(&blobs) as _, Arc::new(catalog.clone()));
        let name = RepositoryName::parse(to).unwrap();
        let back = registry.repository_undelete(Subject::Operator, &a, &name);
        let back = back.await;
        assert!(matches!(back, Err(Error::NameUnknown)), "{back:?}");
        let drop = |row| Note::Drop {
            repository: a.clone(),
            row,
        };
        let restore = |row| Note::Restore {
            repository: a.clone(),
            name: name.clone(),
            row,
        };
        let mut expected = vec![restore(row), drop(row)];
        if let Some(other) = other {
            expected.insert(0, drop(other));
            expected.push(restore(other));
        }
        let notes = std::mem::take(&mut *blobs.notes.lock().unwrap());
        assert_eq!(notes, expected);
        assert_eq!(catalog.repository_row("a").await.unwrap(), other);
    }
    running.stop().await;
}
