//! Many histories of names with kills between a note and what it is about, and
//! copies of the catalog anywhere in them: what was live when the catalog was lost
//! is live in the one that is made again, or nothing is collected; what was purged
//! is not there.
//!
//! One thing is done at a time. A model is the catalog as the server had it; a copy
//! is a catalog with its rows.

mod model;

use std::collections::BTreeMap;
use std::path::Path;

use orlop_figures::choose;
use orlop_format::digest::Digest;
use orlop_format::record::{Commit, Record};
use rusqlite::{Connection, OptionalExtension as _};

use self::model::{Effect, Model, NEEDS, catalog, digest};
use super::held;
use super::random::next;
use crate::named::{self, CATALOG, Named, repaired, sha256};

const OPERATIONS: usize = 24;

/// What a note gives or takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Manifest(usize),
    Tag(&'static str),
    Link(usize),
}

/// What is known of the last note about something.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// Records before it.
    at: usize,
    is_done: bool,
    gives: bool,
    /// For good.
    is_purge: bool,
}

/// A history, and where its catalog was lost.
struct History {
    model: Model,
    /// None: a copy, the next of `copies`.
    notes: Vec<Option<Vec<u8>>>,
    copies: Vec<Model>,
    /// The last note about each thing of a row.
    last: BTreeMap<(i64, Thing), Last>,
    is_killed: bool,
    /// A note came while a copy was made.
    is_beside: bool,
    /// All of it, as it is told.
    told: Vec<String>,
}

impl History {
    fn of(seed: u64, kills: u64) -> History {
        let mut random = seed;
        let mut history = History {
            model: Model::new(),
            notes: Vec::new(),
            copies: Vec::new(),
            last: BTreeMap::new(),
            is_killed: false,
            is_beside: false,
            told: Vec::new(),
        };
        // A copy that is being made, and the notes that still come before it is there.
        let mut copy: Option<(Model, u64)> = None;
        for _ in 0..OPERATIONS {
            let state = &mut random;
            let mut one_of = |n: usize| usize::try_from(next(state) % n as u64).unwrap();
            if one_of(8) == 0
                && let Some(row) = history.model.expire(&mut one_of)
            {
                history.told.push(format!("row {row} is purged"));
            }
            for (note, effect) in history.model.operation(one_of) {
                if copy.is_none() && next(&mut random).is_multiple_of(12) {
                    copy = Some((history.model.clone(), next(&mut random) % 3));
                    history.told.push("a copy begins".to_owned());
                }
                history.is_beside |= copy.is_some();
                history.notes.push(Some(note));
                let is_done = next(&mut random) % 100 >= kills;
                let what = if is_done { "" } else { ", noted only" };
                let told = format!("{}: {effect:?}{what}", history.notes.len());
                history.told.push(told);
                history.tell(&effect, is_done);
                if copy.is_none() && next(&mut random).is_multiple_of(12) {
                    history.is_beside = true;
                    copy = Some((history.model.clone(), 0));
                    history
                        .told
                        .push("a copy begins before that is done".to_owned());
                }
                if !is_done {
                    history.is_killed = true;
                    copy = None;
                    break;
                }
                history.model.apply(effect);
                copy = copy.and_then(|(model, left)| match left {
                    0 => {
                        history.notes.push(None);
                        history.told.push("the copy is there".to_owned());
                        history.copies.push(model);
                        None
                    }
                    left => Some((model, left - 1)),
                });
            }
        }
        history
    }

    fn tell(&mut self, effect: &Effect, is_done: bool) {
        let live = |name| self.model.live(name).map_or(self.model.next, |row| row.id);
        let (row, things, gives) = match effect {
            Effect::Link(name, blob) => (live(name), vec![Thing::Link(*blob)], true),
            Effect::Put(name, of, tags) => {
                let tags = tags.iter().map(|tag| Thing::Tag(tag));
                let things = tags.chain([Thing::Manifest(*of)]);
                (live(name), things.collect(), true)
            }
            Effect::Untag(row, tag) => (*row, vec![Thing::Tag(tag)], false),
            Effect::Unlink(row, blob) | Effect::PurgeLink(row, blob) => {
                (*row, vec![Thing::Link(*blob)], false)
            }
            Effect::Delete(row, of) | Effect::Purge(row, of) => {
                let tags = self.model.rows.iter().filter(|of| of.id == *row);
                let tags = tags.flat_map(|row| row.tags.iter());
                let tags = tags.filter(|(_, tag)| tag.0 == *of);
                let things = tags.map(|(tag, _)| Thing::Tag(tag));
                (*row, things.chain([Thing::Manifest(*of)]).collect(), false)
            }
            Effect::Later | Effect::Drop(_) | Effect::Restore(..) => return,
        };
        let last = Last {
            at: self.notes.len(),
            is_done,
            gives,
            is_purge: matches!(effect, Effect::Purge(..) | Effect::PurgeLink(..)),
        };
        self.last
            .extend(things.into_iter().map(|thing| ((row, thing), last)));
    }

    /// Whether the last note about it was not done and no copy could tell.
    fn is_unknown(&self, row: i64, thing: Thing) -> bool {
        let copied = self.notes.iter().rposition(Option::is_none).unwrap_or(0);
        let last = self.last.get(&(row, thing));
        last.is_some_and(|last| !last.is_done && (last.gives || last.at > copied))
    }

