//! Names: each points to a blob that is there and whole.

use orlop_engine::Store;

use super::{Checked, Checker, Seen};
use crate::catalog::Rows;
use crate::model::Facts;

pub(super) async fn check(store: &Store, names: &Rows, facts: &Facts, seen: &Seen) -> Checked<()> {
    for digest in names.digests() {
        if seen.blobs.contains_key(&digest) {
            continue;
        }
        let answer = store.stat(&digest).err().map(|error| error.to_string());
        let known = facts.blobs.contains_key(&digest);
        return Err(Checker::Names.finds(format_args!(
            "a name points to {digest}, which is not there (pushed: {known}; {answer:?})"
        )));
    }
    let sizes = names.links.iter().map(|((_, digest), size)| (digest, size));
    let manifests = names
        .manifests
        .iter()
        .map(|((_, digest), (size, _))| (digest, size));
    for (digest, size) in sizes.chain(manifests) {
        if seen.blobs.get(digest).map(|len| *len as u64) != Some(*size) {
            return Err(Checker::Names.finds(format_args!("the names give {digest} {size} bytes")));
        }
    }
    Ok(())
}
