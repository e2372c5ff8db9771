//! Many histories of repositories, each with a copy of the catalog somewhere in
//! it: what a repair makes of it is what a model says.

use std::collections::BTreeSet;
use std::path::Path;

use orlop_figures::choose;

use super::{append, back, copied, drop_of, made, noted_link, purge, push};
use crate::named::{self, Named, contents, sha256};

const NAMES: [&str; 3] = ["team/app", "team/old", "team/web"];
/// Those of a hidden repository are not told apart from others by their tags.
const STEPS: u64 = 14;

#[derive(Clone)]
struct Row {
    id: i64,
    name: String,
    is_live: bool,
    /// Later is greater.
    deleted: u64,
    has_image: bool,
    tags: BTreeSet<String>,
}

/// The catalog as the server has it.
#[derive(Clone)]
struct Model {
    rows: Vec<Row>,
    next: i64,
    time: u64,
}

impl Model {
    fn new() -> Model {
        let app = Row {
            id: 1,
            name: NAMES[0].to_owned(),
            is_live: true,
            deleted: 0,
            has_image: true,
            tags: BTreeSet::from(["v1".to_owned()]),
        };
        Model {
            rows: vec![app],
            // After that of team/gone.
            next: 3,
            time: 0,
        }
    }

    fn live(&mut self, name: &str) -> Option<&mut Row> {
        let mut rows = self.rows.iter_mut();
        rows.find(|row| row.is_live && row.name == name)
    }

    fn ensure(&mut self, name: &str) -> &mut Row {
        if self.live(name).is_none() {
            self.rows.push(Row {
                id: self.next,
                name: name.to_owned(),
                is_live: true,
                deleted: 0,
                has_image: false,
                tags: BTreeSet::new(),
            });
            self.next += 1;
        }
        self.live(name).unwrap()
    }

    fn hide(&mut self, name: &str) -> Option<Vec<u8>> {
        self.time += 1;
        let time = self.time;
        let row = self.live(name)?;
        (row.is_live, row.deleted) = (false, time);
        Some(drop_of(name, row.id))
    }

    /// One thing that somebody does, and the notes of it.
    fn step(&mut self, random: &mut u64) -> Vec<Vec<u8>> {
        let mut one_of = |n: usize| usize::try_from(next(random)).unwrap_or(usize::MAX) % n;
        let name = NAMES[one_of(NAMES.len())];
        match one_of(10) {
            0..3 => {
                let tag = format!("t{}", one_of(1000));
                let notes = push(name, &tag);
                let row = self.ensure(name);
                row.has_image = true;
                row.tags.insert(tag);
                notes
            }
            3 => {
                self.ensure(name);
                vec![noted_link(name)]
            }
            4..6 => self.hide(name).into_iter().collect(),
            6..8 => self.restore(name, NAMES[one_of(NAMES.len())]),
            8 => match self.live(name) {
                Some(row) if row.has_image => {
                    row.has_image = false;
                    row.tags.clear();
                    let image = sha256(&contents().image).encode();
                    vec![named::note(4, &[name.as_bytes(), &image], &[])]
                }
                _ => Vec::new(),
            },
            _ => {
                let at = one_of(self.rows.len());
                let row = &mut self.rows[at];
                row.has_image = false;
                row.tags.clear();
                vec![purge(&row.name, row.id)]
            }
        }
    }

    fn restore(&mut self, name: &str, new: &str) -> Vec<Vec<u8>> {
        let hidden = self
            .rows
            .iter()
            .filter(|row| !row.is_live && row.name == name);
        let Some(id) = hidden.max_by_key(|row| row.deleted).map(|row| row.id) else {
            return Vec::new();
        };
        if self.live(new).is_some_and(|row| row.has_image) {
            return Vec::new();
        }
        let mut notes: Vec<Vec<u8>> = self.hide(new).into_iter().collect();
        notes.push(back(name, new, id));
        let row = self.rows.iter_mut().find(|row| row.id == id).unwrap();
        (row.is_live, row.name) = (true, new.to_owned());
        notes
    }