    /// The store without its catalog.
    fn store(&self, template: &Path) -> Named {
        let store = Named::without_catalog();
        let mut copies = self.copies.iter();
        let mut records = Vec::new();
        for note in &self.notes {
            let Some(note) = note else {
                let number = records.len() as u64 + 100;
                let catalog = catalog(template, copies.next().unwrap());
                let commit = Commit {
                    sha256: sha256(&catalog).bytes().try_into().unwrap(),
                    aliases: Vec::new(),
                    ordinal: number,
                    size: catalog.len() as u64,
                    internal: true,
                    upload: None,
                    extents: vec![store.segment(number, &catalog)],
                    note: Vec::new(),
                };
                let copy = Record::Copy {
                    sha256: commit.sha256,
                    catalog: CATALOG,
                    sequence: 7,
                };
                records.extend([Record::Commit(commit), copy]);
                continue;
            };
            records.push(Record::Note(note.clone()));
        }
        named::append(store.folder(), records);
        store
    }

    /// Says what is not as it has to be.
    fn wrong(&self, store: &Named) -> Vec<String> {
        let sql = Connection::open(store.path("catalog.db")).unwrap();
        let mut wrong = Vec::new();
        let exists = |text: &str, row: i64, digest: &Digest| {
            let mut select = sql.prepare_cached(text).unwrap();
            select.exists((row, digest.encode())).unwrap()
        };
        const MANIFEST: &str = "SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2";
        const LINK: &str = "SELECT 1 FROM link WHERE repository = ?1 AND digest = ?2";
        for ((row, thing), last) in &self.last {
            let is_back = match thing {
                Thing::Manifest(of) => exists(MANIFEST, *row, &digest(4 + of)),
                Thing::Link(blob) => exists(LINK, *row, &digest(*blob)),
                Thing::Tag(_) => false,
            };
            // What stayed instead of being deleted, or came back instead of not, gets
            // what was pushed to its name.
            let is_again = || {
                let mut others = self.last.iter();
                others.any(|((_, of), by)| of == thing && by.gives && by.at > last.at)
            };
            if last.is_purge && last.is_done && is_back && !is_again() {
                wrong.push(format!("{thing:?} of row {row} was purged and is there"));
            }
        }
        if held(store) {
            return wrong;
        }
        for row in self.model.rows.iter().filter(|row| row.is_live) {
            let select = "SELECT id FROM repository WHERE name = ?1 AND deleted_at IS NULL";
            let found: Option<i64> = sql
                .query_row(select, (row.name,), |row| row.get(0))
                .optional()
                .unwrap();
            let Some(id) = found else {
                wrong.push(format!("{} is not live", row.name));
                continue;
            };
            let mut miss = |thing| {
                if !self.is_unknown(row.id, thing) {
                    wrong.push(format!("{} lacks {thing:?}", row.name));
                }
            };
            for (of, _) in row.manifests.iter().filter(|(_, is_live)| **is_live) {
                let live = format!("{MANIFEST} AND deleted_at IS NULL");
                if !exists(&live, id, &digest(4 + of)) {
                    miss(Thing::Manifest(*of));
                }
                for blob in NEEDS[*of].iter().filter(|blob| row.links.contains(blob)) {
                    if !exists(LINK, id, &digest(*blob)) {
                        miss(Thing::Link(*blob));
                    }
                }
            }
            for (tag, (of, _)) in row.tags.iter().filter(|(_, tag)| tag.1) {
                let text = format!(
                    "SELECT 1 FROM tag WHERE repository = ?1 AND manifest = ?2 \
                     AND name = '{tag}' AND deleted_at IS NULL"
                );
                if !exists(&text, id, &digest(4 + of)) {
                    miss(Thing::Tag(tag));
                }
            }
        }
        wrong
    }
}

#[test]
fn what_was_live_is_live_or_nothing_is_collected_wherever_a_kill_came() {
    const SEED: u64 = 0x5eed_0008_0000;
    let given = std::env::var("ORLOP_SEED").ok();
    let given: Option<u64> = given.and_then(|seed| seed.parse().ok());
    let seeds = match given {
        Some(seed) => seed..=seed,
        None => SEED..=SEED + choose(15, 300, 20_000),
    };
    let template = Named::whole();
    let mut free = 0;
    for seed in seeds {
        println!("replay with: ORLOP_SEED={seed} cargo test -p orlop-fsck --test it killed");
        let history = History::of(seed, [0, 10, 30][(seed % 3) as usize]);
        let store = history.store(&template.path("catalog.db"));
        let outcome = repaired(store.folder(), &[]);
        let wrong = history.wrong(&store);
        assert!(
            wrong.is_empty(),
            "seed {seed}: {wrong:#?}\n{:#?}\n{:#?}",
            outcome.left,
            history.told
        );
        free += u64::from(!held(&store));
        if !history.is_killed && !history.is_beside {
            assert!(outcome.after.clean(), "seed {seed}: {outcome:#?}");
        }
    }
    assert!(given.is_some() || free > 0, "collection was held each time");
}
