//! What the verbs of the registry did.

use super::Count;
use super::text::Text;

/// Counts of the registry's verbs.
#[derive(Debug, Default)]
pub struct Verbs {
    /// Manifests answered to a GET.
    pub manifest_pulls: Count,
    /// Manifests pushed.
    pub manifest_pushes: Count,
    /// Blobs opened by a GET, whole or in part.
    pub blob_pulls: Count,
    /// Uploads that ended as a blob.
    pub blob_pushes: Count,
    /// Bytes of them.
    pub blob_push_bytes: Count,
    /// Blobs taken over from another repository.
    pub blob_mounts: Count,
}

impl Verbs {
    /// Publishes all of them.
    pub fn write(&self, text: &mut Text) {
        for (name, help, count) in [
            (
                "orlop_manifest_pulls_total",
                "Manifests answered to a GET; HEAD and 304 do not count.",
                &self.manifest_pulls,
            ),
            (
                "orlop_manifest_pushes_total",
                "Manifests pushed.",
                &self.manifest_pushes,
            ),
            (
                "orlop_blob_pulls_total",
                "Blobs opened by a GET; each range of one counts.",
                &self.blob_pulls,
            ),
            (
                "orlop_blob_pushes_total",
                "Uploads that ended as a blob of a repository.",
                &self.blob_pushes,
            ),
            (
                "orlop_blob_push_bytes_total",
                "Bytes of the blobs that uploads ended as.",
                &self.blob_push_bytes,
            ),
            (
                "orlop_blob_mounts_total",
                "Blobs mounted from another repository.",
                &self.blob_mounts,
            ),
        ] {
            text.counter(name, help, count.get());
        }
    }
}
