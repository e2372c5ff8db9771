//! An open simulated file and its transfers.
//!
//! Invariants: a transfer that was polled once takes effect exactly once, also
//! when it is dropped before its end; one that was never polled has none.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;

use super::attempt::{Attempt, power_is_off};
use super::fault::Hold;
use super::file::Effect;
use super::{Fault, Gone, SECTOR, Sim, State, Verb};
use crate::system::{Transfer, Way};
use crate::{Access, BLOCK, BoxFuture, Buffer, File, Kind, Lane, Moved, OpenOptions, Result};

/// Polls that a delayed transfer waits at most.
const DELAY: u64 = 3;

pub(super) struct SimFile {
    sim: Arc<Sim>,
    id: u64,
    path: PathBuf,
    options: OpenOptions,
}

impl SimFile {
    pub(super) fn new(sim: Arc<Sim>, id: u64, path: PathBuf, options: OpenOptions) -> SimFile {
        SimFile {
            sim,
            id,
            path,
            options,
        }
    }

    fn start(self: Arc<Self>, verb: Verb, offset: u64, buf: Buffer) -> Operation {
        Operation {
            file: self,
            verb,
            offset,
            buf: Some(buf),
            wait: None,
            hold: None,
        }
    }

    /// The effect of a transfer or a sync, with its faults.
    fn run(&self, verb: Verb, offset: u64, buf: &mut Buffer) -> Result<()> {
        let mut state = self.sim.lock();
        let len = buf.len() as u64;
        let attempt = state.begin(verb, &self.path, offset, len);
        let result = self
            .check(verb, offset, buf.len())
            .and_then(|()| match verb {
                _ if attempt.dead => Err(power_is_off()),
                Verb::Read => state.read(self.id, &attempt, buf),
                Verb::Write => state.write(self.id, &attempt, buf),
                _ => state.sync(self.id, &attempt),
            });
        if result.is_ok() && self.options.lane == Lane::Shared {
            let counters = &mut state.counters;
            match verb {
                Verb::Read => {
                    (counters.reads, counters.bytes_read) =
                        (counters.reads + 1, counters.bytes_read + len)
                }
                Verb::Write => {
                    (counters.writes, counters.bytes_written) =
                        (counters.writes + 1, counters.bytes_written + len)
                }
                _ => counters.syncs += 1,
            }
        }
        state.end(attempt, result)
    }

    fn check(&self, verb: Verb, offset: u64, len: usize) -> io::Result<()> {
        let aligned = offset.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK);
        let end = offset
            .checked_add(len as u64)
            .and_then(|end| i64::try_from(end).ok());
        if (self.options.direct && !aligned) || end.is_none() {
            return Err(Kind::Invalid.example());
        }
        self.check_writable(verb)
    }

    fn check_writable(&self, verb: Verb) -> io::Result<()> {
        let writes = !matches!(verb, Verb::Read | Verb::Sync | Verb::Len);
        // As the kernel has it for a handle that was opened for reading.
        if writes && !self.options.write {
            Err(rustix::io::Errno::BADF.into())
        } else {
            Ok(())
        }
    }

    /// A change that is no transfer.
    fn change(&self, verb: Verb, effect: Effect) -> Result<()> {
        let (offset, len) = match effect {
            Effect::Reserve { offset, len } | Effect::Punch { offset, len } => (offset, len),
            Effect::Length(len) => (0, len),
            Effect::Write { offset, .. } => (offset, 0),
        };
        let mut state = self.sim.lock();
        let attempt = state.begin(verb, &self.path, offset, len);
        let result = state.settle(&attempt, |state| {
            self.check_writable(verb)?;
            if verb == Verb::Punch && state.is_holeless {
                return Err(Kind::Unsupported.example());
            }
            let file = state.tree.file(self.id).map_err(Gone::error)?;
            if let Effect::Reserve { offset, len } = effect {
                let missing = file.written.content.missing(offset, len);
                state.room_for(missing)?;
            }
            let empty = len == 0 && !matches!(effect, Effect::Length(_));
            let end = offset
                .checked_add(len)
                .and_then(|end| i64::try_from(end).ok());
            if empty || end.is_none() {
                return Err(Kind::Invalid.example());
            }
            state.change(self.id, effect)
        });
        state.end(attempt, result)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.sim.lock();
        let Ok(file) = state.tree.file(self.id) else {
            return;
        };
        file.open = file.open.saturating_sub(1);
        if file.open == 0 {
            state.tree.sweep();
        }
    }
}

