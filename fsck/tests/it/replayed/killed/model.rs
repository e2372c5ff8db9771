//! The catalog as the server has it, what is done to it and noted of that, and a
//! catalog with its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use orlop_format::digest::Digest;
use rusqlite::Connection;

use super::super::{back, drop_of, noted, of_row};
use crate::named::{self, IMAGE, contents, sha256};

const NAMES: [&str; 3] = ["team/app", "team/old", "team/web"];
const TAGS: [&str; 3] = ["t0", "t1", "t2"];
/// The blobs that each of the two manifests needs.
pub(super) const NEEDS: [&[usize]; 2] = [&[0, 1, 2], &[3]];

/// The blobs, then the manifests: an image, and what is about it.
pub(super) fn blobs() -> [Vec<u8>; 6] {
    let of = contents();
    [
        of.config,
        of.small,
        of.large,
        b"{}".to_vec(),
        of.image,
        of.report,
    ]
}

pub(super) fn digest(of: usize) -> Digest {
    sha256(&blobs()[of])
}

#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) name: &'static str,
    pub(super) is_live: bool,
    deleted: usize,
    /// Whether they are live; deleted ones are hidden.
    pub(super) manifests: BTreeMap<usize, bool>,
    pub(super) tags: BTreeMap<&'static str, (usize, bool)>,
    pub(super) links: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Effect {
    /// It is done with the next one.
    Later,
    Link(&'static str, usize),
    Put(&'static str, usize, Vec<&'static str>),
    Untag(i64, &'static str),
    Delete(i64, usize),
    Unlink(i64, usize),
    Drop(i64),
    Restore(i64, &'static str),
    Purge(i64, usize),
    PurgeLink(i64, usize),
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) rows: Vec<Row>,
    pub(super) next: i64,
    time: usize,
}

impl Model {
    /// As [`Named`] begins, without the repository in which all is deleted.
    pub(super) fn new() -> Model {
        let row = Row {
            id: 1,
            name: NAMES[0],
            is_live: true,
            manifests: BTreeMap::from([(0, true), (1, true)]),
            links: BTreeSet::from([0, 1, 2, 3]),
            ..Row::default()
        };
        Model {
            rows: vec![row],
            next: 3,
            time: 0,
        }
    }

    pub(super) fn live(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.is_live && row.name == name)
    }

    fn row(&mut self, id: i64) -> &mut Row {
        self.rows.iter_mut().find(|row| row.id == id).unwrap()
    }

    fn ensure(&mut self, name: &'static str) -> &mut Row {
        let id = self.live(name).map(|row| row.id).unwrap_or_else(|| {
            self.rows.push(Row {
                id: self.next,
                name,
                is_live: true,
                ..Row::default()
            });
            self.next += 1;
            self.next - 1
        });
        self.row(id)
    }

    pub(super) fn apply(&mut self, effect: Effect) {
        self.time += 1;
        let time = self.time;
        match effect {
            Effect::Later => {}
            Effect::Link(name, blob) => drop(self.ensure(name).links.insert(blob)),
            Effect::Put(name, of, tags) => {
                let row = self.ensure(name);
                row.manifests.insert(of, true);
                for tag in tags {
                    row.tags.insert(tag, (of, true));
                }
            }
            Effect::Untag(id, tag) => self.row(id).tags.get_mut(tag).unwrap().1 = false,
            Effect::Delete(id, of) => {
                let row = self.row(id);
                row.manifests.insert(of, false);
                row.tags
                    .values_mut()
                    .filter(|tag| tag.0 == of)
                    .for_each(|tag| tag.1 = false);
            }
            Effect::Unlink(id, blob) | Effect::PurgeLink(id, blob) => {
                self.row(id).links.remove(&blob);
            }
            Effect::Drop(id) => {
                let row = self.row(id);
                (row.is_live, row.deleted) = (false, time);
            }
            Effect::Restore(id, name) => {
                if let Some(other) = self.live(name).map(|row| row.id) {
                    let row = self.row(other);
                    (row.is_live, row.deleted) = (false, time);
                }
                let row = self.row(id);
                (row.is_live, row.name) = (true, name);
            }
            Effect::Purge(id, of) => {
                let row = self.row(id);
                row.manifests.remove(&of);
                row.tags.retain(|_, tag| tag.0 != of);
            }
        }
    }

    /// One thing that somebody does: notes, and what is done after each.
    pub(super) fn operation(
        &self,
        mut one_of: impl FnMut(usize) -> usize,
    ) -> Vec<(Vec<u8>, Effect)> {
        let name = NAMES[one_of(NAMES.len())];
        let (tag, of) = (TAGS[one_of(TAGS.len())], one_of(2));
        let kind = one_of(16);
        if kind < 5 {
            let has = |blob: &&usize| self.live(name).is_some_and(|row| row.links.contains(*blob));
            let missing = NEEDS[of].iter().filter(|blob| !has(blob));
            let link = |blob: &usize| {
                let note = noted(named::link(name, &blobs()[*blob]));
                (note, Effect::Link(name, *blob))
            };
            let mut steps: Vec<_> = missing.map(link).collect();
            let note = named::manifest_of(IMAGE, name, &blobs()[4 + of], &[tag]);
            steps.push((note, Effect::Put(name, of, vec![tag])));
            return steps;
        }
        if kind < 8 {
            return self.restore(name, NAMES[one_of(NAMES.len())]);
        }
        if kind < 10 {
            let at = one_of(self.rows.len().max(1));
            let row = self.rows.get(at);
            return row.map(|row| purge(row, of)).unwrap_or_default();
        }
        let Some(row) = self.live(name) else {
            return Vec::new();
        };
        let bytes = name.as_bytes();
        let (id, encoded) = (row.id, digest(4 + of).encode());
        match kind {
            10..12 => vec![(drop_of(name, id), Effect::Drop(id))],
            12 if row.manifests.get(&of) == Some(&true) => {
                let note = named::note(4, &[bytes, &encoded], &[]);
                vec![(note, Effect::Delete(id, of))]
            }
            13 if row.tags.get(tag).is_some_and(|tag| tag.1) => {
                let note = named::note(3, &[bytes, tag.as_bytes()], &[]);
                vec![(note, Effect::Untag(id, tag))]
            }
            // What is deleted comes back.
            14 if row.manifests.get(&of) == Some(&false) => {
                let hidden = row.tags.iter().filter(|(_, tag)| **tag == (of, false));
                let tags: Vec<&str> = hidden.map(|(tag, _)| *tag).collect();
                let note = named::manifest_of(IMAGE, name, &blobs()[4 + of], &tags);
                vec![(note, Effect::Put(name, of, tags))]
            }
            15 if !row.manifests.contains_key(&of) && row.links.contains(&NEEDS[of][0]) => {
                let blob = NEEDS[of][0];
                let note = named::note(5, &[bytes, &digest(blob).encode()], &[]);
                vec![(note, Effect::Unlink(id, blob))]
            }
            _ => Vec::new(),
        }
    }

    /// A deleted repository goes for good, as after its window: nothing is noted.
    pub(super) fn expire(&mut self, one_of: impl FnOnce(usize) -> usize) -> Option<i64> {
        let hidden = |at: &usize| !self.rows[*at].is_live;
        let hidden: Vec<usize> = (0..self.rows.len()).filter(hidden).collect();
        let at = hidden.get(one_of(hidden.len().max(1)))?;
        Some(self.rows.remove(*at).id)
    }

    fn restore(&self, name: &str, new: &'static str) -> Vec<(Vec<u8>, Effect)> {
        let hidden = self.rows.iter();
        let hidden = hidden.filter(|row| !row.is_live && row.name == name);
        let Some(row) = hidden.max_by_key(|row| row.deleted) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        if let Some(other) = self.live(new) {
            if other.manifests.values().any(|is_live| *is_live) {
                return Vec::new();
            }
            steps.push((drop_of(new, other.id), Effect::Later));
        }
        steps.push((back(name, new, row.id), Effect::Restore(row.id, new)));
        steps
    }
}

fn purge(row: &Row, of: usize) -> Vec<(Vec<u8>, Effect)> {
    let (id, name) = (row.id, row.name.as_bytes());
    let encoded = digest(4 + of).encode();
    let mut steps = Vec::new();
    match row.manifests.get(&of) {
        None => return steps,
        Some(true) if row.is_live => {
            let note = named::note(4, &[name, &encoded], &[]);
            steps.push((note, Effect::Delete(id, of)));
        }
        Some(_) => {}
    }
    steps.push((of_row(6, &[name, &encoded], id), Effect::Purge(id, of)));
    for blob in NEEDS[of].iter().filter(|blob| row.links.contains(blob)) {
        let note = of_row(9, &[name, &digest(*blob).encode()], id);
        steps.push((note, Effect::PurgeLink(id, *blob)));
    }
    steps
}

/// A catalog with the rows of a model.
pub(super) fn catalog(template: &Path, model: &Model) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    std::fs::copy(template, &path).unwrap();
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(
        "PRAGMA foreign_keys = OFF; BEGIN; \
         UPDATE catalog SET gc_hold = NULL; \
         CREATE TEMP TABLE m AS SELECT * FROM manifest WHERE repository = 1; \
         CREATE TEMP TABLE e AS SELECT * FROM edge WHERE repository = 1; \
         CREATE TEMP TABLE r AS SELECT * FROM repository WHERE id = 2; \
         CREATE TEMP TABLE both AS SELECT * FROM repository WHERE id = 1; \
         DELETE FROM tag; DELETE FROM edge; DELETE FROM manifest; DELETE FROM link; \
         DELETE FROM unlinked; DELETE FROM change; DELETE FROM repository;",
    )
    .unwrap();
    for row in &model.rows {
        let deleted = |is_live: bool, at: usize| (!is_live).then_some(at as i64 + 1);
        sql.execute(
            "INSERT INTO repository (id, name, created_at, deleted_at) VALUES (?1, ?2, 0, ?3)",
            (row.id, row.name, deleted(row.is_live, row.deleted)),
        )
        .unwrap();
        for (of, is_live) in &row.manifests {
            let encoded = digest(4 + of).encode();
            sql.execute_batch(&format!(
                "UPDATE m SET repository = {0}; UPDATE e SET repository = {0};",
                row.id
            ))
            .unwrap();
            sql.execute("UPDATE m SET deleted_at = ?1", (deleted(*is_live, 0),))
                .unwrap();
            let manifest = "INSERT INTO manifest SELECT * FROM m WHERE digest = ?1";
            sql.execute(manifest, (&encoded,)).unwrap();
            let edge = "INSERT INTO edge SELECT * FROM e WHERE manifest = ?1";
            sql.execute(edge, (&encoded,)).unwrap();
            // Totals add up: those of the image are row 2's, those of both row 1's.
            let sum = |column: &str| match of {
                0 => format!("{column} = {column} + (SELECT {column} FROM r)"),
                _ => format!(
                    "{column} = {column} + (SELECT {column} FROM both) - (SELECT {column} FROM r)"
                ),
            };
            let columns = ["manifests", "edges"].map(sum).join(", ");
            sql.execute(
                &format!("UPDATE repository SET {columns} WHERE id = ?1"),
                (row.id,),
            )
            .unwrap();
            for column in ["manifest_sum", "edge_sum"] {
                add(&sql, row.id, column, *of);
            }
        }
        for (tag, (of, is_live)) in &row.tags {
            sql.execute(
                "INSERT INTO tag (repository, name, manifest, updated_at, deleted_at) \
                 VALUES (?1, ?2, ?3, 0, ?4)",
                (row.id, tag, digest(4 + of).encode(), deleted(*is_live, 0)),
            )
            .unwrap();
        }
        for blob in &row.links {
            let bytes = &blobs()[*blob];
            sql.execute(
                "INSERT INTO link (repository, digest, size, linked_at) VALUES (?1, ?2, ?3, 0)",
                (row.id, sha256(bytes).encode(), bytes.len() as i64),
            )
            .unwrap();
        }
    }
    let last = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'repository'";
    sql.execute(last, (model.next - 1,)).unwrap();
    sql.execute_batch("COMMIT").unwrap();
    sql.close().unwrap();
    std::fs::read(path).unwrap()
}

/// Adds a manifest to a sum that wraps around.
fn add(sql: &Connection, row: i64, column: &str, of: usize) {
    let get = |text: String| -> i64 { sql.query_row(&text, (), |row| row.get(0)).unwrap() };
    let image = get(format!("SELECT {column} FROM r"));
    let one = match of {
        0 => image,
        _ => get(format!("SELECT {column} FROM both")).wrapping_sub(image),
    };
    let was = get(format!("SELECT {column} FROM repository WHERE id = {row}"));
    let set = format!("UPDATE repository SET {column} = ?1 WHERE id = ?2");
    sql.execute(&set, (was.wrapping_add(one), row)).unwrap();
}
