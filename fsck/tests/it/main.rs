//! `orlop-fsck` on the golden store, whole and damaged in one place each, and
//! on stores that the engine made: what it says, and with which status it
//! ends.

#[cfg(test)]
#[path = "../../../tests/golden/v1.rs"]
mod v1;

#[cfg(test)]
mod named;
#[cfg(test)]
mod support;

#[cfg(test)]
mod arguments; // what is looked at, and how it is shown
#[cfg(test)]
mod clean; // nothing to find, and what a crash leaves is only noted
#[cfg(test)]
mod damage; // one finding for each kind of damage
#[cfg(test)]
mod engine; // stores of the real engine, with their index
#[cfg(test)]
mod further; // further digests that only the index knows are not lost by a repair
#[cfg(test)]
mod golden; // one damaged store and one expected report for each code
#[cfg(test)]
mod interrupted; // a repair that was interrupted ends as one that was not
#[cfg(test)]
mod lost; // a repair beside files of segments that are lost
#[cfg(test)]
mod operators; // what operators did to names is left as it was by a repair
#[cfg(test)]
mod page; // docs/fsck.md says what the codes say
#[cfg(test)]
mod recipes; // how the files of a store are damaged for a code
#[cfg(test)]
mod recipes_catalog; // how its names are
#[cfg(test)]
mod recipes_index; // how its index is
#[cfg(test)]
mod references; // what manifests refer to and is not here
#[cfg(test)]
mod refusal; // when it cannot look
#[cfg(test)]
mod repair; // what a repair takes and leaves alone
#[cfg(test)]
mod replayed; // notes about what a copy of the catalog has already
#[cfg(test)]
mod scale; // a log of many blobs: time and memory
#[cfg(test)]
mod space; // stores that gave room back
#[cfg(test)]
mod sweep; // a flipped bit anywhere is never passed over and never a crash
