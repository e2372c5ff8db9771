//! Upload sessions between requests.
//!
//! A session lives in memory from its opening and in the log from its first
//! checkpoint. What it holds in memory beyond its name is kept at hand for
//! [`WARM_TIME`] and made again from the log after that. Sessions are bounded
//! by [`MAX_SESSIONS`]: the longest idle make room for new ones, those that
//! the log can bring back before the others. Who asks for another owner's
//! session is told that there is none.
//!
//! Invariant: one request at a time holds a session. Its lock is only ever
//! taken by trying, under the map's lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use orlop_format::digest::{Algorithm, Hasher};
use orlop_format::location::Extent;
use orlop_format::record::{MAX_OWNER, UploadId};
use orlop_format::row;

use crate::config::{MAX_SESSIONS, WARM_EXTENTS, WARM_SESSIONS, WARM_TIME};
use crate::core::Core;
use crate::error::{Error, Invalid, Result};
use crate::holds::Writing;
use crate::runtime::Runtime;
use crate::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, TaskMutex};

/// Sessions that make room at once when the map is full.
const EVICTED: usize = MAX_SESSIONS / 16;
/// Time after which no request's records can still be queued.
const QUEUED: Duration = Duration::from_secs(600);
/// Bytes that one permit to hold a buffer stands for.
const HELD_UNIT: usize = 64 * 1024;

/// All uploads in memory.
pub(crate) struct Sessions {
    map: Mutex<BTreeMap<UploadId, Arc<Session>>>,
    /// Sessions whose state may be at hand and when they were put down, in
    /// that order.
    warm: Mutex<VecDeque<(Weak<Session>, Duration)>>,
    held: Arc<Semaphore>,
    /// Since when every request for an upload left a session: from the opening
    /// on, or since sessions last had to make room.
    since: Mutex<Duration>,
}

/// One upload.
pub(crate) struct Session {
    pub(crate) id: UploadId,
    pub(crate) owner: String,
    pub(crate) also: Option<Algorithm>,
    seen: Mutex<Seen>,
    state: Arc<TaskMutex<State>>,
}

/// What is known of a session without holding it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes that are durable.
    durable: u64,
    /// When somebody last asked for it.
    touched: Duration,
}

/// What a session holds between requests.
#[derive(Default)]
pub(crate) struct State {
    /// Whether the fields down to `tail` are filled in and equal the log.
    pub(crate) warm: bool,
    pub(crate) hashers: Vec<Hasher>,
    pub(crate) received: u64,
    pub(crate) extents: Vec<Extent>,
    /// Bytes in the extents.
    pub(crate) placed: u64,
    /// How many of the extents the log knows.
    pub(crate) saved: usize,
    /// Keep the segments of the others, while a request holds the session.
    pub(crate) holds: Vec<Arc<Writing>>,
    /// Bytes behind the last extent, while no request holds the session.
    pub(crate) tail: Vec<u8>,
    /// Whether the log may know of the upload.
    pub(crate) opened: bool,
    /// Whether a record of it was queued and nobody saw what became of it.
    pub(crate) queued: bool,
    /// Whether it ended.
    pub(crate) ended: bool,
}

impl State {
    /// The state of an upload that the log does not know.
    pub(crate) fn fresh(also: Option<Algorithm>) -> Self {
        let mut hashers = vec![Hasher::new(Algorithm::Sha256)];
        hashers.extend(
            also.filter(|also| *also != Algorithm::Sha256)
                .map(Hasher::new),
        );
        Self {
            warm: true,
            hashers,
            ..Self::default()
        }
    }

    /// Drops what the log can bring back.
    pub(crate) fn cool(&mut self) {
        *self = Self {
            opened: self.opened,
            queued: self.queued,
            ended: self.ended,
            ..Self::default()
        };
    }
}

