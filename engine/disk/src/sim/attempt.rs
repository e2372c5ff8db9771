//! One operation on its way through a simulated disk: counted, struck by a
//! fault or not, logged.
//!
//! Invariant: every operation is counted and logged once, also when it fails
//! or the machine is off.

use std::io;
use std::path::Path;

use super::{Fault, LOG, Record, State, Verb};
use crate::{BLOCK, DiskError, Kind, Result};

/// An operation on its way through the state.
pub(super) struct Attempt {
    pub(super) record: Record,
    /// The machine was off before it began.
    pub(super) dead: bool,
    /// The fault strikes whatever comes after as well.
    pub(super) sticky: bool,
}

impl State {
    /// Counts an operation and finds the fault that strikes it.
    pub(super) fn begin(&mut self, verb: Verb, path: &Path, offset: u64, len: u64) -> Attempt {
        let number = self.operations;
        self.operations += 1;
        let dead = self.off;
        let struck = if dead {
            None
        } else {
            if verb.changes() {
                self.show(number);
            }
            self.faults.strike(verb, path)
        };
        let (fault, sticky) = (struck.map(|(fault, _)| fault), struck.is_some_and(|s| s.1));
        self.off |= fault == Some(Fault::PowerOff);
        let path = path.to_owned();
        Attempt {
            record: Record {
                number,
                verb,
                path,
                offset,
                len,
                fault,
                failed: None,
            },
            dead,
            sticky,
        }
    }

    /// Runs what an operation does, unless it is struck. When the power goes,
    /// the effect is there, not durable, and nobody is told.
    pub(super) fn settle<T>(
        &mut self,
        attempt: &Attempt,
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        if attempt.dead {
            return Err(power_is_off());
        }
        if let Some(error) = attempt.record.fault.and_then(Fault::failure) {
            return Err(error);
        }
        match attempt.record.fault {
            Some(Fault::Partial(kind)) => Err(kind.example()),
            Some(Fault::PowerOff) => run(self).and_then(|_| Err(power_is_off())),
            _ => run(self),
        }
    }

    /// Logs how it went, and makes an error of it.
    pub(super) fn end<T>(&mut self, attempt: Attempt, result: io::Result<T>) -> Result<T> {
        let mut record = attempt.record;
        record.failed = result.as_ref().err().map(Kind::of);
        let wrapped =
            result.map_err(|error| DiskError::new(name(record.verb), &record.path, error));
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(record);
        wrapped
    }

    /// Refuses what does not fit.
    pub(super) fn room_for(&self, pages: u64) -> io::Result<()> {
        let used = self
            .tree
            .pages()
            .saturating_add(pages)
            .saturating_mul(BLOCK as u64);
        if pages > 0 && used > self.capacity {
            Err(Kind::Full.example())
        } else {
            Ok(())
        }
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the simulated machine is off")
}

/// The verb of an error message.
fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Open => "open",
        Verb::CreateDir => "create the folder",
        Verb::List => "list",
        Verb::Rename => "rename",
        Verb::Remove => "remove",
        Verb::SyncDir => "sync the folder",
        Verb::Exists => "look up",
        Verb::Space => "ask for the free space of",
        Verb::Read => "read",
        Verb::Write => "write",
        Verb::Sync => "sync",
        Verb::Allocate => "allocate",
        Verb::Punch => "punch a hole into",
        Verb::SetLen => "set the length of",
        Verb::Len => "read the length of",
    }
}
