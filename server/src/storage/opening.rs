//! Opening: the checks before anything is served, and what they say when they
//! fail.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_disk::lock::{Lock, LockError};
use orlop_disk::probe::{self, Unfit};
use orlop_disk::{Access, Disk, Kind};
use orlop_engine::{CatalogMatch, Config, IndexFactory, Names, Progress, Store, System};
use orlop_format::superblock;
use orlop_index::rocks::{Options as RocksOptions, Rocks};
use orlop_index::{Index, IndexError};

use super::{CATALOG, CATALOG_COPY, LOCK, remove};
use crate::catalog::{Catalog, CatalogError, Location, Options};
use crate::registry::Unpaired;
use crate::settings::Settings;

/// Part of the cache that goes to blocks of the index.
const INDEX_CACHE_FRACTION: u64 = 4;
/// The most of it, in bytes.
const INDEX_CACHE_MAX: u64 = 256 * 1024 * 1024;

/// How long the lock of the folder is tried for.
const LOCK_TIME: Duration = Duration::from_secs(1);
/// Pause before it is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the server does not start, or why its storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made or entered.
    #[error(
        "cannot use the data folder {path}: {source}; make it, give this user the right to write in it, or pass another --data"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store belongs to another user.
    #[error(
        "the store in {path} belongs to the user with id {owner}, this is {user}; run the command as that user, by `runuser -u NAME -- orlop …` or `sudo -u '#{owner}' orlop …`"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who this process is.
        user: u32,
    },
    /// Another process has the folder.
    #[error(transparent)]
    Locked(LockError),
    /// No disk threads.
    #[error("cannot start the disk: {0}")]
    Disk(io::Error),
    /// The file system does not keep the promises, or they cannot be tried.
    #[error(
        "{0}; `orlop doctor` says more. Choose a folder on a local file system such as ext4 or xfs"
    )]
    Unfit(Unfit),
    /// The store cannot be opened.
    #[error("cannot open the store: {0}")]
    Store(#[from] orlop_engine::Error),
    /// The store was not closed well. Everything acknowledged is durable.
    #[error(
        "the store did not close well: {0}; nothing that was acknowledged is lost by that, the next start reads it from the journal"
    )]
    Close(orlop_engine::Error),
    /// The catalog cannot be opened.
    #[error("cannot open the catalog: {0}")]
    Catalog(#[from] CatalogError),
    /// The store has names and the catalog is gone.
    #[error(
        "{path} is missing, but the store beside it has names, which only the catalog tells. `orlop-fsck {folder} --repair` says how it can be made again from the copies and notes that the store keeps, and does it with `--apply`; or put it back from a backup"
    )]
    CatalogMissing {
        /// Where it should be.
        path: PathBuf,
        /// The data folder.
        folder: String,
    },
}

/// Makes the data folder if there is none, readable for its owner only, and
/// makes its name durable: what is stored in a folder that a power cut takes
/// away is lost, however well it was synced.
pub fn prepare(folder: &Path) -> Result<(), StartError> {
    let fail = |source| StartError::Folder {
        path: folder.to_owned(),
        source,
    };
    let made: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(fail)?;
    for path in &made {
        sync_name(path).map_err(fail)?;
    }
    // An earlier start may have made it and been killed at once. It may also
    // have been made by somebody who may do more than this process.
    if made.is_empty()
        && !is_store(folder)?
        && let Err(error) = sync_name(folder)
    {
        tracing::debug!(%error, folder = %folder.display(), "its name was not synced");
    }
    Ok(())
}

/// Syncs the folder that a name is in.
fn sync_name(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(parent)?.sync_all()
}

/// Takes the folder for this process. Who only looks at the lock, as `orlop
/// doctor` does, has it for a moment: it is tried for [`LOCK_TIME`].
pub fn lock(folder: &Path) -> Result<Lock, StartError> {
    let path = folder.join(LOCK);
    let began = Instant::now();
    loop {
        match Lock::acquire(&path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Disk(error)) => {
                return Err(StartError::Folder {
                    path: folder.to_owned(),
                    source: error.source,
                });
            }
            Err(held) if began.elapsed() >= LOCK_TIME => return Err(StartError::Locked(held)),
            Err(_) => std::thread::sleep(LOCK_PAUSE),
        }
    }
}

/// Whether there is a store in a folder.
///
/// # Errors
/// That cannot be found out.
pub fn is_store(folder: &Path) -> Result<bool, StartError> {
    Ok(owner(folder)?.is_some())
}

/// Refuses a store of another user. What this process would make in it could
/// not be read by the server that the store belongs to.
///
/// # Errors
/// Whose it is, and what to do.
pub fn own(folder: &Path) -> Result<(), StartError> {
    let user = rustix::process::geteuid().as_raw();
    match owner(folder)? {
        Some(owner) if owner != user => Err(StartError::Foreign {
            path: folder.to_owned(),
            owner,
            user,
        }),
        _ => Ok(()),
    }
}

