//! Does the catalog fit the store, and does it fit itself?
//!
//! Reading order: `database` is the private copy that is looked at; `rows`
//! walks it; `manifest` holds a manifest's rows against its bytes; `references`
//! looks at what it refers to; `blobs` is what it asks of the log; `note` reads what the log remembers of names;
//! `tables` and `totals` are the catalog's own form.
//!
//! Memory is bounded: rows are read one by one, blobs are looked up.

pub(crate) mod blobs;
pub(crate) mod codes;
pub(crate) mod database;
pub(crate) mod manifest;
pub(crate) mod note;
mod references;
mod rows;
pub(crate) mod tables;
pub(crate) mod totals;

use std::path::Path;

use orlop_format::digest::Digest;
use orlop_format::superblock::Superblock;

use crate::catalog::blobs::Blobs;
use crate::catalog::database::{Database, FILE, Identity, SCHEMA, WAL};
use crate::finding::{Code, Object};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::trouble::{Result, Trouble};

/// Checks the catalog beside the log's blobs, of which `noted` says whether any
/// was ever named, and says of each finding about a blob which names it
/// reaches.
pub(crate) fn check(
    folder: &Path,
    scratch: &Scratch,
    slot: &Superblock,
    (log, noted): (&dyn Blobs, bool),
    report: &mut Report,
) -> Result<()> {
    let Some(opened) = Database::copy(folder, scratch)? else {
        missing(folder, slot, noted, report);
        return Ok(());
    };
    let checked = opened.and_then(|database| {
        let usable = whole(&database, slot, report)?;
        Ok((database, usable))
    });
    let (database, usable) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            unreadable(&error, report);
            return Ok(());
        }
    };
    match usable {
        Usable::Newer(found) => Err(Trouble::Newer(format!(
            "the catalog {} (it needs migration {found}, this version knows {SCHEMA})",
            folder.join(FILE).display()
        ))),
        Usable::No => Ok(()),
        Usable::Yes => {
            let walked = rows::check(&database, folder, log, report)
                .and_then(|()| Ok(affect(&database, report)?));
            match walked {
                Ok(()) => Ok(()),
                Err(Stop::Trouble(trouble)) => Err(trouble),
                Err(Stop::Sql(error)) => {
                    unreadable(&error, report);
                    Ok(())
                }
            }
        }
    }
}

/// Says which names the findings about blobs reach.
fn affect(database: &Database, report: &mut Report) -> rusqlite::Result<()> {
    let mut failed = Ok(());
    report.affect(|object| {
        let blob = object.blob.as_deref().map(Digest::parse);
        if let Some(Ok(digest)) = blob
            && object.affected.is_empty()
            && failed.is_ok()
        {
            match database.affected(&digest) {
                Ok(affected) => object.affected = affected,
                Err(error) => failed = Err(error),
            }
        }
    });
    failed
}

/// What ends a walk over rows.
#[derive(Debug)]
pub(crate) enum Stop {
    Trouble(Trouble),
    Sql(rusqlite::Error),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Stop::Trouble(trouble)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Stop::Sql(error)
    }
}

enum Usable {
    Yes,
    No,
    Newer(i64),
}

fn missing(folder: &Path, slot: &Superblock, noted: bool, report: &mut Report) {
    if slot.catalog_sequence > 0 {
        report.find(
            Code::CatalogMissing,
            catalog(),
            format_args!(
                "a catalog at change {} or later: the store has seen it",
                slot.catalog_sequence
            ),
            "no file",
        );
    } else if noted {
        report.find(
            Code::CatalogMissing,
            catalog(),
            "a catalog with the names that the log has noted",
            "no file",
        );
    } else if folder.join(WAL).exists() {
        report.find(
            Code::CatalogMissing,
            catalog(),
            format_args!("the file that {WAL} belongs to"),
            "no file",
        );
    } else {
        report.note(Code::CatalogNone, catalog(), "no file");
    }
}

fn unreadable(error: &rusqlite::Error, report: &mut Report) {
    report.find(
        Code::CatalogUnreadable,
        catalog(),
        "a catalog that SQLite can read",
        error,
    );
}

/// Whether the catalog is whole and this store's, so that its rows can be
/// believed to be what was written.
fn whole(database: &Database, slot: &Superblock, report: &mut Report) -> rusqlite::Result<Usable> {
    let identity = match database.identity()? {
        Ok(identity) => identity,
        Err(found) => {
            report.find(
                Code::CatalogUnreadable,
                catalog(),
                "a catalog of Orlop",
                found,
            );
            return Ok(Usable::No);
        }
    };
    if identity.needs > SCHEMA {
        return Ok(Usable::Newer(identity.needs));
    }
    let broken = database.integrity()?;
    for line in &broken {
        report.find(
            Code::CatalogIntegrity,
            catalog(),
            "tables and indexes that hold",
            line,
        );
    }
    pair(&identity, slot, report);
    // Older tables have other columns; the next start brings them up to date.
    if identity.schema < SCHEMA {
        let found = format!("the tables of migration {}", identity.schema);
        report.note(Code::CatalogOutdated, catalog(), found);
        return Ok(Usable::No);
    }
    Ok(if broken.is_empty() {
        Usable::Yes
    } else {
        Usable::No
    })
}

/// Store and catalog know each other's id and highest sequence.
fn pair(identity: &Identity, slot: &Superblock, report: &mut Report) {
    if slot.catalog != [0; 16] && slot.catalog != identity.id {
        report.find(
            Code::CatalogOther,
            catalog(),
            format_args!("catalog {}", hex(&slot.catalog)),
            format_args!("catalog {}", hex(&identity.id)),
        );
    } else if identity.sequence < slot.catalog_sequence {
        report.find(
            Code::CatalogOlder,
            catalog(),
            format_args!(
                "change {} or later: the store has seen it",
                slot.catalog_sequence
            ),
            format_args!("change {}", identity.sequence),
        );
    }
}

/// The catalog as a whole.
fn catalog() -> Object {
    Object::file(FILE)
}

/// Bytes as they are printed.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
