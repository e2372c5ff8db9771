//! What manifests refer to: is it in the store, and does the repository give
//! it?
//!
//! A manifest may name what never was here: its subject, layers that may not be
//! distributed, and anything where sparse pushes are allowed. So what the log
//! never knew, or what had ended before the manifest came, is a note. What ended
//! while a manifest that can be pulled named it was taken wrongly: damage.
//! Tombstones stay in the log for good, so the two are told apart whatever was
//! recycled.
//!
//! A blob in quarantine counts as here: its damage is found where blobs are.

use orlop_format::digest::Digest;
use orlop_oci::media_type::is_non_distributable;
use rusqlite::OptionalExtension as _;

use super::Stop;
use super::blobs::{Blobs, Life};
use super::database::Database;
use super::manifest::Edge;
use crate::finding::{Affected, Code, Object};
use crate::report::Report;

const CHILD: i64 = 3;
const SUBJECT: i64 = 4;

/// A row of a manifest, as the one that refers.
pub(super) struct Referrer<'a> {
    pub(super) repository: i64,
    pub(super) name: &'a str,
    /// As it is printed.
    pub(super) digest: String,
    /// It or its repository is deleted.
    pub(super) hidden: bool,
    /// LSN of the commit of its bytes; 0: not known.
    pub(super) birth: u64,
    pub(super) affected: &'a [Affected],
}

/// Whether something is in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Never,
    /// At this LSN.
    Ended(u64),
}

/// Holds references against the log and the rows of their repository.
pub(super) struct References<'a> {
    pub(super) database: &'a Database,
    pub(super) log: &'a dyn Blobs,
}

impl References<'_> {
    /// Looks at what one manifest refers to, in order.
    pub(super) fn check(
        &self,
        from: &Referrer<'_>,
        edges: &[Edge],
        report: &mut Report,
    ) -> Result<(), Stop> {
        for edge in edges {
            // One of a wrong form is not what the manifest's bytes say.
            let Ok((digest, _)) = Digest::decode(&edge.digest) else {
                continue;
            };
            let place = match self.log.find(&digest)? {
                None => Place::Never,
                Some(blob) if blob.life == Life::Dead => Place::Ended(blob.birth),
                Some(_) => Place::Here,
            };
            let to = Target {
                place,
                object: Object {
                    blob: Some(digest.to_string()),
                    affected: from.affected.to_vec(),
                    ..Object::row("edge", format!("{}@{}", from.name, from.digest))
                },
                edge,
            };
            if from.hidden || edge.kind == SUBJECT {
                to.optional(from, report);
            } else if edge.kind == CHILD {
                self.child(from, to, report)?;
            } else {
                self.blob(from, to, report)?;
            }
        }
        Ok(())
    }

    /// A config or a layer.
    fn blob(&self, from: &Referrer<'_>, to: Target<'_>, report: &mut Report) -> Result<(), Stop> {
        let linked = self.exists(
            "SELECT 1 FROM link WHERE digest = ?2 AND repository = ?1",
            (from.repository, &to.edge.digest),
        )?;
        let may_miss = is_non_distributable(&to.edge.media_type);
        match to.place {
            Place::Here if linked || may_miss => {}
            // The link says so.
            Place::Never if linked => {}
            Place::Ended(lsn) if !may_miss && lsn > from.birth => report.find(
                Code::ReferenceBlob,
                to.object,
                "the blob in the store",
                format_args!("it was collected at LSN {lsn}"),
            ),
            Place::Here if self.was_given_up(from, to.edge, &[])? => report.note(
                Code::ReferenceDeleted,
                to.object,
                "the blob was deleted from this repository by its digest",
            ),
            Place::Here => report.find(
                Code::ReferenceLink,
                to.object,
                format_args!("a link of {} to the blob", from.name),
                "none: the store has the blob, and a pull of it from this repository is answered with 404",
            ),
            Place::Never | Place::Ended(_) => to.optional(from, report),
        }
        Ok(())
    }

    /// A manifest that an index lists.
    fn child(&self, from: &Referrer<'_>, to: Target<'_>, report: &mut Report) -> Result<(), Stop> {
        let hidden: Option<bool> = self
            .database
            .sql
            .prepare_cached(
                "SELECT deleted_at IS NOT NULL FROM manifest WHERE repository = ?1 AND digest = ?2",
            )?
            .query_row((from.repository, &to.edge.digest), |row| row.get(0))
            .optional()?;
        let expected = format!("a manifest of {}", from.name);
        match (hidden, to.place) {
            // Whether its own bytes are here is asked where it is looked at.
            (Some(false), _) => {}
            (Some(true), _) => report.note(
                Code::ReferenceDeleted,
                to.object,
                "the manifest is deleted and not purged yet: orlop undelete brings it back",
            ),
            (None, Place::Ended(lsn)) if lsn > from.birth => report.find(
                Code::ReferenceManifest,
                to.object,
                expected,
                format_args!("it was purged, and collected at LSN {lsn}"),
            ),
            (None, Place::Here) if self.was_purged(from, to.edge)? => report.find(
                Code::ReferenceManifest,
                to.object,
                expected,
                "it was purged: its bytes are kept, and its layers may be gone",
            ),
            (None, Place::Here) => report.find(
                Code::ReferenceLink,
                to.object,
                expected,
                "one of another repository alone: a pull of it from this one is answered with 404",
            ),
            (None, Place::Never | Place::Ended(_)) => to.optional(from, report),
        }
        Ok(())
    }

    /// Whether a row says that the repository was asked to give this up, by a
    /// delete of it (`manifest` empty) or of the manifest itself.
    fn was_given_up(
        &self,
        from: &Referrer<'_>,
        edge: &Edge,
        manifest: &[u8],
    ) -> Result<bool, Stop> {
        let deleted = "SELECT 1 FROM unlinked WHERE repository = ?1 AND digest = ?2";
        let purged =
            "SELECT 1 FROM departed WHERE repository = ?1 AND digest = ?2 AND manifest = ?3";
        Ok(
            (manifest.is_empty() && self.exists(deleted, (from.repository, &edge.digest))?)
                || self.exists(purged, (from.name, &edge.digest, manifest))?,
        )
    }

    /// Whether a manifest without a row had one in this repository, as far as
    /// rows say: nobody else has it, or what was purged is still remembered.
    fn was_purged(&self, from: &Referrer<'_>, edge: &Edge) -> Result<bool, Stop> {
        if self.was_given_up(from, edge, &edge.digest)? {
            return Ok(true);
        }
        self.database.index_manifests()?;
        let elsewhere = "SELECT 1 FROM manifest WHERE digest = ?1";
        Ok(!self.exists(elsewhere, (&edge.digest,))?)
    }

    fn exists(&self, text: &str, values: impl rusqlite::Params) -> Result<bool, Stop> {
        Ok(self.database.sql.prepare_cached(text)?.exists(values)?)
    }
}

/// What is referred to.
struct Target<'a> {
    edge: &'a Edge,
    place: Place,
    object: Object,
}

impl Target<'_> {
    /// What need not be here is a note if it is not.
    fn optional(self, from: &Referrer<'_>, report: &mut Report) {
        match self.place {
            Place::Here => {}
            Place::Never => {
                report.note(Code::ReferenceAbsent, self.object, "it never was there");
            }
            Place::Ended(lsn) => {
                let code = match from.hidden {
                    true => Code::ReferenceEnded,
                    false => Code::ReferenceAbsent,
                };
                let found = format_args!("it was collected at LSN {lsn}");
                report.note(code, self.object, found);
            }
        }
    }
}
