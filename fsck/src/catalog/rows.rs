//! The rows of a catalog that is whole, one by one: repositories with their
//! manifests and edges, tags, links.
//!
//! A hidden row, whose deletion may be undone, needs its blob as well; but a
//! blob that ended in order after the row was hidden is no damage.

use std::path::Path;

use orlop_format::digest::Digest;
use orlop_oci::MANIFEST_BYTES_MAX;

use super::Stop;
use super::blobs::{Blobs, Known, Life, Reader};
use super::database::{Database, text};
use super::manifest::{Edge, Rows, is_of};
use super::references::{References, Referrer};
use super::totals::Totals;
use crate::finding::{Affected, Code, Object};
use crate::report::Report;

/// Checks every row.
pub(crate) fn check(
    database: &Database,
    folder: &Path,
    log: &dyn Blobs,
    report: &mut Report,
) -> Result<(), Stop> {
    let mut rows = Walk {
        database,
        log,
        reader: Reader::new(folder),
        report,
    };
    rows.repositories()?;
    rows.tags()?;
    rows.links()
}

struct Walk<'a> {
    database: &'a Database,
    log: &'a dyn Blobs,
    reader: Reader,
    report: &'a mut Report,
}

/// A row of a manifest.
struct Row {
    repository: i64,
    name: String,
    digest: Vec<u8>,
    hidden: bool,
    rows: Rows,
}

