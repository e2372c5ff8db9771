//! A flipped bit anywhere in the store: what matters is found, what does not
//! is passed over, and nothing makes the program crash.

use crate::support::{Folder, ONE, SMALL, TWO};
use crate::v1;

/// Distance between the bits that are flipped: a prime, so that the sweep
/// meets every field of the headers it passes.
const STEP: usize = 1_009;

#[test]
fn a_flipped_bit_never_crashes_and_only_slack_is_clean() {
    let folder = Folder::golden();
    let (mut clean, mut found) = (0, 0);
    for (path, bytes) in v1::store().files() {
        let file = path.to_str().unwrap();
        for at in (0..bytes.len()).step_by(STEP) {
            folder.edit(file, |bytes| bytes[at] ^= 0x10);
            let said = folder.check();
            match said.status {
                0 => {
                    assert!(is_slack(file, &bytes, at), "{file} at {at} was passed over");
                    clean += 1;
                }
                1 => found += 1,
                status => panic!("{file} at {at}: status {status}: {}", said.error),
            }
            folder.write(file, &bytes);
        }
    }
    assert!(
        clean > 10 && found > 80,
        "{clean} passed over, {found} found"
    );
}

/// Whether a byte may change unseen: filling, what no live blob refers to, and
/// what a crash may have torn.
fn is_slack(file: &str, bytes: &[u8], at: usize) -> bool {
    // Blocks are filled with zeros; no live content has this many in a row.
    let zeros =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|b| b.iter().all(|b| *b == 0));
    if zeros(at.saturating_sub(8)..at + 8) || at + 16 >= bytes.len() {
        return true;
    }
    let store = v1::store();
    let unused = store
        .blobs
        .iter()
        .filter(|blob| blob.state != v1::State::Live && blob.bytes.len() < 5_050);
    let inside = unused.into_iter().any(|blob| holds(bytes, at, &blob.bytes));
    // The last group of the last file may be torn, the cut one's rest does not
    // count. Of the superblock the slot that is written next may be torn, and
    // so may the newest: then the one before it holds.
    inside
        // The first life of this one ended with a tombstone.
        || (file == SMALL && holds(bytes, at, &store.blobs[2].bytes))
        || (file == TWO && at >= bytes.len() - 4096)
        || (file == ONE && at >= bytes.len() - 8192 + 1_000)
        || (file.starts_with("superblock") && at < 4096)
}

/// Whether the byte lies in a copy of `content`.
fn holds(bytes: &[u8], at: usize, content: &[u8]) -> bool {
    (0..content.len().min(at + 1))
        .any(|back| bytes.get(at - back..at - back + content.len()) == Some(content))
}
