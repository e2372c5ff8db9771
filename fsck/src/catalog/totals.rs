//! Count and sum of a repository's manifests and edges, as the catalog keeps
//! them: FNV-1a (64 bits) over what each row says, added up with wrapping.

/// Count and sum over the rows of one repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) manifests: i64,
    pub(crate) manifest_sum: i64,
    pub(crate) edges: i64,
    pub(crate) edge_sum: i64,
}

impl Totals {
    /// Adds a manifest, by its encoded digest.
    pub(crate) fn add_manifest(&mut self, digest: &[u8]) {
        self.manifests = self.manifests.wrapping_add(1);
        self.manifest_sum = self.manifest_sum.wrapping_add(sum(&[digest]));
    }

    /// Adds an edge, by its kind and the encoded digests of both ends.
    pub(crate) fn add_edge(&mut self, manifest: &[u8], kind: i64, digest: &[u8]) {
        self.edges = self.edges.wrapping_add(1);
        let row = sum(&[manifest, &kind.to_le_bytes(), digest]);
        self.edge_sum = self.edge_sum.wrapping_add(row);
    }

    /// Takes a manifest away that was added.
    pub(crate) fn take_manifest(&mut self, digest: &[u8]) {
        self.manifests = self.manifests.wrapping_sub(1);
        self.manifest_sum = self.manifest_sum.wrapping_sub(sum(&[digest]));
    }

    /// Takes an edge away that was added.
    pub(crate) fn take_edge(&mut self, manifest: &[u8], kind: i64, digest: &[u8]) {
        self.edges = self.edges.wrapping_sub(1);
        let row = sum(&[manifest, &kind.to_le_bytes(), digest]);
        self.edge_sum = self.edge_sum.wrapping_sub(row);
    }
}

fn sum(parts: &[&[u8]]) -> i64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut sum = START;
    for byte in parts.iter().copied().flatten() {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    i64::from_le_bytes(sum.to_le_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sum_is_that_of_fnv_1a() {
        assert_eq!(super::sum(&[b"foo", b"bar"]) as u64, 0x8594_4171_f739_67e8);
    }
}
