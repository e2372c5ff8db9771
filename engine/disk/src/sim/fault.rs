//! What goes wrong on a simulated disk, and when.
//!
//! Owns: plans, and the decision which operation one of them strikes.
//! Invariant: a plan counts only the operations that it could strike, so that
//! `after(n)` for every n reaches each of them once.

use std::path::{Path, PathBuf};

use crate::Kind;

/// The operations of a simulated disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    missing_docs,
    reason = "each is named after its method of Disk or File"
)]
pub enum Verb {
    Open,
    CreateDir,
    List,
    Rename,
    Remove,
    SyncDir,
    Exists,
    Space,
    Read,
    Write,
    Sync,
    Allocate,
    Punch,
    SetLen,
    Len,
}

/// What happens to an operation that a plan strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and changes nothing. After a failed sync the data, or the
    /// names, count as clean: no later sync makes them durable.
    Fail(Kind),
    /// A read or write moves a part, in whole sectors, and then fails.
    Partial(Kind),
    /// One bit of what is read, or of what lands, is wrong. Success is told.
    Flip,
    /// A write lands on, or a read comes from, another place of the file.
    /// Success is told. In a file without another place nothing lands.
    Misdirect,
    /// A write does not land; a sync makes nothing durable and leaves the
    /// data waiting for the next one. Success is told.
    Lose,
    /// The sectors become unreadable until they are written again. A write
    /// that is struck tells success; a read fails.
    Rot,
    /// The machine stops. The operation may or may not reach the disk and is
    /// not answered with success; everything after it fails.
    PowerOff,
}

impl Fault {
    /// Whether it means something for the operation.
    fn strikes(self, verb: Verb) -> bool {
        match self {
            Fault::Fail(_) | Fault::PowerOff => true,
            Fault::Partial(_) | Fault::Flip | Fault::Misdirect | Fault::Rot => {
                matches!(verb, Verb::Read | Verb::Write)
            }
            Fault::Lose => matches!(verb, Verb::Write | Verb::Sync | Verb::SyncDir),
        }
    }
}

/// When a fault strikes: by default the next operation it can strike, once.
#[derive(Clone, Debug)]
pub struct Plan {
    fault: Fault,
    after: u64,
    verb: Option<Verb>,
    under: Option<PathBuf>,
    sticky: bool,
    spent: bool,
}

impl Plan {
    /// A plan for the next operation that the fault can strike.
    #[must_use]
    pub fn new(fault: Fault) -> Plan {
        Plan {
            fault,
            after: 0,
            verb: None,
            under: None,
            sticky: false,
            spent: false,
        }
    }

    /// Lets so many operations pass first.
    #[must_use]
    pub fn after(mut self, operations: u64) -> Plan {
        self.after = operations;
        self
    }

    /// Strikes, and counts, only operations of this kind.
    #[must_use]
    pub fn on(mut self, verb: Verb) -> Plan {
        self.verb = Some(verb);
        self
    }

    /// Strikes, and counts, only operations on this path or below it.
    #[must_use]
    pub fn under(mut self, path: impl Into<PathBuf>) -> Plan {
        self.under = Some(path.into());
        self
    }

    /// Strikes every such operation from then on.
    #[must_use]
    pub fn sticky(mut self) -> Plan {
        self.sticky = true;
        self
    }

    /// Counts an operation, and says whether it is struck.
    fn strike(&mut self, verb: Verb, path: &Path) -> Option<Fault> {
        let fits = self.fault.strikes(verb)
            && self.verb.is_none_or(|wanted| wanted == verb)
            && self
                .under
                .as_ref()
                .is_none_or(|under| path.starts_with(under));
        if self.spent || !fits {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        self.spent = !self.sticky;
        Some(self.fault)
    }
}

/// The plans of a disk.
#[derive(Default)]
pub(super) struct Faults {
    plans: Vec<Plan>,
    struck: u64,
}

impl Faults {
    pub(super) fn add(&mut self, plan: Plan) {
        self.plans.push(plan);
    }

    pub(super) fn clear(&mut self) {
        self.plans.clear();
    }

    /// How many operations were struck.
    pub(super) fn struck(&self) -> u64 {
        self.struck
    }

    /// The fault for an operation. Every plan counts it; the oldest that
    /// strikes wins.
    pub(super) fn strike(&mut self, verb: Verb, path: &Path) -> Option<Fault> {
        let mut chosen = None;
        for plan in &mut self.plans {
            let fault = plan.strike(verb, path);
            chosen = chosen.or(fault);
        }
        self.plans.retain(|plan| !plan.spent);
        self.struck += u64::from(chosen.is_some());
        chosen
    }
}

/// One operation as it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number: [`super::Sim::operations`] before it.
    pub number: u64,
    /// What it was.
    pub verb: Verb,
    /// On what.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// The fault that struck it.
    pub fault: Option<Fault>,
    /// How it failed, if it did.
    pub failed: Option<Kind>,
}
