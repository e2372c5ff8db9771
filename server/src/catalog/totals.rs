//! Count and sum of a repository's manifests and edges.
//!
//! They are written in the transaction that adds or removes a row, so that
//! whoever reads all rows can tell that he got all of them, as they were
//! written: a rotten page must not turn into a missing root.
//!
//! A row's sum is FNV-1a (64 bits) over what the live set takes from it; the
//! total is the wrapping sum over all rows, hidden ones too.

use super::sql::{Arg, Connection};

/// Count and sum over the rows of one repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many manifests there are.
    pub manifests: i64,
    /// Their sum.
    pub manifest_sum: i64,
    /// How many edges there are.
    pub edges: i64,
    /// Their sum.
    pub edge_sum: i64,
}

impl Totals {
    /// Adds a manifest, by its encoded digest.
    pub(super) fn add_manifest(&mut self, digest: &[u8]) {
        self.manifests = self.manifests.wrapping_add(1);
        self.manifest_sum = self.manifest_sum.wrapping_add(sum(&[digest]));
    }

    /// Adds an edge, by its kind and the encoded digests of both ends.
    pub(super) fn add_edge(&mut self, manifest: &[u8], kind: i64, digest: &[u8]) {
        self.edges = self.edges.wrapping_add(1);
        let row = sum(&[manifest, &kind.to_le_bytes(), digest]);
        self.edge_sum = self.edge_sum.wrapping_add(row);
    }

    /// Takes a manifest away that was added.
    pub(super) fn take_manifest(&mut self, digest: &[u8]) {
        self.manifests = self.manifests.wrapping_sub(1);
        self.manifest_sum = self.manifest_sum.wrapping_sub(sum(&[digest]));
    }

    /// Takes an edge away that was added.
    pub(super) fn take_edge(&mut self, manifest: &[u8], kind: i64, digest: &[u8]) {
        self.edges = self.edges.wrapping_sub(1);
        let row = sum(&[manifest, &kind.to_le_bytes(), digest]);
        self.edge_sum = self.edge_sum.wrapping_sub(row);
    }

    /// Counts a repository's rows anew. The connection is in a transaction.
    pub(super) async fn count(
        connection: &mut Connection,
        repository: i64,
    ) -> Result<Totals, sqlx::Error> {
        const PAGE: usize = 1000;
        let mut totals = Totals::default();
        let mut after: Vec<u8> = Vec::new();
        loop {
            let rows = connection
                .rows(
                    "SELECT digest FROM manifest WHERE repository = $1 AND digest > $2 \
                     ORDER BY digest LIMIT 1000",
                    &[Arg::Int(repository), Arg::Bytes(&after)],
                )
                .await?;
            for row in &rows {
                after = row.bytes(0)?;
                totals.add_manifest(&after);
                let edges = connection
                    .rows(
                        "SELECT kind, digest FROM edge WHERE repository = $1 AND manifest = $2",
                        &[Arg::Int(repository), Arg::Bytes(&after)],
                    )
                    .await?;
                for edge in edges {
                    totals.add_edge(&after, edge.int(0)?, &edge.bytes(1)?);
                }
            }
            if rows.len() < PAGE {
                return Ok(totals);
            }
        }
    }
}

/// The totals that are kept for a repository.
pub(super) async fn read_totals(
    connection: &mut Connection,
    repository: i64,
) -> Result<Totals, sqlx::Error> {
    let row = connection
        .one(
            "SELECT manifests, manifest_sum, edges, edge_sum FROM repository WHERE id = $1",
            &[Arg::Int(repository)],
        )
        .await?;
    Ok(Totals {
        manifests: row.int(0)?,
        manifest_sum: row.int(1)?,
        edges: row.int(2)?,
        edge_sum: row.int(3)?,
    })
}

/// Keeps totals for a repository.
pub(super) async fn write_totals(
    connection: &mut Connection,
    repository: i64,
    totals: &Totals,
) -> Result<(), sqlx::Error> {
    connection
        .run(
            "UPDATE repository SET manifests = $2, manifest_sum = $3, edges = $4, edge_sum = $5 \
             WHERE id = $1",
            &[
                Arg::Int(repository),
                Arg::Int(totals.manifests),
                Arg::Int(totals.manifest_sum),
                Arg::Int(totals.edges),
                Arg::Int(totals.edge_sum),
            ],
        )
        .await
        .map(|_| ())
}

fn sum(parts: &[&[u8]]) -> i64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(PRIME);
    let sum = parts.iter().copied().flatten().fold(START, step);
    i64::from_le_bytes(sum.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_fnv_1a() {
        assert_eq!(sum(&[b"foo", b"bar"]) as u64, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn order_does_not_matter_and_contents_do() {
        let of = |edges: &[(&[u8], i64, &[u8])]| {
            let mut totals = Totals::default();
            for (manifest, kind, digest) in edges {
                totals.add_edge(manifest, *kind, digest);
            }
            totals
        };
        let both = of(&[(b"m", 1, b"a"), (b"m", 2, b"b")]);
        assert_eq!(both, of(&[(b"m", 2, b"b"), (b"m", 1, b"a")]));
        assert_ne!(both, of(&[(b"m", 1, b"b"), (b"m", 2, b"a")]));
        assert_ne!(both, of(&[(b"m", 1, b"a")]));
    }
}