    /// As [`made`] says it.
    fn says(&self) -> Vec<(i64, String)> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| (&row.name, row.is_live, row.deleted));
        let says = |row: &&Row| {
            let deleted = if row.is_live { "" } else { " deleted" };
            let tags: String = row.tags.iter().map(|tag| format!(" {tag}")).collect();
            (row.id, format!("{}{deleted}{tags}", row.name))
        };
        rows.iter().map(says).collect()
    }

    /// Gives the rows of a catalog that says the same the numbers of the server's.
    fn number(&self, folder: &Path) {
        let sql = rusqlite::Connection::open(folder.join("catalog.db")).unwrap();
        sql.execute_batch("PRAGMA foreign_keys = OFF; BEGIN")
            .unwrap();
        let mut select = sql
            .prepare(
                "SELECT id, name FROM repository \
                 ORDER BY name, deleted_at IS NULL, deleted_at, id",
            )
            .unwrap();
        let found = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
        let found: Vec<(i64, String)> = found.unwrap().map(Result::unwrap).collect();
        drop(select);
        let mut wanted: Vec<(i64, String, bool, u64)> = self
            .rows
            .iter()
            .map(|row| (row.id, row.name.clone(), row.is_live, row.deleted))
            .collect();
        wanted.push((2, "team/gone".to_owned(), true, 0));
        wanted.sort_by(|a, b| (&a.1, a.2, a.3).cmp(&(&b.1, b.2, b.3)));
        assert_eq!(found.len(), wanted.len());
        const FAR: i64 = 1_000_000;
        for ((old, name), (new, same, ..)) in found.iter().zip(&wanted) {
            assert_eq!(name, same);
            for (table, column) in TABLES {
                let set = format!("UPDATE {table} SET {column} = ?2 WHERE {column} = ?1");
                sql.execute(&set, (old, new + FAR)).unwrap();
            }
        }
        for (table, column) in TABLES {
            let set =
                format!("UPDATE {table} SET {column} = {column} - {FAR} WHERE {column} > {FAR}");
            sql.execute(&set, ()).unwrap();
        }
        let last = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'repository'";
        sql.execute(last, (self.next - 1,)).unwrap();
        sql.execute_batch("COMMIT").unwrap();
    }
}

const TABLES: [(&str, &str); 7] = [
    ("repository", "id"),
    ("manifest", "repository"),
    ("edge", "repository"),
    ("tag", "repository"),
    ("link", "repository"),
    ("unlinked", "repository"),
    ("change", "repository"),
];

/// SplitMix64.
pub(super) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn repositories_are_as_they_were_left_wherever_in_their_history_a_copy_is() {
    const SEED: u64 = 0x5eed_0007;
    let given = std::env::var("ORLOP_SEED").ok();
    let given: Option<u64> = given.and_then(|seed| seed.parse().ok());
    let seeds = match given {
        Some(seed) => seed..=seed,
        None => SEED..=SEED + choose(10, 100, 3000),
    };
    for seed in seeds {
        println!("replay with: ORLOP_SEED={seed} cargo test -p orlop-fsck --test it replayed");
        let mut random = seed;
        let at = next(&mut random) % STEPS;
        let (mut model, mut base) = (Model::new(), Model::new());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for step in 0..STEPS {
            if step == at {
                base = model.clone();
            }
            let notes = model.step(&mut random);
            if step < at { &mut before } else { &mut after }.extend(notes);
        }
        let store = Named::without_catalog();
        if !before.is_empty() {
            append(&store, &before);
        }
        copied(&store, |folder| base.number(folder), &after);
        let (_, found) = made(&store);
        let texts = |rows: Vec<(i64, String)>| rows.into_iter().map(|(_, says)| says);
        let found: Vec<String> = texts(found).collect();
        let wanted: Vec<String> = texts(model.says()).collect();
        assert_eq!(found, wanted, "seed {seed}");
    }
}
