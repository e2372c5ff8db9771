//! Parts without locks, for the models of `tests/sim/tests/loom.rs`.

/// Blobs whose damage was just seen.
#[derive(Debug, Default)]
pub struct Quarantine(crate::quarantine::Quarantine);

impl Quarantine {
    /// Puts a blob in. False when it was in already.
    pub fn add(&self, sha256: [u8; 32], birth: u64) -> bool {
        self.0.add(sha256, birth)
    }

    /// Whether a blob is in.
    pub fn contains(&self, sha256: &[u8; 32], birth: u64) -> bool {
        self.0.contains(sha256, birth)
    }

    /// Forgets a blob whose row says it now.
    pub fn settle(&self, sha256: &[u8; 32], birth: u64) {
        self.0.settle(sha256, birth);
    }
}