impl Sessions {
    /// No sessions. Those that wait for their clients may hold half of
    /// `buffers` bytes.
    pub(crate) fn new(buffers: usize, now: Duration) -> Self {
        Self {
            map: Mutex::default(),
            warm: Mutex::default(),
            held: Arc::new(Semaphore::new(buffers / 2 / HELD_UNIT)),
            since: Mutex::new(now),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.map.lock().len()
    }

    /// A permit to hold a buffer of `bytes` while waiting for a client.
    pub(crate) fn hold_buffer(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(HELD_UNIT)).ok()?;
        Arc::clone(&self.held).try_acquire_many_owned(units).ok()
    }

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
        let id = random_id(core.runtime.as_ref());
        let now = core.runtime.now();
        self.cool(now);
        let session = Session::new(id, owner, also, 0, now, State::default());
        self.insert(&mut self.map.lock(), session, now)?;
        Ok(id)
    }

    fn known(&self, id: &UploadId) -> Option<Arc<Session>> {
        self.map.lock().get(id).cloned()
    }

    /// Bytes of an upload that are durable. Whoever asks is told that it may go
    /// on, so that it does not expire soon.
    pub(crate) fn status(&self, core: &Core, id: UploadId, owner: &str) -> Result<u64> {
        let now = core.runtime.now();
        let session = match self.known(&id) {
            Some(session) => session,
            None => {
                let row = row_of(core, id, owner)?;
                let mut map = self.map.lock();
                match map.get(&id) {
                    Some(session) => Arc::clone(session),
                    None => self.enter(&mut map, id, owner, &row, now)?,
                }
            }
        };
        if session.owner != owner {
            return Err(missing(id));
        }
        let durable = session.touch(now);
        // What a request that went away had queued shows in the row alone.
        let unsure = session
            .state
            .try_lock()
            .is_ok_and(|state| state.queued && !state.warm);
        if !unsure {
            return Ok(durable);
        }
        match core.upload_row(&id)? {
            Some(row) => Ok(row.checkpoint.offset),
            None if durable == 0 => Ok(0),
            None => Err(missing(id)),
        }
    }

    /// Takes hold of a session, from memory or from the log, for one request.
    /// An upload of another owner is not there.
    pub(crate) fn hold(
        &self,
        core: &Core,
        id: UploadId,
        owner: &str,
    ) -> Result<(Arc<Session>, OwnedMutexGuard<State>)> {
        let now = core.runtime.now();
        self.cool(now);
        let from_log = match self.known(&id) {
            Some(_) => None,
            None => Some(row_of(core, id, owner)?),
        };
        let mut map = self.map.lock();
        let session = match (map.get(&id), from_log) {
            (Some(session), _) => Arc::clone(session),
            (None, Some(row)) => self.enter(&mut map, id, owner, &row, now)?,
            // It made room for another since it was looked for.
            (None, None) => return Err(busy(id)),
        };
        if session.owner != owner {
            return Err(missing(id));
        }
        let state = session.lock()?;
        if state.ended {
            return Err(missing(id));
        }
        session.touch(now);
        drop(map);
        Ok((session, state))
    }

    /// Takes in the session of an upload that the log knows.
    fn enter(
        &self,
        map: &mut BTreeMap<UploadId, Arc<Session>>,
        id: UploadId,
        owner: &str,
        row: &row::Upload,
        now: Duration,
    ) -> Result<Arc<Session>> {
        let also = Algorithm::from_code(row.also);
        let state = State {
            opened: true,
            ..State::default()
        };
        let session = Session::new(id, owner, also, row.checkpoint.offset, now, state);
        self.insert(map, Arc::clone(&session), now)?;
        Ok(session)
    }

    /// Ends a request's hold of a session: its state stays at hand for a while
    /// if it equals the log and is small.
    pub(crate) fn put_down(&self, session: &Arc<Session>, state: &mut State, now: Duration) {
        session.touch(now);
        if state.warm && state.opened && state.extents.len() <= WARM_EXTENTS {
            state.tail.shrink_to_fit();
            self.warm.lock().push_back((Arc::downgrade(session), now));
        } else {
            state.cool();
        }
        self.cool(now);
    }

    /// Drops the state of sessions that were put down too long ago, or are too
    /// many.
    fn cool(&self, now: Duration) {
        let mut warm = self.warm.lock();
        while let Some((session, since)) = warm.front() {
            if warm.len() <= WARM_SESSIONS && now.saturating_sub(*since) < WARM_TIME {
                return;
            }
            if let Some(session) = session.upgrade()
                && session.seen.lock().touched == *since
                && let Ok(mut state) = session.state.try_lock()
            {
                state.cool();
            }
            warm.pop_front();
        }
    }

    /// Drops idle sessions of uploads that the log does not know, which ends
    /// those. Returns how many.
    pub(crate) fn drop_idle(&self, now: Duration, idle: Duration) -> u64 {
        let mut map = self.map.lock();
        let before = map.len();
        map.retain(|_, session| !session.is_idle(now, idle) || session.may_be_known());
        before.saturating_sub(map.len()) as u64
    }

    /// Idle sessions that the log knows, or may.
    pub(crate) fn doubtful(&self, now: Duration, idle: Duration) -> Vec<(UploadId, String)> {
        let map = self.map.lock();
        let doubtful = map
            .values()
            .filter(|session| session.is_idle(now, idle) && session.may_be_known());
        doubtful
            .map(|session| (session.id, session.owner.clone()))
            .collect()
    }

    /// Whether nobody has asked for this upload for so long.
    pub(crate) fn is_idle(&self, id: &UploadId, now: Duration, idle: Duration) -> bool {
        match self.known(id) {
            Some(session) => session.is_idle(now, idle),
            None => now.saturating_sub(*self.since.lock()) >= idle,
        }
    }

    /// Takes a session in. A full map lets go of the longest idle first.
    fn insert(
        &self,
        map: &mut BTreeMap<UploadId, Arc<Session>>,
        session: Arc<Session>,
        now: Duration,
    ) -> Result<()> {
        if map.len() >= MAX_SESSIONS {
            let mut idle: Vec<_> = map.values().filter_map(|other| other.idle(now)).collect();
            if idle.len() > EVICTED {
                idle.select_nth_unstable_by_key(EVICTED, |(order, _)| *order);
                idle.truncate(EVICTED);
            }
            for (_, id) in idle {
                map.remove(&id);
            }
            *self.since.lock() = now;
        }
        if map.len() >= MAX_SESSIONS {
            return Err(Error::Busy {
                what: format!("the store: {MAX_SESSIONS} uploads are under way"),
            });
        }
        map.insert(session.id, session);
        Ok(())
    }

    pub(crate) fn forget(&self, id: &UploadId) {
        self.map.lock().remove(id);
    }
}

