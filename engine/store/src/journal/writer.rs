//! The one writer of the journal: group commit.
//!
//! Takes whatever waits, up to [`GROUP_SOFT`] bytes, syncs the data that the
//! records refer to, writes the records as one group, syncs it, applies them
//! to the index, answers. So one sync serves all that came meanwhile.
//!
//! Invariants: at most one group is not yet durable; nothing is answered
//! before it is durable and in the index; after a failed write or sync nothing
//! more is written (the store is poisoned). Whether a blob is there already is
//! decided here and nowhere else.

mod decide;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orlop_disk::Pool;
use orlop_format::BLOCK;
use orlop_format::group::{Builder, OVERHEAD, footprint};
use orlop_format::journal::FileHeader;
use orlop_format::record::Record;
use orlop_index::{Batch, Index, IndexError};

use super::files::{Files, JournalFile};
use super::queue::{Command, Fate, Poison, Request};
use super::scan::End;
use crate::config::{GROUP_SOFT, MARK_AFTER};
use crate::error::{Error, Invalid, Result};
use crate::metrics::Metrics;
use crate::planted::{self, Planted};
use crate::presence::{Life, Presence};
use crate::quarantine::Quarantine;
use crate::runtime::{Runtime, random_u64};
use crate::segment::Segments;
use crate::sync::{Notify, mpsc, oneshot};
use crate::view::View;

/// How often, and how far apart, a full index is tried.
const FULL_TRIES: usize = 240;
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// Where the next group goes.
struct Tail {
    file: JournalFile,
    offset: u32,
    next_lsn: u64,
    next_group: u64,
    chain: u32,
}

/// The writer's state.
pub(crate) struct Writer {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) files: Arc<Files>,
    segments: Arc<Segments>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) pool: Pool,
    pub(crate) poison: Poison,
    pub(crate) metrics: Arc<Metrics>,
    /// Told when a file is full.
    pub(crate) rotated: Arc<Notify>,
    quarantine: Arc<Quarantine>,
    presence: Arc<Presence>,
    /// Lives that the group at hand ends.
    doomed: Vec<Life>,
    store: [u8; 16],
    tail: Tail,
    marked: bool,
}

/// What the writer shares with the rest of the store.
pub(crate) struct Parts {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) files: Arc<Files>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) pool: Pool,
    pub(crate) poison: Poison,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rotated: Arc<Notify>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) store: [u8; 16],
}

impl Writer {
    /// A writer that goes on behind `end`: in a new file after a torn tail,
    /// which its header cuts for good, in the same file otherwise.
    pub(crate) async fn start(parts: Parts, end: Option<End>) -> Result<Self> {
        let end = end.unwrap_or(End {
            sequence: 0,
            offset: 0,
            next_lsn: 1,
            next_group: 1,
            chain: 0,
            torn: 0,
            last: (0, 0),
        });
        let kept = if end.torn == 0 {
            parts.files.get(end.sequence)
        } else {
            None
        };
        let (file, offset) = match kept {
            // Nobody may ever have known that its name and header are durable:
            // it is brought up again.
            Some(file) if end.last == (0, 0) => {
                let salt = random_u64(parts.runtime.as_ref());
                let header = FileHeader {
                    salt,
                    ..file.header
                };
                drop(file);
                parts.files.retire(header.sequence)?;
                (parts.files.start(header).await?, BLOCK as u32)
            }
            Some(file) => (file, end.offset),
            None => (new_file(&parts, &end).await?, BLOCK as u32),
        };
        let tail = Tail {
            file,
            offset,
            next_lsn: end.next_lsn,
            next_group: end.next_group,
            chain: end.chain,
        };
        let Parts {
            runtime,
            files,
            segments,
            index,
            pool,
            poison,
            metrics,
            rotated,
            quarantine,
            presence,
            store,
        } = parts;
        Ok(Self {
            runtime,
            files,
            segments,
            index,
            pool,
            poison,
            metrics,
            rotated,
            quarantine,
            presence,
            doomed: Vec::new(),
            store,
            tail,
            marked: false,
        })
    }

    /// Writes a mark: all before it is durable.
    pub(crate) async fn mark(&mut self, clean: bool) -> Result<()> {
        let records = vec![(Record::Mark { clean }, Bytes::new())];
        self.group(vec![Request {
            records,
            data: Vec::new(),
            reply: None,
        }])
        .await?;
        self.marked = true;
        Ok(())
    }

