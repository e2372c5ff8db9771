//! What goes wrong on a simulated disk, and when.
//!
//! Owns: plans, and the decision which operation one of them strikes.
//! Invariant: a plan counts only the operations that it could strike, so that
//! `after(n)` for every n reaches each of them once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{BoxFuture, Kind};

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

impl Verb {
    /// Whether it may change what the disk holds, or what of it is durable.
    pub(super) fn changes(self) -> bool {
        !matches!(
            self,
            Verb::List | Verb::Exists | Verb::Space | Verb::Read | Verb::Len
        )
    }
}

/// Numbers of errors that the kernel gives, by their usual names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the kernel's own name")]
pub enum Errno {
    Eio,
    Enospc,
    Edquot,
    Efbig,
    Emfile,
    Enfile,
    Enomem,
    Eintr,
    Eagain,
    Erofs,
}

impl Errno {
    /// All of them.
    pub const ALL: [Errno; 10] = [
        Errno::Eio,
        Errno::Enospc,
        Errno::Edquot,
        Errno::Efbig,
        Errno::Emfile,
        Errno::Enfile,
        Errno::Enomem,
        Errno::Eintr,
        Errno::Eagain,
        Errno::Erofs,
    ];

    /// As the operating system gives it.
    #[must_use]
    pub fn error(self) -> io::Error {
        use rustix::io::Errno as Os;
        let os = match self {
            Errno::Eio => Os::IO,
            Errno::Enospc => Os::NOSPC,
            Errno::Edquot => Os::DQUOT,
            Errno::Efbig => Os::FBIG,
            Errno::Emfile => Os::MFILE,
            Errno::Enfile => Os::NFILE,
            Errno::Enomem => Os::NOMEM,
            Errno::Eintr => Os::INTR,
            Errno::Eagain => Os::AGAIN,
            Errno::Erofs => Os::ROFS,
        };
        os.into()
    }

    /// Whether a read or write that gets it is called again.
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Errno::Eintr | Errno::Eagain)
    }
}

/// What happens to an operation that a plan strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and changes nothing. After a failed sync the data, or the
    /// names, count as clean: no later sync makes them durable.
    Fail(Kind),
    /// The kernel answers with this number. It is [`Fault::Fail`] otherwise, but
    /// that a read or write which was only interrupted is called again, as the
    /// real disks do; a sticky plan strikes each of those calls too.
    Errno(Errno),
    /// The kernel moves a part of a read or write, in whole sectors, and says
    /// so. The disk goes on with the rest, as the real ones do.
    Short,
    /// A read, write or sync begins when the future of [`Plan::stall`] is ready.
    Stall,
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
    /// The error of an operation that fails and changes nothing.
    pub(super) fn failure(self) -> Option<io::Error> {
        match self {
            Fault::Fail(kind) => Some(kind.example()),
            Fault::Errno(errno) => Some(errno.error()),
            _ => None,
        }
    }

    /// Whether it strikes single calls of a transfer, which may still succeed.
    pub(super) fn is_of_calls(self) -> bool {
        match self {
            Fault::Short => true,
            Fault::Errno(errno) => errno.is_passing(),
            _ => false,
        }
    }

    /// Whether it means something for the operation.
    fn strikes(self, verb: Verb) -> bool {
        match self {
            Fault::Fail(_) | Fault::Errno(_) | Fault::PowerOff => true,
            Fault::Stall => matches!(verb, Verb::Read | Verb::Write | Verb::Sync),
            Fault::Short | Fault::Partial(_) | Fault::Flip | Fault::Misdirect | Fault::Rot => {
                matches!(verb, Verb::Read | Verb::Write)
            }
            Fault::Lose => matches!(verb, Verb::Write | Verb::Sync | Verb::SyncDir),
        }
    }
}

/// Makes what a stalled operation waits for.
pub(super) type Hold = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// When a fault strikes: by default the next operation it can strike, once.
#[derive(Clone)]
pub struct Plan {
    fault: Fault,
    hold: Option<Hold>,
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
            hold: None,
            after: 0,
            verb: None,
            under: None,
            sticky: false,
            spent: false,
        }
    }

    /// A plan that holds up a read, write or sync until the future that `hold`
    /// makes is ready: a clock's, for a slow disk; one that somebody completes,
    /// for a disk that hangs. One that is dropped while it waits takes effect.
    #[must_use]
    pub fn stall(hold: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Plan {
        Plan {
            hold: Some(Arc::new(hold)),
            ..Plan::new(Fault::Stall)
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

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("fault", &self.fault)
            .field("after", &self.after)
            .field("verb", &self.verb)
            .field("under", &self.under)
            .field("sticky", &self.sticky)
            .finish_non_exhaustive()
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

    /// The fault for an operation, and whether it stays. Every plan counts it;
    /// the oldest that strikes wins.
    pub(super) fn strike(&mut self, verb: Verb, path: &Path) -> Option<(Fault, bool)> {
        let mut chosen = None;
        for plan in &mut self.plans {
            if plan.fault != Fault::Stall {
                let fault = plan.strike(verb, path);
                chosen = chosen.or(fault.map(|fault| (fault, plan.sticky)));
            }
        }
        self.settle(chosen.is_some());
        chosen
    }

    /// What an operation that is about to begin waits for, if it is stalled.
    pub(super) fn hold(&mut self, verb: Verb, path: &Path) -> Option<Hold> {
        let mut chosen = None;
        for plan in &mut self.plans {
            if plan.fault == Fault::Stall && plan.strike(verb, path).is_some() {
                chosen = chosen.or_else(|| plan.hold.clone());
            }
        }
        self.settle(chosen.is_some());
        chosen
    }

    fn settle(&mut self, struck: bool) {
        self.plans.retain(|plan| !plan.spent);
        self.struck += u64::from(struck);
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
