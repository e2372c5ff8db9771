//! Upload sessions between requests.
//!
//! A session lives in memory from its opening and in the log from its first
//! checkpoint. Who asks for another owner's session is told that there is
//! none. Bounded by [`MAX_SESSIONS`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orlop_format::digest::{Algorithm, Hasher};
use orlop_format::location::Extent;
use orlop_format::record::{MAX_OWNER, UploadId};
use tokio::sync::OwnedMutexGuard;

use crate::config::MAX_SESSIONS;
use crate::core::Core;
use crate::error::{Error, Invalid, Result};
use crate::sync::Mutex;

/// Idle time after which a session that never became durable may be dropped
/// to make room for another.
const IDLE: Duration = Duration::from_secs(3600);

/// All uploads in memory.
#[derive(Default)]
pub(crate) struct Sessions {
    map: Mutex<HashMap<UploadId, Arc<Session>>>,
}

/// One upload.
pub(crate) struct Session {
    pub(crate) id: UploadId,
    pub(crate) owner: String,
    pub(crate) also: Option<Algorithm>,
    pub(crate) durable: AtomicU64,
    touched: Mutex<Duration>,
    state: Arc<tokio::sync::Mutex<State>>,
}

/// What a session holds between requests.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) hashers: Vec<Hasher>,
    pub(crate) received: u64,
    pub(crate) extents: Vec<Extent>,
    /// Bytes in the extents.
    pub(crate) placed: u64,
    /// How many of the extents the log knows.
    pub(crate) saved: usize,
    /// Bytes behind the last extent.
    pub(crate) tail: Vec<u8>,
    /// Whether the log knows of the upload.
    pub(crate) opened: bool,
    /// Whether the state is behind or ahead of the log and must be loaded.
    pub(crate) stale: bool,
    /// Whether it ended.
    pub(crate) ended: bool,
}

impl State {
    pub(crate) fn fresh(also: Option<Algorithm>) -> Self {
        let mut hashers = vec![Hasher::new(Algorithm::Sha256)];
        hashers.extend(
            also.filter(|also| *also != Algorithm::Sha256)
                .map(Hasher::new),
        );
        Self {
            hashers,
            ..Self::default()
        }
    }
}

impl Sessions {
    /// Opens an upload. Syncs nothing.
    pub(crate) fn open(
        &self,
        core: &Core,
        owner: &str,
        also: Option<Algorithm>,
    ) -> Result<UploadId> {
        core.poison.check()?;
        if owner.len() > MAX_OWNER {
            let limit = MAX_OWNER as u64;
            return Err(Invalid::TooLarge {
                what: "the owner of an upload",
                limit,
            }
            .into());
        }
        let mut id = [0u8; 16];
        core.runtime.fill_random(&mut id);
        let id = UploadId(id);
        let now = core.runtime.now();
        let mut map = self.map.lock();
        if map.len() >= MAX_SESSIONS {
            map.retain(|_, session| {
                session.durable.load(Ordering::Relaxed) > 0
                    || now.saturating_sub(*session.touched.lock()) < IDLE
            });
        }
        if map.len() >= MAX_SESSIONS {
            return Err(Error::Busy {
                what: format!("the store: {MAX_SESSIONS} uploads are open"),
            });
        }
        map.insert(
            id,
            Session::new(id, owner.to_owned(), also, 0, now, State::fresh(also)),
        );
        Ok(id)
    }

    /// The session, from memory or from the log. An upload of another owner is
    /// not there.
    fn find(&self, core: &Core, id: UploadId, owner: &str) -> Result<Arc<Session>> {
        let missing = || Error::missing(format_args!("upload {id}"));
        if let Some(session) = self.map.lock().get(&id) {
            return if session.owner == owner {
                Ok(Arc::clone(session))
            } else {
                Err(missing())
            };
        }
        let Some(row) = core.upload_row(&id)? else {
            return Err(missing());
        };
        if row.owner != owner.as_bytes() {
            return Err(missing());
        }
        let also = Algorithm::from_code(row.also);
        let state = State {
            stale: true,
            opened: true,
            ..State::fresh(also)
        };
        let session = Session::new(
            id,
            owner.to_owned(),
            also,
            row.checkpoint.offset,
            core.runtime.now(),
            state,
        );
        Ok(Arc::clone(self.map.lock().entry(id).or_insert(session)))
    }

    /// Bytes of an upload that are durable.
    pub(crate) fn status(&self, core: &Core, id: UploadId, owner: &str) -> Result<u64> {
        Ok(self.find(core, id, owner)?.durable.load(Ordering::Acquire))
    }

    /// Takes hold of a session for one request.
    pub(crate) fn hold(
        &self,
        core: &Core,
        id: UploadId,
        owner: &str,
    ) -> Result<(Arc<Session>, OwnedMutexGuard<State>)> {
        let session = self.find(core, id, owner)?;
        let state = Arc::clone(&session.state)
            .try_lock_owned()
            .map_err(|_| Error::Busy {
                what: format!("upload {id}"),
            })?;
        if state.ended {
            return Err(Error::missing(format_args!("upload {id}")));
        }
        *session.touched.lock() = core.runtime.now();
        Ok((session, state))
    }

    pub(crate) fn forget(&self, id: &UploadId) {
        self.map.lock().remove(id);
    }
}

impl Session {
    fn new(
        id: UploadId,
        owner: String,
        also: Option<Algorithm>,
        durable: u64,
        now: Duration,
        state: State,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            owner,
            also,
            durable: AtomicU64::new(durable),
            touched: Mutex::new(now),
            state: Arc::new(tokio::sync::Mutex::new(state)),
        })
    }
}