    /// Serves the queue until it is closed.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut carried: Option<Request> = None;
        loop {
            let first = match carried.take() {
                Some(request) => request,
                None => match self.next(&mut queue).await {
                    Next::Request(request) => request,
                    Next::Idle => {
                        if let Err(error) = self.mark(false).await {
                            tracing::warn!(%error, "no durable mark could be written");
                            self.marked = true;
                        }
                        continue;
                    }
                    Next::Close(reply) => {
                        let result = match self.poison.check() {
                            Ok(()) => self.mark(true).await,
                            poisoned => poisoned,
                        };
                        let _ = reply.send(result);
                        return;
                    }
                    Next::Gone => return,
                },
            };
            let mut size = weight(&first);
            let mut requests = vec![first];
            let mut closing = None;
            while size < GROUP_SOFT {
                match queue.try_recv() {
                    Ok(Command::Append(request)) => {
                        let more = weight(&request);
                        if size.saturating_add(more) > GROUP_SOFT.saturating_mul(2) {
                            carried = Some(request);
                            break;
                        }
                        size = size.saturating_add(more);
                        requests.push(request);
                    }
                    Ok(Command::Close(reply)) => {
                        closing = Some(reply);
                        break;
                    }
                    Err(_) => break,
                }
            }
            // The requests were answered one by one; a failure poisoned us.
            let _ = self.group(requests).await;
            if let Some(reply) = closing {
                let result = match self.poison.check() {
                    Ok(()) => self.mark(true).await,
                    poisoned => poisoned,
                };
                let _ = reply.send(result);
                return;
            }
        }
    }

    async fn next(&self, queue: &mut mpsc::Receiver<Command>) -> Next {
        let received = if self.marked || self.poison.check().is_err() {
            queue.recv().await
        } else {
            let idle = self.runtime.sleep(MARK_AFTER);
            let recv = std::pin::pin!(queue.recv());
            match futures_util::future::select(recv, idle).await {
                futures_util::future::Either::Left((command, _)) => command,
                futures_util::future::Either::Right(_) => return Next::Idle,
            }
        };
        match received {
            None => Next::Gone,
            Some(Command::Append(request)) => Next::Request(request),
            Some(Command::Close(reply)) => Next::Close(reply),
        }
    }

    /// Writes one group and answers its requests.
    async fn group(&mut self, requests: Vec<Request>) -> Result<()> {
        let mut replies = Vec::with_capacity(requests.len());
        let mut work = Vec::with_capacity(requests.len());
        let mut data = Vec::new();
        for request in requests {
            replies.push(request.reply);
            work.push(request.records);
            data.extend(request.data);
        }
        let committed = self.commit(work, data).await;
        // After a failed write nobody knows whether the tombstones are in the
        // log; the lives stay ended until a restart tells.
        if committed.is_ok() || self.poison.check().is_ok() {
            for life in self.doomed.drain(..) {
                self.presence.settle(&life);
            }
        }
        match committed {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    if let Some(reply) = reply {
                        let _ = reply.send(answer);
                    }
                }
                if planted::is(Planted::AckBeforeDurable) {
                    self.runtime.sleep(Duration::from_millis(1)).await;
                    self.sync().await.map_err(|error| self.poison.set(&error))?;
                }
                Ok(())
            }
            Err(error) => {
                for reply in replies.into_iter().flatten() {
                    let _ = reply.send(Err(error.clone()));
                }
                Err(error)
            }
        }
    }

    /// Data, group, index: in this order, each durable before the next.
    async fn commit(
        &mut self,
        work: Vec<Vec<(Record, Bytes)>>,
        mut data: Vec<Arc<crate::segment::SegmentFile>>,
    ) -> Result<Vec<Result<Vec<Fate>>>> {
        self.poison.check()?;
        let metrics = Arc::clone(&self.metrics);
        let writing = metrics.writing(self.runtime.now());
        data.sort_by_key(|segment| segment.id());
        data.dedup_by_key(|segment| segment.id());
        let syncs = data.iter().map(|segment| segment.sync());
        for synced in futures_util::future::join_all(syncs).await {
            synced.map_err(|error| self.poison.set(&error))?;
        }
        let needed = work
            .iter()
            .flatten()
            .map(size)
            .fold(OVERHEAD, usize::saturating_add);
        self.make_room(needed).await?;

        let mut builder = Builder::new(
            self.tail.file.volume(),
            self.tail.offset,
            self.tail.next_group,
            self.tail.chain,
        );
        let index = Arc::clone(&self.index);
        let mut view = View::new(index.as_ref());
        let mut lsn = self.tail.next_lsn;
        let mut settled = Vec::new();
        let mut answers = Vec::with_capacity(work.len());
        for records in work {
            // A record that cannot be judged refuses its request; nothing was
            // written for it yet.
            let mut answer = Ok(Vec::with_capacity(records.len()));
            for (record, payload) in records {
                if let Record::Quarantine { sha256, birth } = &record {
                    settled.push((*sha256, *birth));
                }
                let (fate, write) = match self.resolve(&view, record) {
                    Ok(resolved) => resolved,
                    Err(error) => {
                        answer = Err(error);
                        break;
                    }
                };
                for (record, own) in write {
                    let bytes = if own { payload.as_ref() } else { &[] };
                    let place = builder.push(lsn, &record, bytes);
                    // The group is not written yet: a failed read of the index
                    // ends it and poisons nothing.
                    view.apply(lsn, &record, &place)?;
                    lsn = lsn.saturating_add(1);
                }
                if let Ok(fates) = &mut answer {
                    fates.push(match fate {
                        Fate::Written { .. } => Fate::Written {
                            lsn: lsn.saturating_sub(1),
                        },
                        fate => fate,
                    });
                }
            }
            answers.push(answer);
        }
        if !builder.is_empty() {
            let batch = view.into_batch(lsn.saturating_sub(1));
            if planted::is(Planted::IndexBeforeLog) {
                self.apply(batch.clone()).await?;
            }
            self.write(builder)
                .await
                .map_err(|error| self.poison.set(&error))?;
            drop(writing);
            self.metrics.records(lsn.saturating_sub(self.tail.next_lsn));
            self.tail.next_lsn = lsn;
            self.apply(batch).await?;
            self.marked = false;
        }
        for (sha256, birth) in settled {
            self.quarantine.settle(&sha256, birth);
        }
        Ok(answers)
    }

    /// Brings the index up to the group that is durable now. A full disk is
    /// waited out for a while: what is in the log must be in the index before
    /// anything else is.
    async fn apply(&self, batch: Batch) -> Result<()> {
        for _ in 0..FULL_TRIES {
            match self.index.apply(batch.clone()) {
                Ok(()) => return Ok(()),
                Err(IndexError::Full { reason, .. }) => {
                    tracing::warn!(%reason, "no room for the index; writes wait until there is");
                    self.runtime.sleep(FULL_PAUSE).await;
                }
                Err(error) => return Err(self.poison.set(&error)),
            }
        }
        self.index
            .apply(batch)
            .map_err(|error| self.poison.set(&error))
    }

    /// Goes on in a new file when `needed` bytes do not fit in this one.
    async fn make_room(&mut self, needed: usize) -> Result<()> {
        let needed = needed.next_multiple_of(BLOCK) as u64;
        if u64::from(self.tail.offset).saturating_add(needed) <= self.files.len() {
            return Ok(());
        }
        if needed.saturating_add(BLOCK as u64) > self.files.len() {
            return Err(Invalid::TooLarge {
                what: "a group of records",
                limit: self.files.len(),
            }
            .into());
        }
        let end = End {
            sequence: self.tail.file.header.sequence,
            offset: self.tail.offset,
            next_lsn: self.tail.next_lsn,
            next_group: self.tail.next_group,
            chain: self.tail.chain,
            torn: 0,
            last: (0, 0),
        };
        let header = header(self.runtime.as_ref(), self.store, &end);
        let file = match self.files.start(header).await {
            Ok(file) => file,
            // No room for a new file: the old one is whole, nothing is lost.
            Err(error @ Error::Full { .. }) => return Err(error),
            Err(error) => return Err(self.poison.set(&error)),
        };
        self.tail.file = file;
        self.tail.offset = BLOCK as u32;
        self.rotated.notify_one();
        Ok(())
    }

    async fn write(&mut self, builder: Builder) -> Result<()> {
        let (bytes, crc) = builder.finish();
        let mut buf = self.pool.take_now(bytes.len());
        buf.clear();
        buf.extend(&bytes);
        let file = &self.tail.file.inline;
        Arc::clone(file)
            .write_at(u64::from(self.tail.offset), buf)
            .await
            .0?;
        let began = self.runtime.now();
        if !planted::is(Planted::SkipSync) && !planted::is(Planted::AckBeforeDurable) {
            self.sync().await?;
        }
        let sync = self.runtime.now().saturating_sub(began);
        self.metrics.group(bytes.len(), sync);
        self.tail.offset = self
            .tail
            .offset
            .saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.tail.next_group = self.tail.next_group.saturating_add(1);
        self.tail.chain = crc;
        Ok(())
    }
}

