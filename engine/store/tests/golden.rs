//! The engine opens the golden stores: every format that was ever written is
//! served byte for byte, and the store goes on.

#[cfg(test)]
#[path = "../../../tests/golden/v1.rs"]
mod v1;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use orlop_disk::blocking::Blocking;
    use orlop_engine::{
        Algorithm, Config, Digest, Error, IndexFactory, MemoryIndex, Progress, RocksIndex, Store,
        System,
    };
    use orlop_index::rocks::Options;

    use crate::v1;

    /// Copies the golden files into `folder`, as long as they were: what was
    /// cut are zeros of the last block.
    fn copy(folder: &Path) {
        for (path, bytes) in v1::store().files() {
            let to = folder.join(&path);
            let stored = std::fs::read(v1::folder().join(&path)).unwrap();
            assert_eq!(stored.len(), bytes.len(), "{}", path.display());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, stored).unwrap();
        }
    }

    async fn open(folder: &Path, index: &dyn IndexFactory) -> Result<Store, Error> {
        let mut config = Config::new(folder.to_owned());
        config.journal_file = 4 << 20;
        config.reserve = Some(0);
        Store::open(
            config,
            System::start(),
            Blocking::new(2).unwrap(),
            index,
            &Progress::default(),
        )
        .await
    }

    async fn check(store: &Store) {
        for blob in v1::store().blobs {
            for algorithm in blob.aliases.iter().chain([&Algorithm::Sha256]) {
                let digest = Digest::of(*algorithm, &blob.bytes);
                let found = match store.read(&digest) {
                    Ok(found) => found.bytes(1 << 20).await,
                    Err(error) => Err(error),
                };
                match blob.state {
                    v1::State::Live => {
                        let found = found.unwrap_or_else(|error| panic!("{digest}: {error}"));
                        assert!(found == blob.bytes, "{digest} has other bytes");
                    }
                    v1::State::Quarantined => {
                        assert!(
                            matches!(found, Err(Error::Corrupt { .. })),
                            "{digest}: {found:?}"
                        );
                    }
                    v1::State::Absent => {
                        assert!(
                            matches!(found, Err(Error::NotFound { .. })),
                            "{digest}: {found:?}"
                        );
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn v1_is_served_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        copy(folder.path());
        let index = RocksIndex {
            options: Options::default(),
        };
        let store = open(folder.path(), &index).await.unwrap();
        check(&store).await;
        let names = store.names().await.unwrap();
        assert!(names.any);
        assert_eq!((names.catalog, names.sequence), (Some(v1::CATALOG), 41));
        assert_eq!(names.copies.len(), 1);

        // The open upload goes on at its durable offset.
        let (id, owner, len) = v1::OPEN;
        assert_eq!(store.upload_status(id, owner).unwrap(), len as u64);
        let mut upload = store.upload_resume(id, owner).await.unwrap();
        upload
            .append(Bytes::from_static(b"the rest"))
            .await
            .unwrap();
        let whole = [v1::content(9, len), b"the rest".to_vec()].concat();
        let digest = Digest::of(Algorithm::Sha512, &whole);
        assert!(upload.commit(digest, None).await.unwrap().new);
        store.close().await.unwrap();
        drop(store);

        let store = open(folder.path(), &index).await.unwrap();
        check_open(&store, &digest, &whole).await;
        check(&store).await;
    }

    async fn check_open(store: &Store, digest: &Digest, whole: &[u8]) {
        assert!(store.read(digest).unwrap().bytes(1 << 20).await.unwrap() == whole);
    }

    #[tokio::test]
    async fn v1_of_a_newer_version_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        copy(folder.path());
        for name in ["superblock.0", "superblock.1"] {
            let path = folder.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            for slot in bytes.chunks_mut(4096) {
                slot[4] = 2;
                let crc = orlop_format::checksum::crc(&slot[..104]);
                slot[104..108].copy_from_slice(&crc.to_le_bytes());
            }
            std::fs::write(path, bytes).unwrap();
        }
        let error = open(folder.path(), &MemoryIndex::default())
            .await
            .err()
            .map(|error| error.to_string());
        assert!(
            error.as_ref().is_some_and(|error| error.contains("newer")),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn v1_with_a_lost_journal_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        copy(folder.path());
        std::fs::remove_file(folder.path().join("journal/J-0000000000000002")).unwrap();
        let opened = open(folder.path(), &MemoryIndex::default()).await;
        assert!(
            matches!(opened.as_ref().err(), Some(Error::Corrupt { .. })),
            "{:?}",
            opened.err()
        );
    }
}