impl File for SimFile {
    fn read_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        self.start(Verb::Read, offset, buf).boxed()
    }

    fn write_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved> {
        self.start(Verb::Write, offset, buf).boxed()
    }

    fn sync_data(self: Arc<Self>) -> BoxFuture<'static, Result<()>> {
        self.start(Verb::Sync, 0, Buffer::empty())
            .map(|(result, _)| result)
            .boxed()
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.change(Verb::Allocate, Effect::Reserve { offset, len })
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.change(Verb::Punch, Effect::Punch { offset, len })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(Verb::SetLen, Effect::Length(len))
    }

    fn len(&self) -> Result<u64> {
        let mut state = self.sim.lock();
        let attempt = state.begin(Verb::Len, &self.path, 0, 0);
        let result = state.settle(&attempt, |state| {
            state
                .tree
                .file(self.id)
                .map(|file| file.written.len)
                .map_err(Gone::error)
        });
        state.end(attempt, result)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn access(&self) -> Access {
        if self.options.direct {
            Access::Direct
        } else {
            Access::Buffered
        }
    }
}

impl State {
    fn change(&mut self, id: u64, effect: Effect) -> io::Result<()> {
        let sequence = self.tree.tick();
        self.tree
            .file(id)
            .map_err(Gone::error)?
            .change(sequence, effect);
        Ok(())
    }

    fn read(&mut self, id: u64, attempt: &Attempt, buf: &mut Buffer) -> io::Result<()> {
        let (len, mut offset) = (attempt.record.len, attempt.record.offset);
        let fault = attempt.record.fault;
        if fault == Some(Fault::Misdirect) {
            let size = self.tree.file(id).map_err(Gone::error)?.written.len;
            offset = self.elsewhere(offset, len, size).unwrap_or(offset);
        }
        let file = self.tree.file(id).map_err(Gone::error)?;
        match fault {
            Some(fault) if !fault.is_of_calls() && fault.failure().is_some() => {
                return Err(fault.failure().unwrap_or_else(power_is_off));
            }
            Some(Fault::PowerOff) => return Err(power_is_off()),
            Some(Fault::Rot) => file.spoil(offset, len),
            _ => {}
        }
        if len > 0 && offset.saturating_add(len) > file.written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !file.is_readable(offset, len) {
            return Err(Kind::Io.example());
        }
        let wanted = buf.len();
        let to = buf.as_mut_slice().get_mut(..wanted).unwrap_or_default();
        match fault {
            Some(Fault::Partial(kind)) => {
                let part = to.len() / 2;
                file.written
                    .content
                    .read(offset, to.get_mut(..part).unwrap_or_default());
                return Err(kind.example());
            }
            Some(fault) if fault.is_of_calls() => {
                return self.calls(Way::Read, attempt, |state, from, len| {
                    let to = to.get_mut(from..from + len).unwrap_or_default();
                    let file = state.tree.file(id).map_err(Gone::error)?;
                    file.written.content.read(offset + from as u64, to);
                    Ok(())
                });
            }
            _ => file.written.content.read(offset, to),
        }
        if fault == Some(Fault::Flip) {
            self.flip(to);
        }
        Ok(())
    }

