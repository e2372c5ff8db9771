//! `orlop-fsck` on the golden store, whole and damaged in one place each: what
//! it says, and with which status it ends.

#[cfg(test)]
#[path = "../../../tests/golden/v1.rs"]
mod v1;

#[cfg(test)]
mod named;
#[cfg(test)]
mod support;

#[cfg(test)]
mod clean; // nothing to find, and what a crash leaves is only noted
#[cfg(test)]
mod damage; // one finding for each kind of damage
#[cfg(test)]
mod golden; // one damaged store and one expected report for each code
#[cfg(test)]
mod interrupted; // a repair that was interrupted ends as one that was not
#[cfg(test)]
mod recipes_catalog; // a store and a report for each code about names
#[cfg(test)]
mod refusal; // when it cannot look
#[cfg(test)]
mod sweep; // a flipped bit anywhere is never passed over and never a crash