impl Walk<'_> {
    fn repositories(&mut self) -> Result<(), Stop> {
        let database = self.database;
        let mut statement = database.sql.prepare(
            "SELECT id, name, deleted_at IS NOT NULL, manifests, manifest_sum, edges, edge_sum \
             FROM repository ORDER BY id",
        )?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (id, name): (i64, String) = (row.get(0)?, row.get(1)?);
            let kept = Totals {
                manifests: row.get(3)?,
                manifest_sum: row.get(4)?,
                edges: row.get(5)?,
                edge_sum: row.get(6)?,
            };
            let hidden: bool = row.get(2)?;
            let counted = self.repository(id, &name, hidden)?;
            if counted != kept {
                let say = |totals: &Totals| {
                    format!(
                        "{} manifests (sum {:016x}) and {} references (sum {:016x})",
                        totals.manifests, totals.manifest_sum, totals.edges, totals.edge_sum
                    )
                };
                self.report.find(
                    Code::CatalogTotals,
                    Object::row("repository", &name),
                    say(&kept),
                    say(&counted),
                );
            }
        }
        Ok(())
    }

    /// The manifests of one repository; gives back their totals.
    fn repository(&mut self, id: i64, name: &str, gone: bool) -> Result<Totals, Stop> {
        let database = self.database;
        let mut totals = Totals::default();
        let mut statement = database.sql.prepare_cached(
            "SELECT digest, deleted_at IS NOT NULL, media_type, artifact_type, size, subject, \
             annotations FROM manifest WHERE repository = ?1 ORDER BY digest",
        )?;
        let mut rows = statement.query((id,))?;
        while let Some(row) = rows.next()? {
            let digest: Vec<u8> = row.get(0)?;
            let edges = self.edges(id, &digest)?;
            totals.add_manifest(&digest);
            for edge in &edges {
                totals.add_edge(&digest, edge.kind, &edge.digest);
            }
            self.manifest(&Row {
                repository: id,
                name: name.to_owned(),
                digest,
                hidden: gone || row.get::<_, bool>(1)?,
                rows: Rows {
                    media_type: row.get(2)?,
                    artifact_type: row.get(3)?,
                    size: row.get(4)?,
                    subject: row.get(5)?,
                    annotations: row.get(6)?,
                    edges,
                },
            })?;
        }
        Ok(totals)
    }

    fn edges(&self, repository: i64, manifest: &[u8]) -> Result<Vec<Edge>, Stop> {
        let mut statement = self.database.sql.prepare_cached(
            "SELECT kind, digest, size, media_type FROM edge \
             WHERE repository = ?1 AND manifest = ?2 ORDER BY kind, digest",
        )?;
        let edges = statement.query_map((repository, manifest), |row| {
            Ok(Edge {
                kind: row.get(0)?,
                digest: row.get(1)?,
                size: row.get(2)?,
                media_type: row.get(3)?,
            })
        })?;
        Ok(edges.collect::<rusqlite::Result<_>>()?)
    }

    fn manifest(&mut self, row: &Row) -> Result<(), Stop> {
        let mut object = Object::row("manifest", &row.name);
        object.affected.push(Affected {
            repository: row.name.clone(),
            tags: self.database.tags(row.repository, &row.digest)?,
        });
        let Some(digest) = whole(&row.digest) else {
            let expected = "a digest";
            self.report
                .find(Code::ManifestRow, object, expected, text(&row.digest));
            return Ok(());
        };
        object.blob = Some(digest.to_string());
        let known = self.log.find(&digest)?;
        let here = known.as_ref().filter(|blob| blob.life != Life::Dead);
        let from = Referrer {
            repository: row.repository,
            name: &row.name,
            digest: digest.to_string(),
            hidden: row.hidden,
            birth: here.map_or(0, |blob| blob.birth),
            affected: &object.affected,
        };
        let (database, log) = (self.database, self.log);
        References { database, log }.check(&from, &row.rows.edges, self.report)?;
        let Some(blob) = self.had(&object, (&digest, known), row.hidden) else {
            return Ok(());
        };
        let limit = MANIFEST_BYTES_MAX as u64;
        let Some(bytes) = self.reader.bytes(&blob, limit)? else {
            // Damage of a blob is found where blobs are read; this names it.
            self.report.find(
                Code::ManifestBytes,
                object,
                format_args!("the bytes of {digest}"),
                "bytes that do not hold",
            );
            return Ok(());
        };
        self.report.counts.manifests = self.report.counts.manifests.saturating_add(1);
        match Rows::of(&bytes, &row.rows.media_type) {
            Ok(rows) if is_of(&bytes, &digest) => self.compare(object, &rows, &row.rows),
            Ok(_) => self.report.find(
                Code::ManifestBytes,
                object,
                format_args!("the bytes of {digest}"),
                "another manifest's",
            ),
            Err(error) => self.report.find(
                Code::ManifestBytes,
                object,
                format_args!("a manifest of type {}", row.rows.media_type),
                error,
            ),
        }
        Ok(())
    }

    fn compare(&mut self, object: Object, bytes: &Rows, row: &Rows) {
        let columns = bytes.differ(row);
        if !columns.is_empty() {
            self.report.find(
                Code::ManifestRow,
                object.clone(),
                format_args!("{} as in its bytes", columns.join(", ")),
                "something else in its row",
            );
        }
        if bytes.edges != row.edges {
            let lost = bytes.edges.iter().filter(|edge| !row.edges.contains(edge));
            let more = row.edges.iter().filter(|edge| !bytes.edges.contains(edge));
            self.report.find(
                Code::ManifestEdges,
                object,
                format_args!("the {} references in its bytes", bytes.edges.len()),
                format_args!(
                    "{} of them missing, {} that it does not have",
                    lost.count(),
                    more.count()
                ),
            );
        }
    }

    /// The blob behind a row, if it can be read; what is wrong is found.
    fn had(
        &mut self,
        object: &Object,
        (digest, known): (&Digest, Option<Known>),
        hidden: bool,
    ) -> Option<Known> {
        let code = Code::ManifestBlob;
        let expected = format!("blob {digest} in the store");
        match known {
            Some(blob) if blob.life == Life::Live => return Some(blob),
            Some(blob) if blob.life == Life::Quarantined => {
                self.report.find(
                    code,
                    object.clone(),
                    expected,
                    "it is in quarantine: its bytes are damaged",
                );
            }
            Some(blob) if hidden => self.report.note(
                Code::ManifestEnded,
                object.clone(),
                format_args!("the blob ended at LSN {}", blob.birth),
            ),
            Some(blob) => {
                let found = format!("it was collected at LSN {}", blob.birth);
                self.report.find(code, object.clone(), expected, found);
            }
            None => self
                .report
                .find(code, object.clone(), expected, "it never was there"),
        }
        None
    }

    fn tags(&mut self) -> Result<(), Stop> {
        let database = self.database;
        let mut statement = database.sql.prepare(
            "SELECT r.name, t.name, t.manifest, m.digest IS NULL FROM tag t \
             LEFT JOIN repository r ON r.id = t.repository \
             LEFT JOIN manifest m ON m.repository = t.repository AND m.digest = t.manifest \
             WHERE t.deleted_at IS NULL AND r.deleted_at IS NULL \
             AND (m.digest IS NULL OR m.deleted_at IS NOT NULL OR r.id IS NULL)",
        )?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let repository: Option<String> = row.get(0)?;
            let (tag, manifest): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
            let found = if row.get(3)? {
                "no such manifest"
            } else {
                "a deleted manifest"
            };
            let repository = repository.as_deref().unwrap_or("?");
            self.report.find(
                Code::TagManifest,
                tag_object(repository, &tag, &manifest),
                format_args!("manifest {} in its repository", text(&manifest)),
                found,
            );
        }
        let count = "SELECT count(*) FROM tag WHERE deleted_at IS NULL";
        let tags: i64 = database.sql.query_row(count, (), |row| row.get(0))?;
        self.report.counts.tags = tags.unsigned_abs();
        Ok(())
    }

    fn links(&mut self) -> Result<(), Stop> {
        let database = self.database;
        let mut statement = database.sql.prepare(
            "SELECT l.digest, l.size, l.birth, r.name, r.deleted_at IS NOT NULL, l.repository \
             FROM link l LEFT JOIN repository r ON r.id = l.repository \
             ORDER BY l.digest, l.repository",
        )?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let encoded: Vec<u8> = row.get(0)?;
            let name: Option<String> = row.get(3)?;
            self.report.counts.links = self.report.counts.links.saturating_add(1);
            let Some(name) = name else {
                let number: i64 = row.get(5)?;
                self.report.find(
                    Code::LinkRepository,
                    Object::row("link", text(&encoded)),
                    format_args!("repository number {number}"),
                    "no such repository",
                );
                continue;
            };
            let link = Link {
                object: Object {
                    blob: Some(text(&encoded)),
                    ..Object::row("link", &name)
                },
                digest: whole(&encoded),
                size: row.get(1)?,
                birth: row.get(2)?,
                hidden: row.get(4)?,
            };
            self.link(&link)?;
        }
        Ok(())
    }

    fn link(&mut self, link: &Link) -> Result<(), Stop> {
        let Link { object, size, .. } = link;
        let Some(digest) = &link.digest else {
            self.report
                .find(Code::LinkBlob, object.clone(), "a digest", "another form");
            return Ok(());
        };
        match self.log.find(digest)? {
            // Its damage is found where blobs are read.
            Some(blob) if blob.life != Life::Dead => {
                if i64::try_from(blob.size).ok() != Some(*size) {
                    self.report.find(
                        Code::LinkSize,
                        object.clone(),
                        format_args!("{} bytes", blob.size),
                        format_args!("{size} bytes"),
                    );
                }
            }
            // A collection ends the blob first and its links after that.
            Some(blob)
                if link
                    .birth
                    .is_none_or(|birth| birth.unsigned_abs() < blob.birth) =>
            {
                let found = format!("the blob ended at LSN {}", blob.birth);
                self.report.note(Code::LinkEnded, object.clone(), found);
            }
            Some(_) => self.report.find(
                Code::LinkBlob,
                object.clone(),
                "the blob in the store",
                "the end of an earlier one",
            ),
            None if link.hidden => self.report.note(
                Code::LinkEnded,
                object.clone(),
                "the repository is deleted, and the blob is not there",
            ),
            None => self.report.find(
                Code::LinkBlob,
                object.clone(),
                "the blob in the store",
                "it never was there",
            ),
        }
        Ok(())
    }
}

/// A row that gives a repository a blob.
struct Link {
    object: Object,
    digest: Option<Digest>,
    size: i64,
    birth: Option<i64>,
    hidden: bool,
}

fn tag_object(repository: &str, tag: &str, manifest: &[u8]) -> Object {
    let mut object = Object::row("tag", format!("{repository}:{tag}"));
    object.blob = Some(text(manifest));
    object.affected.push(Affected {
        repository: repository.to_owned(),
        tags: vec![tag.to_owned()],
    });
    object
}

/// A digest that takes all of a column.
fn whole(encoded: &[u8]) -> Option<Digest> {
    match Digest::decode(encoded) {
        Ok((digest, len)) if len == encoded.len() => Some(digest),
        _ => None,
    }
}