fn row_of(core: &Core, id: UploadId, owner: &str) -> Result<row::Upload> {
    core.upload_row(&id)?
        .filter(|row| row.owner == owner.as_bytes())
        .ok_or_else(|| missing(id))
}

fn random_id(runtime: &dyn Runtime) -> UploadId {
    let mut id = [0u8; 16];
    runtime.fill_random(&mut id);
    UploadId(id)
}

pub(crate) fn missing(id: UploadId) -> Error {
    Error::missing(format_args!("upload {id}"))
}

pub(crate) fn busy(id: UploadId) -> Error {
    Error::Busy {
        what: format!("upload {id}"),
    }
}

impl Session {
    fn new(
        id: UploadId,
        owner: &str,
        also: Option<Algorithm>,
        durable: u64,
        now: Duration,
        state: State,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            owner: owner.to_owned(),
            also,
            seen: Mutex::new(Seen {
                durable,
                touched: now,
            }),
            state: Arc::new(TaskMutex::new(state)),
        })
    }

    /// A session of the store itself, which nobody else can find.
    pub(crate) fn alone(
        core: &Core,
        also: Option<Algorithm>,
    ) -> Result<(Arc<Self>, OwnedMutexGuard<State>)> {
        let id = random_id(core.runtime.as_ref());
        let session = Self::new(id, "", also, 0, core.runtime.now(), State::fresh(also));
        let state = session.lock()?;
        Ok((session, state))
    }

    /// Bytes that are durable.
    pub(crate) fn durable(&self) -> u64 {
        self.seen.lock().durable
    }

    pub(crate) fn set_durable(&self, bytes: u64) {
        self.seen.lock().durable = bytes;
    }

    /// Puts off its end; returns how many of its bytes are durable.
    fn touch(&self, now: Duration) -> u64 {
        let mut seen = self.seen.lock();
        seen.touched = now;
        seen.durable
    }

    fn lock(&self) -> Result<OwnedMutexGuard<State>> {
        Arc::clone(&self.state)
            .try_lock_owned()
            .map_err(|_| busy(self.id))
    }

    /// Whether nobody uses it, or has in so long.
    fn is_idle(&self, now: Duration, idle: Duration) -> bool {
        self.state.try_lock().is_ok() && now.saturating_sub(self.seen.lock().touched) >= idle
    }

    /// Whether the log knows the upload, or may.
    fn may_be_known(&self) -> bool {
        self.durable() > 0
            || self
                .state
                .try_lock()
                .map_or(true, |state| state.opened || state.queued)
    }

    /// Its name, and what decides which idle session goes first: whether
    /// something is lost by it, then how long it has been idle. `None` while
    /// it is in use.
    fn idle(&self, now: Duration) -> Option<((bool, Duration), UploadId)> {
        let state = self.state.try_lock().ok()?;
        let touched = self.seen.lock().touched;
        if state.queued && now.saturating_sub(touched) < QUEUED {
            return None;
        }
        Some(((!state.opened, touched), self.id))
    }
}