    fn write(&mut self, id: u64, attempt: &Attempt, buf: &Buffer) -> io::Result<()> {
        let (len, mut offset) = (attempt.record.len, attempt.record.offset);
        if len == 0 {
            return Ok(());
        }
        let file = self.tree.file(id).map_err(Gone::error)?;
        let (size, missing) = (file.written.len, file.written.content.missing(offset, len));
        let fault = attempt.record.fault;
        match fault {
            Some(fault) if fault.is_of_calls() => {
                return self.calls(Way::Write, attempt, |state, from, len| {
                    let (at, part) = (offset + from as u64, len as u64);
                    let file = state.tree.file(id).map_err(Gone::error)?;
                    let missing = file.written.content.missing(at, part);
                    state.room_for(missing)?;
                    let data = buf.as_slice().get(from..from + len).unwrap_or_default();
                    let effect = Effect::Write {
                        offset: at,
                        data: data.into(),
                    };
                    state.change(id, effect)
                });
            }
            Some(fault) if fault.failure().is_some() => {
                return Err(fault.failure().unwrap_or_else(power_is_off));
            }
            Some(Fault::Lose) => return Ok(()),
            Some(Fault::Misdirect) => match self.elsewhere(offset, len, size) {
                Some(place) => offset = place,
                None => return Ok(()),
            },
            _ => self.room_for(missing)?,
        }
        let mut data = buf.as_slice().to_vec();
        match fault {
            Some(Fault::Flip) => self.flip(&mut data),
            Some(Fault::Partial(_)) => {
                let sectors = self.random.below(len.div_ceil(SECTOR));
                data.truncate(usize::try_from(sectors * SECTOR).unwrap_or(0));
            }
            _ => {}
        }
        if !data.is_empty() {
            self.change(
                id,
                Effect::Write {
                    offset,
                    data: data.into(),
                },
            )?;
        }
        match fault {
            Some(Fault::Partial(kind)) => Err(kind.example()),
            Some(Fault::PowerOff) => Err(power_is_off()),
            Some(Fault::Rot) => {
                self.tree.file(id).map_err(Gone::error)?.spoil(offset, len);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Moves bytes in as many calls as the kernel wants, by the rules of the
    /// real disks. The fault strikes the first call, a sticky one all.
    fn calls(
        &mut self,
        way: Way,
        attempt: &Attempt,
        mut one: impl FnMut(&mut State, usize, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let len = usize::try_from(attempt.record.len).unwrap_or(usize::MAX);
        let stepped = len.is_multiple_of(BLOCK);
        let Some(mut transfer) = Transfer::over(way, attempt.record.offset, len, stepped) else {
            return Ok(());
        };
        let mut struck = true;
        loop {
            let (done, left) = (transfer.done(), transfer.len() - transfer.done());
            let call = match attempt.record.fault {
                Some(Fault::Errno(errno)) if struck => Err(errno.error()),
                Some(Fault::Short) if struck => Ok(self.part(left)),
                _ => Ok(left),
            };
            struck = attempt.sticky;
            if let Ok(moved) = call {
                one(self, done, moved)?;
            }
            if transfer.advance(call)? {
                return Ok(());
            }
        }
    }

    /// Some of `left` bytes, in whole sectors, at least one.
    fn part(&mut self, left: usize) -> usize {
        let sectors = (left as u64).div_ceil(SECTOR);
        let some = self.random.below(sectors.saturating_sub(1)) + 1;
        usize::try_from(some * SECTOR).unwrap_or(left).min(left)
    }

    fn sync(&mut self, id: u64, attempt: &Attempt) -> io::Result<()> {
        let file = self.tree.file(id).map_err(Gone::error)?;
        let dirty = file.is_dirty();
        let failure = attempt.record.fault.and_then(Fault::failure);
        let synced = match attempt.record.fault {
            _ if failure.is_some() => {
                file.sync_failed();
                Err(failure.unwrap_or_else(power_is_off))
            }
            // What waits goes on waiting; a crash decides.
            Some(Fault::PowerOff) => return Err(power_is_off()),
            Some(Fault::Lose) => return Ok(()),
            _ => {
                file.sync();
                Ok(())
            }
        };
        if dirty {
            self.tree.settle();
        }
        synced
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let bit = self.random.below(bytes.len() as u64 * 8);
        let place = usize::try_from(bit / 8).unwrap_or(0);
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Another place for a transfer: a block of the file, such that all of it
    /// stays within the file and does not touch its own place.
    fn elsewhere(&mut self, offset: u64, len: u64, size: u64) -> Option<u64> {
        let block = BLOCK as u64;
        let places = size.checked_sub(len)? / block + 1;
        let fits = |at: u64| at + len <= offset || at >= offset.saturating_add(len);
        let first = self.random.below(places);
        let mut candidates = (first..places).chain(0..first).map(|place| place * block);
        candidates.find(|&at| fits(at))
    }
}

/// A transfer or sync in flight.
struct Operation {
    file: Arc<SimFile>,
    verb: Verb,
    offset: u64,
    /// There until the effect is.
    buf: Option<Buffer>,
    /// Polls still to wait; `None` before the first.
    wait: Option<u64>,
    /// What it waits for before, if it is stalled.
    hold: Option<BoxFuture<'static, ()>>,
}

impl Operation {
    fn run(&mut self) -> Option<Moved> {
        let mut buf = self.buf.take()?;
        let result = self.file.run(self.verb, self.offset, &mut buf);
        Some((result, buf))
    }

    fn draw(&self) -> u64 {
        let mut state = self.file.sim.lock();
        let percent = state.delayed;
        // Without delays the seed's numbers are left to the faults.
        let late = percent > 0 && self.file.options.lane == Lane::Shared;
        if late && state.random.chance(percent) {
            1 + state.random.below(DELAY)
        } else {
            0
        }
    }
}

impl Operation {
    fn stalled(&self) -> Option<Hold> {
        let mut state = self.file.sim.lock();
        state.faults.hold(self.verb, &self.file.path)
    }
}

impl Future for Operation {
    type Output = Moved;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Moved> {
        let wait = match self.wait {
            Some(wait) => wait,
            None => {
                // The lock is not held while somebody else's code runs.
                let hold = self.stalled();
                self.hold = hold.map(|make| make());
                let wait = self.draw();
                self.wait = Some(wait);
                wait
            }
        };
        if let Some(hold) = &mut self.hold {
            if hold.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.hold = None;
        }
        if wait > 0 {
            self.wait = Some(wait - 1);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.wait = Some(0);
        match self.run() {
            Some(moved) => Poll::Ready(moved),
            // Polled after its end, which a future may answer as it likes.
            None => Poll::Pending,
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.wait.is_some() {
            drop(self.run());
        }
    }
}