impl Writer {
    /// Makes the groups of this file durable.
    async fn sync(&self) -> Result<()> {
        Ok(Arc::clone(&self.tail.file.inline).sync_data().await?)
    }
}

/// What woke the writer.
enum Next {
    Request(Request),
    Idle,
    Close(oneshot::Sender<Result<()>>),
    Gone,
}

/// An upper bound of what a record takes; a commit may turn into others that
/// are smaller together.
fn size((record, payload): &(Record, Bytes)) -> usize {
    // Three more headers cover a commit that becomes alias, note and abandon.
    footprint(record.encode().len(), payload.len())
        .saturating_add(orlop_format::header::LEN.saturating_mul(3))
}

fn weight(request: &Request) -> usize {
    request.records.iter().map(size).sum()
}

fn header(runtime: &dyn Runtime, store: [u8; 16], end: &End) -> FileHeader {
    FileHeader {
        store,
        sequence: end.sequence.saturating_add(1),
        salt: random_u64(runtime),
        first_lsn: end.next_lsn,
        first_group: end.next_group,
        previous: end.sequence,
        previous_end: end.offset,
        chain: end.chain,
    }
}

async fn new_file(parts: &Parts, end: &End) -> Result<JournalFile> {
    parts
        .files
        .start(header(parts.runtime.as_ref(), parts.store, end))
        .await
}
