//! Blobs that go before their leases end, since somebody purged them.
//!
//! Invariants: it is said of one life of a blob, which its birth tells from every
//! other one; not while a repository has a link of it, by whichever of its digests,
//! that does not go in the same purge; and not any more from the moment at which one
//! is linked to that life, or a manifest of its digest is pushed. It counts from the
//! moment at which the last link is gone: a purge may have failed before that.
//!
//! Refuses to know: leases, and which blobs are here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use orlop_format::digest::Digest;

use super::Catalog;
use super::departed;
use super::error::CatalogError;
use super::many::OfList;
use super::read::{whole, within};
use super::sql::{Arg, Connection};
use super::unit::UnitVerb;
use super::verb::{Effect, Verb};

/// Lives that [`Catalog::at_once`] gives.
const PAGE: i64 = 512;

/// A life of a blob that is to go at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// When it began.
    pub birth: u64,
    /// Digests that the blob has, beside the one by which it is said.
    pub further: Vec<Digest>,
    /// Repositories that lose their links of it in the same purge.
    pub places: HashSet<i64>,
}

impl Leaving {
    /// One of a blob that has no further digest, and that no other repository has.
    #[must_use]
    pub fn of(birth: u64) -> Leaving {
        Leaving {
            birth,
            further: Vec::new(),
            places: HashSet::new(),
        }
    }
}

/// Lives that are to go at once, by the digest of the blob that a purge knows.
pub type Lives = HashMap<Digest, Arc<Leaving>>;

/// That no repository has a link by the digest of a row of `departed`.
macro_rules! unlinked {
    () => {
        "NOT EXISTS (SELECT 1 FROM link WHERE link.digest = departed.digest)"
    };
}

static LINKED: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT repository, digest FROM link WHERE digest IN ({list})",
        0,
    )
});
static STILL: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        concat!(
            "SELECT at_once FROM departed WHERE at_once IN ({list}) AND at_once > 0 AND ",
            unlinked!()
        ),
        0,
    )
});
static END: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "UPDATE departed SET at_once = 0 WHERE at_once IN ({list}) AND at_once > 0",
        0,
    )
});

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Says of a life that no lease keeps it; that leases do, if a repository other than
/// this one has a link of it that stays, or any has one by another digest: as long as
/// there is one by this digest, it does not count.
pub(super) async fn begin(
    connection: &mut Connection,
    (digest, life): (&[u8], &Leaving),
    repository: i64,
    now: i64,
) -> Result<()> {
    let further: Vec<Vec<u8>> = life.further.iter().map(Digest::encode).collect();
    let names = std::iter::once(digest).chain(further.iter().map(Vec::as_slice));
    let list = names.map(Arg::Bytes);
    for row in LINKED.rows(connection, &[], list).await? {
        let of = row.int(0)?;
        let goes = of == repository || life.places.contains(&of);
        if !goes || row.bytes(1)? != digest {
            return linked(connection, number(life.birth)).await;
        }
    }
    // A live set that is being read says nothing of it from now on.
    let begin = "UPDATE departed SET at_once = $2, \
         sequence = (SELECT sequence FROM catalog WHERE one = 1) WHERE digest = $1";
    let arguments = [Arg::Bytes(digest), Arg::Int(number(life.birth))];
    if connection.run(begin, &arguments).await? == 0 {
        // No row had it: bytes of a push that came to nothing.
        let named = departed::Named::from([(digest.to_vec(), (Vec::new(), now))]);
        departed::remember(connection, "", &named, now).await?;
        connection.run(begin, &arguments).await?;
    }
    Ok(())
}

/// Says of lives that leases keep them as they keep others.
pub(super) async fn end(connection: &mut Connection, births: &[u64]) -> Result<Effect> {
    let list = births.iter().map(|birth| Arg::Int(number(*birth)));
    END.run(connection, &[], list).await?;
    Ok(Effect::default())
}

/// As [`end`], of one that was linked just now.
pub(super) async fn linked(connection: &mut Connection, birth: i64) -> Result<()> {
    let sql = "UPDATE departed SET at_once = 0 WHERE at_once = $1 AND at_once > 0";
    connection.run(sql, &[Arg::Int(birth)]).await.map(|_| ())
}

/// As [`end`], of a manifest that was pushed just now: it has no link.
pub(super) async fn named(connection: &mut Connection, manifest: &[u8]) -> Result<()> {
    let sql = "UPDATE departed SET at_once = 0 WHERE digest = $1 AND at_once > 0";
    let of = [Arg::Bytes(manifest)];
    connection.run(sql, &of).await.map(|_| ())
}

fn number(birth: u64) -> i64 {
    i64::try_from(birth).unwrap_or(i64::MAX)
}

impl Catalog {
    /// Says of a life of a blob that no lease keeps it, if no repository has a link
    /// of it that stays; otherwise that leases keep it.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn begin_at_once(
        &self,
        digest: &Digest,
        life: &Arc<Leaving>,
    ) -> std::result::Result<(), CatalogError> {
        let verb = Verb::Unit(UnitVerb::AtOnce(*digest, Arc::clone(life)));
        self.submit(verb).await.map(|_| ())
    }

    /// Says of lives of blobs, by their births, that leases keep them as they keep
    /// others, or that they have ended. As many as [`Catalog::at_once`] gives, at
    /// most.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn end_at_once(&self, births: Vec<u64>) -> std::result::Result<(), CatalogError> {
        let verb = Verb::Unit(UnitVerb::Leased(births));
        self.submit(verb).await.map(|_| ())
    }

    /// Some of the blobs that no lease keeps and no repository has, with their births,
    /// after a birth and in the order of that: each once, by one of its digests.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn at_once(
        &self,
        after: u64,
    ) -> std::result::Result<Vec<(Digest, u64)>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let sql = concat!(
                "SELECT digest, at_once FROM departed WHERE at_once > 0 AND at_once > $1 AND ",
                unlinked!(),
                " ORDER BY at_once, digest LIMIT $2"
            );
            let arguments = [Arg::Int(number(after)), Arg::Int(PAGE)];
            let rows = connection.rows(sql, &arguments).await?;
            let mut found = Vec::with_capacity(rows.len());
            for row in &rows {
                found.push((whole(&row.bytes(0)?)?, row.int(1)?.unsigned_abs()));
            }
            found.dedup_by_key(|(_, birth)| *birth);
            Ok(found)
        })
        .await
    }

    /// Of these births, which still are those of blobs that no lease keeps and no
    /// repository has.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn still_at_once(
        &self,
        births: &[u64],
    ) -> std::result::Result<HashSet<u64>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let list = births.iter().map(|birth| Arg::Int(number(*birth)));
            let rows = STILL.rows(&mut connection, &[], list).await?;
            let still: Result<_> = rows
                .iter()
                .map(|row| Ok(row.int(0)?.unsigned_abs()))
                .collect();
            Ok(still?)
        })
        .await
    }
}