/// The user that the store in a folder belongs to, if one is there.
fn owner(folder: &Path) -> Result<Option<u32>, StartError> {
    for name in superblock::FILES {
        let path = folder.join(name);
        match path.symlink_metadata() {
            Ok(data) => return Ok(Some(data.uid())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StartError::Folder { path, source }),
        }
    }
    Ok(None)
}

/// Checks the file system and opens the store.
pub(super) async fn store(
    settings: &Settings,
    lock: Lock,
    disk: Arc<dyn Disk>,
    progress: &Progress,
) -> Result<Store, StartError> {
    let access = fitness(disk.as_ref(), &settings.data)?;
    let index_cache = (settings.cache_size / INDEX_CACHE_FRACTION).min(INDEX_CACHE_MAX);
    let factory = Factory(RocksOptions {
        cache_bytes: usize::try_from(index_cache).unwrap_or(usize::MAX),
        direct: access == Access::Direct,
        ..RocksOptions::default()
    });
    let mut config = Config::new(settings.data.clone());
    config.lock = Some(lock);
    config.lease = settings.gc_lease;
    config.reserve = settings.space_reserve;
    config.background_rate = settings.scrub_rate;
    config.cache = settings.cache_size.saturating_sub(index_cache);
    Ok(Store::open(config, System::start(), disk, &factory, progress).await?)
}

/// Whether the folder can keep the promises, and how its bytes travel. A full
/// one was found fit when it was made: pulls go on from it.
fn fitness(disk: &dyn Disk, folder: &Path) -> Result<Access, StartError> {
    match probe::folder(disk, folder) {
        Ok(report) => {
            for note in &report.notes {
                tracing::warn!(note, "about the data folder");
            }
            Ok(report.access)
        }
        Err(Unfit::Disk(error)) if error.kind == Kind::Full => {
            tracing::warn!(%error, "the data folder was not tried: there is no room");
            Ok(Access::Buffered)
        }
        Err(unfit) => Err(StartError::Unfit(unfit)),
    }
}

/// Opens the catalog, or makes the first one of a store without names.
pub(super) async fn catalog(store: &Store, folder: &Path) -> Result<Catalog, StartError> {
    let path = folder.join(CATALOG);
    let is_there = path.try_exists().map_err(|source| StartError::Folder {
        path: path.clone(),
        source,
    })?;
    if !is_there && has_names(&store.names().await?) {
        return Err(StartError::CatalogMissing {
            path,
            folder: folder.display().to_string(),
        });
    }
    if is_there {
        keep_outdated(store, folder, &path).await?;
    }
    let options = Options {
        create: !is_there,
        ..Options::default()
    };
    Ok(Catalog::open(Location::Sqlite(path), options).await?)
}

/// Whether names were ever given in the store's catalog.
fn has_names(names: &Names) -> bool {
    names.any || names.sequence > 0
}

/// What keeps the catalog from being the store's, if anything. An empty one
/// takes the place of another that never had a name.
pub(super) async fn pair(store: &Store, catalog: &Catalog) -> Result<Option<Unpaired>, StartError> {
    let (id, sequence) = (catalog.id(), catalog.sequence());
    match store.catalog_seen(id, sequence).await? {
        CatalogMatch::Same => Ok(None),
        CatalogMatch::Older { seen } => {
            tracing::error!(
                sequence,
                seen,
                "the catalog is older than one this store has seen: names given since are missing; pulls are served, pushes and collection are off until the newer catalog is back or `orlop catalog adopt` takes this one"
            );
            Ok(Some(Unpaired::Older))
        }
        CatalogMatch::Other if sequence == 0 && !has_names(&store.names().await?) => {
            tracing::info!("a new catalog takes the place of one that had no names");
            store.catalog_adopt(id, sequence).await?;
            Ok(None)
        }
        CatalogMatch::Other => {
            tracing::error!(
                "the catalog belongs to another store: blobs it names may be missing; pulls are served, pushes and collection are off until the right catalog is back or `orlop catalog adopt` takes this one"
            );
            Ok(Some(Unpaired::Other))
        }
    }
}

/// Puts a copy of the catalog into the store before it is brought up to date,
/// if it will be. One that is not the store's is not kept: its copy would push
/// out those of the right one.
async fn keep_outdated(store: &Store, folder: &Path, path: &Path) -> Result<(), StartError> {
    let copy = folder.join(CATALOG_COPY);
    remove(&copy);
    let kept = async {
        let Some((id, sequence)) = Catalog::copy_outdated(path, &copy).await? else {
            return Ok(());
        };
        let names = store.names().await?;
        if names.catalog == Some(id) && names.sequence <= sequence {
            store.catalog_copy(&copy, id, sequence).await?;
            tracing::info!(
                sequence,
                "the catalog is brought up to date; a copy of it as it was is in the store"
            );
        }
        Ok(())
    };
    let kept: Result<(), StartError> = kept.await;
    remove(&copy);
    kept
}

/// Makes the index of the store.
struct Factory(RocksOptions);

impl IndexFactory for Factory {
    fn open(&self, folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(Rocks::open(folder, &self.0)?))
    }

    fn destroy(&self, folder: &Path) -> Result<(), IndexError> {
        Rocks::destroy(folder)
    }
}
