//! The codes about names: level, meaning and what to do.

use crate::finding::{Code, Level};

const REBUILD: &str =
    "make the catalog again from the copies and notes in the store: orlop-fsck DIR --repair";
const PAIR: &str = "put the right catalog back and check again; or make it again: orlop-fsck DIR --repair; or take this one: orlop catalog adopt";
const HEAL: &str = "push it again, or restore it: orlop-fsck DIR --repair --source FROM";
const NONE: &str = "none needed";

/// What [`Code`] says of itself, for the codes that the catalog's checks give;
/// the last of them is `link.ended`.
pub(crate) const fn facts(code: Code) -> (&'static str, Level, &'static str, &'static str) {
    use Level::{Damage, Error, Note, Warning};
    match code {
        Code::CatalogMissing => (
            "catalog.missing",
            Error,
            "the store has seen a catalog with names, and there is none",
            REBUILD,
        ),
        Code::CatalogUnreadable => (
            "catalog.unreadable",
            Error,
            "SQLite cannot read the catalog, or it is another program's",
            REBUILD,
        ),
        Code::CatalogIntegrity => (
            "catalog.integrity",
            Error,
            "a page, an index or a reference between tables of the catalog does not hold",
            REBUILD,
        ),
        Code::CatalogOther => (
            "catalog.other",
            Error,
            "the catalog is not the one that the store knows",
            PAIR,
        ),
        Code::CatalogOlder => (
            "catalog.older",
            Error,
            "the catalog is older than one that the store has seen: names given since are missing",
            PAIR,
        ),
        Code::CatalogTotals => (
            "catalog.totals",
            Error,
            "a repository has more or fewer manifests or references than it counts: rows were lost, or came",
            REBUILD,
        ),
        Code::CatalogNone => (
            "catalog.none",
            Note,
            "the store has no catalog, and has seen none that had names",
            "none needed: the next start makes one",
        ),
        Code::CatalogOutdated => (
            "catalog.outdated",
            Note,
            "the catalog has the tables of an older release; its rows were not checked",
            "none needed: the next start brings it up to date; check again after that",
        ),
        Code::ManifestBlob => (
            "manifest.blob",
            Damage,
            "the bytes of a manifest are in quarantine, were collected, or never were in the store",
            HEAL,
        ),
        Code::ManifestBytes => (
            "manifest.bytes",
            Damage,
            "the bytes of a manifest are damaged, or no manifest of its type",
            HEAL,
        ),
        Code::ManifestRow => (
            "manifest.row",
            Damage,
            "type, size, subject or annotations of a manifest are not those in its bytes",
            REBUILD,
        ),
        Code::ManifestEdges => (
            "manifest.edges",
            Error,
            "what a manifest refers to is not what its bytes refer to: a collection would take the wrong blobs",
            REBUILD,
        ),
        Code::ManifestEnded => (
            "manifest.ended",
            Note,
            "the blob of a deleted manifest was collected",
            NONE,
        ),
        Code::ReferenceBlob => (
            "reference.blob",
            Damage,
            "a manifest refers to a config or layer that was collected while it did",
            HEAL,
        ),
        Code::ReferenceManifest => (
            "reference.manifest",
            Damage,
            "an index lists a manifest that was purged from its repository",
            "push that manifest again; or, if it was deleted on purpose, delete the index too",
        ),
        Code::ReferenceLink => (
            "reference.link",
            Warning,
            "a manifest refers to what the store has and its repository does not: a pull of it is answered with 404",
            "push the image again, or orlop-fsck DIR --repair, which gives the repository what the log says it had; if it was deleted on purpose, delete the manifest too",
        ),
        Code::ReferenceDeleted => (
            "reference.deleted",
            Note,
            "a manifest refers to what was deleted from its repository since",
            "none needed if that was meant; else push it again",
        ),
        Code::ReferenceEnded => (
            "reference.ended",
            Note,
            "a deleted manifest refers to what was collected: it does not come back whole",
            NONE,
        ),
        Code::ReferenceAbsent => (
            "reference.absent",
            Note,
            "a manifest refers to what the store has not and need not have: a subject, a layer that may not be distributed, or what only a sparse push can name",
            "none needed if it is one of these; else push it",
        ),
        Code::TagManifest => (
            "tag.manifest",
            Damage,
            "a tag names a manifest that its repository does not have",
            REBUILD,
        ),
        Code::LinkBlob => (
            "link.blob",
            Damage,
            "a repository has a blob that never was in the store",
            HEAL,
        ),
        Code::LinkSize => (
            "link.size",
            Warning,
            "the size in a link is not the blob's",
            REBUILD,
        ),
        Code::LinkRepository => (
            "link.repository",
            Warning,
            "a link belongs to no repository",
            REBUILD,
        ),
        _ => (
            "link.ended",
            Note,
            "a link to a blob that was collected since, or of a deleted repository",
            NONE,
        ),
    }
}
