//! Notes applied to a copy of the catalog that has them already, or some of
//! them: what an operator deleted and brought back is as it was left.

mod killed;
mod random;

use std::path::Path;

use orlop_format::record::Record;
use orlop_fsck::repair::Outcome;

use crate::engine::during;
use crate::named::{self, CATALOG, IMAGE, Named, contents, repaired, sha256};

const APP: &str = "team/app";
const OLD: &str = "team/old";

/// A note that ends in the row of its repository.
fn of_row(kind: u8, fields: &[&[u8]], row: i64) -> Vec<u8> {
    named::note(kind, fields, &row.to_le_bytes())
}

fn drop_of(name: &str, row: i64) -> Vec<u8> {
    of_row(7, &[name.as_bytes()], row)
}

fn back(name: &str, new: &str, row: i64) -> Vec<u8> {
    of_row(8, &[name.as_bytes(), new.as_bytes()], row)
}

fn purge(name: &str, row: i64) -> Vec<u8> {
    let image = sha256(&contents().image).encode();
    of_row(6, &[name.as_bytes(), &image], row)
}

/// That a purge of it came to nothing.
fn kept(name: &str, row: i64) -> Vec<u8> {
    let image = sha256(&contents().image).encode();
    let end = [row.to_le_bytes().as_slice(), &[6]].concat();
    named::note(10, &[name.as_bytes(), &image], &end)
}

/// The notes of a push of the image.
fn push(name: &str, tag: &str) -> Vec<Vec<u8>> {
    let contents = contents();
    let blobs = [&contents.config, &contents.small, &contents.large];
    let mut notes = blobs.map(|blob| noted(named::link(name, blob))).to_vec();
    notes.push(named::manifest_of(IMAGE, name, &contents.image, &[tag]));
    notes
}

/// That of a blob alone.
fn noted_link(name: &str) -> Vec<u8> {
    noted(named::link(name, &contents().config))
}

fn noted(record: Record) -> Vec<u8> {
    match record {
        Record::Note(note) => note,
        other => panic!("{other:?}"),
    }
}

fn append(store: &Named, notes: &[Vec<u8>]) {
    let records = notes.iter().cloned().map(Record::Note).collect();
    named::append(store.folder(), records);
}

/// Makes the catalog again and keeps a copy of it in the store, at which it is
/// lost; what happens after that is noted.
fn copied(store: &Named, change: impl FnOnce(&Path), then: &[Vec<u8>]) {
    let catalog = store.path("catalog.db");
    let _ = std::fs::remove_file(&catalog);
    let outcome = store.repair(&[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    named::sql(store.folder(), "UPDATE catalog SET gc_hold = NULL");
    change(store.folder());
    let sql = rusqlite::Connection::open(&catalog).unwrap();
    let sequence: i64 = sql
        .query_row("SELECT sequence FROM catalog", (), |row| row.get(0))
        .unwrap();
    sql.close().unwrap();
    during(store.folder(), async |engine| {
        let sequence = sequence.unsigned_abs();
        engine.catalog_seen(CATALOG, sequence).await.unwrap();
        let copy = engine.catalog_copy(&catalog, CATALOG, sequence);
        copy.await.unwrap();
        for note in then {
            engine.note(note.clone()).unwrap();
        }
    });
    std::fs::remove_file(&catalog).unwrap();
}

/// Makes the catalog again; says which repositories it has: each with its row
/// and its tags, those of one name that were deleted in the order of that.
fn made(store: &Named) -> (Outcome, Vec<(i64, String)>) {
    let outcome = repaired(store.folder(), &[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    let mut select = sql
        .prepare(
            "SELECT r.id, r.name || CASE WHEN r.deleted_at IS NULL THEN '' ELSE ' deleted' END \
             || COALESCE((SELECT group_concat(' ' || name, '') FROM (SELECT name FROM tag t \
             WHERE t.repository = r.id AND t.deleted_at IS NULL ORDER BY name)), '') \
             FROM repository r WHERE r.name <> 'team/gone' \
             ORDER BY r.name, r.deleted_at IS NULL, r.deleted_at, r.id",
        )
        .unwrap();
    let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    (outcome, rows.unwrap().collect::<Result<_, _>>().unwrap())
}

fn held(store: &Named) -> bool {
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    let held = "SELECT gc_hold IS NOT NULL FROM catalog";
    sql.query_row(held, (), |row| row.get(0)).unwrap()
}

/// What a repair makes of these notes behind a copy that has the first ones, and
/// whether it says that something is in doubt.
fn unsure(before: &[Vec<u8>], after: &[Vec<u8>]) -> (Vec<(i64, String)>, bool) {
    let store = Named::without_catalog();
    if !before.is_empty() {
        append(&store, before);
    }
    copied(&store, |_| {}, after);
    let (outcome, found) = made(&store);
    assert_eq!(outcome.left.is_empty(), !held(&store), "{outcome:#?}");
    (found, held(&store))
}

/// The same where nothing is in doubt.
fn found(before: &[Vec<u8>], after: &[Vec<u8>]) -> Vec<(i64, String)> {
    let (found, is_unsure) = unsure(before, after);
    assert!(!is_unsure);
    found
}

fn row(id: i64, says: &str) -> (i64, String) {
    (id, says.to_owned())
}

/// The copy has the repository deleted; its pushes and its delete lie before.
#[test]
fn a_repository_that_a_copy_has_deleted_comes_back_whole() {
    let gone = [drop_of(APP, 1)];
    let whole = found(&gone, &[back(APP, APP, 1)]);
    assert_eq!(whole, [row(1, "team/app v1")]);
    let other = found(&gone, &[back(APP, OLD, 1)]);
    assert_eq!(other, [row(1, "team/old v1")]);
}

/// So that who brings it back gets all of it.
#[test]
fn a_repository_that_a_copy_has_deleted_is_not_made_again_by_its_notes() {
    let found = found(&[drop_of(APP, 1)], &[]);
    assert_eq!(found, [row(1, "team/app deleted v1")]);
}

#[test]
fn a_delete_before_a_copy_does_not_hide_what_was_pushed_after_it() {
    let notes = [vec![drop_of(APP, 1)], push(APP, "v2")].concat();
    let found = found(&notes, &push(APP, "v3"));
    let expected = [row(1, "team/app deleted v1"), row(3, "team/app v2 v3")];
    assert_eq!(found, expected);
}

/// Here a return lies before the copy, and a delete after that.
#[test]
fn a_return_before_a_copy_does_not_hide_what_has_the_name_now() {
    let notes = [drop_of(APP, 1), back(APP, APP, 1), drop_of(APP, 1)];
    let notes = [notes.to_vec(), push(APP, "v2")].concat();
    let found = found(&notes, &[]);
    assert_eq!(
        found,
        [row(1, "team/app deleted v1"), row(3, "team/app v2")]
    );
}

/// All is deleted by one repair: which was deleted last is known all the same.
#[test]
fn which_repository_of_a_name_was_deleted_last_is_known_after_a_repair() {
    let then = [drop_of(APP, 3), back(APP, APP, 1), drop_of(APP, 1)];
    let notes = [vec![drop_of(APP, 1)], push(APP, "v2"), then.to_vec()].concat();
    let store = Named::without_catalog();
    append(&store, &notes);
    let expected = [row(3, "team/app deleted v2"), row(1, "team/app deleted v1")];
    assert_eq!(made(&store).1, expected);
    let found = found(&notes, &[back(APP, APP, 1)]);
    assert_eq!(
        found,
        [row(3, "team/app deleted v2"), row(1, "team/app v1")]
    );
}

/// A purge of one of two repositories of a name, and of a deleted one.
#[test]
fn a_purge_is_of_the_repository_that_it_was_of() {
    let before = [vec![drop_of(APP, 1)], push(APP, "v2")].concat();
    let deleted = found(&before, &[purge(APP, 1)]);
    let expected = [row(1, "team/app deleted"), row(3, "team/app v2")];
    assert_eq!(deleted, expected);
    let notes = [before.clone(), vec![purge(APP, 1)]].concat();
    assert_eq!(found(&notes, &[]), expected);
    let live = found(&before, &[purge(APP, 3)]);
    assert_eq!(live, [row(1, "team/app deleted v1"), row(3, "team/app")]);
}

/// What a purge left where it was stays, in a deleted repository too; an earlier one
/// that took it, and a later one, did so.
#[test]
fn a_purge_that_came_to_nothing_takes_nothing() {
    let before = [vec![drop_of(APP, 1)], push(APP, "v2")].concat();
    let (deleted, live) = ([purge(APP, 1), kept(APP, 1)], [purge(APP, 3), kept(APP, 3)]);
    let whole = [row(1, "team/app deleted v1"), row(3, "team/app v2")];
    for notes in [&deleted, &live] {
        assert_eq!(found(&before, notes), whole);
        let all = [before.clone(), notes.to_vec()].concat();
        assert_eq!(found(&all, &[]), whole);
    }
    // Tried twice, and of the first nothing is known.
    let notes = [vec![purge(APP, 3)], live.to_vec()].concat();
    assert_eq!(found(&before, &notes), whole);
    let gone = [row(1, "team/app deleted v1"), row(3, "team/app")];
    let notes = [live.to_vec(), vec![purge(APP, 3)]].concat();
    assert_eq!(found(&before, &notes), gone);
    // The same image of another repository says nothing of this one.
    let other = [
        vec![purge(APP, 3)],
        push("team/b", "v9"),
        vec![kept(APP, 3)],
    ]
    .concat();
    let both = [whole[0].clone(), whole[1].clone(), row(4, "team/b v9")];
    assert_eq!(found(&before, &other), both);
    // The one before the push took what was there.
    let again = [vec![purge(APP, 3)], push(APP, "v3"), live.to_vec()].concat();
    let expected = [row(1, "team/app deleted v1"), row(3, "team/app v3")];
    assert_eq!(found(&before, &again), expected);
}

/// A row that is not in the copy although its number was given then: a purge
/// took it, and its notes bring nothing of it back.
#[test]
fn a_repository_that_was_purged_before_a_copy_does_not_come_back_by_its_notes() {
    let store = Named::without_catalog();
    append(&store, &[drop_of(APP, 1)]);
    copied(&store, purged, &push(APP, "v2"));
    assert_eq!(made(&store).1, [row(3, "team/app v2")]);
}

/// As a purge leaves the repository with row 1.
fn purged(folder: &Path) {
    for table in ["tag", "edge", "manifest", "link", "unlinked"] {
        named::sql(folder, &format!("DELETE FROM {table} WHERE repository = 1"));
    }
    named::sql(folder, "DELETE FROM repository WHERE id = 1");
}

/// Its bytes are gone, its repository was deleted and is back: names may be
/// missing, so nothing may be collected.
#[test]
fn a_lost_manifest_of_a_repository_that_came_back_is_told_and_holds_collection() {
    let lost = b"{\"schemaVersion\":2,\"of\":\"a secret\"}".to_vec();
    let pushed = named::manifest_of(IMAGE, APP, &lost, &["lost"]);
    let of = |notes: &[Vec<u8>]| {
        let store = Named::without_catalog();
        append(&store, notes);
        let (outcome, _) = made(&store);
        (outcome.left.join("\n"), held(&store))
    };
    let (told, _) = of(&[pushed.clone(), drop_of(APP, 1)]);
    assert!(!told.contains(&sha256(&lost).to_string()), "{told}");
    let notes = [pushed, drop_of(APP, 1), back(APP, OLD, 1)];
    let (told, held) = of(&notes);
    assert!(
        told.contains(&format!("team/old@{}", sha256(&lost))),
        "{told}"
    );
    assert!(held);
}

/// The catalog is there and lacks a link that a note gave the repository before
/// it was deleted and brought back.
#[test]
fn a_link_given_before_its_repository_was_deleted_and_came_back_is_given_again() {
    for (new, notes) in [
        (APP, vec![drop_of(APP, 1), back(APP, APP, 1)]),
        (OLD, vec![drop_of(APP, 1), back(APP, OLD, 1)]),
    ] {
        let store = Named::without_catalog();
        append(&store, &notes);
        let (_, found) = made(&store);
        assert_eq!(found, [row(1, &format!("{new} v1"))]);
        named::sql(store.folder(), "DELETE FROM link WHERE repository = 1");
        assert!(!store.check().clean());
        let outcome = store.repair(&[]);
        assert!(outcome.after.clean(), "{new}: {outcome:#?}");
    }
}

/// What was noted and then not done is taken back by notes, and what is pushed
/// after that is found where it was pushed to.
#[test]
fn a_return_that_came_to_nothing_leaves_all_repositories_as_they_were() {
    // One without manifests was to make way.
    let notes = [
        vec![drop_of(APP, 1), push(APP, "v2").remove(0)],
        vec![drop_of(APP, 3), back(APP, APP, 1)],
        vec![drop_of(APP, 1), back(APP, APP, 3)],
    ]
    .concat();
    let then = push(APP, "v3");
    let expected = [row(1, "team/app deleted v1"), row(3, "team/app v3")];
    for at in 2..=notes.len() {
        let after = [notes[at..].to_vec(), then.clone()].concat();
        let (found, _) = unsure(&notes[..at], &after);
        assert_eq!(found, expected, "copied after {at}");
    }
    // Under another name.
    let before = [vec![drop_of(APP, 1)], push(APP, "v2")].concat();
    let notes = [before, vec![back(APP, OLD, 1), drop_of(APP, 1)]].concat();
    let then = push(APP, "v3");
    let expected = [row(1, "team/app deleted v1"), row(3, "team/app v2 v3")];
    for at in 5..=notes.len() {
        let after = [notes[at..].to_vec(), then.clone()].concat();
        assert_eq!(found(&notes[..at], &after), expected, "copied after {at}");
    }
}

/// A crash came between a note and its rows, and a push made a new repository.
#[test]
fn a_return_that_a_crash_kept_from_being_done_takes_no_name_from_another() {
    let before = [vec![drop_of(APP, 1)], push(APP, "v2")].concat();
    let after = [vec![back(APP, APP, 1)], push(APP, "v3")].concat();
    let expected = [row(1, "team/app deleted v1"), row(3, "team/app v2 v3")];
    assert_eq!(found(&before, &after), expected);
}

/// Two copies lie behind the note, and both have the repository.
#[test]
fn a_delete_that_a_crash_kept_from_being_done_is_not_done_by_a_repair() {
    let store = Named::without_catalog();
    append(&store, &[drop_of(APP, 1)]);
    for then in [Vec::new(), push(APP, "v2")] {
        copied(&store, shown, &then);
    }
    assert_eq!(made(&store).1, [row(1, "team/app v1 v2")]);
    assert!(!held(&store));
}

/// As it was in the catalog before any of it was deleted.
fn shown(folder: &Path) {
    for table in ["repository", "manifest", "tag"] {
        let which = match table {
            "repository" => "name = 'team/app'",
            "tag" => "repository = 1 AND name <> 'old'",
            _ => "repository = 1",
        };
        let show = format!("UPDATE {table} SET deleted_at = NULL WHERE {which}");
        named::sql(folder, &show);
    }
    let link = "INSERT INTO link (repository, digest, size, linked_at) \
         SELECT repository, digest, size, 0 FROM unlinked WHERE repository = 1; \
         DELETE FROM unlinked WHERE repository = 1";
    named::sql(folder, link);
}

/// One copy lies behind the note: whether it was made before the delete was done or
/// that was never done cannot be known.
#[test]
fn a_delete_that_the_only_copy_does_not_show_is_told_and_nothing_is_collected() {
    let image = sha256(&contents().image).encode();
    let layer = sha256(&contents().small).encode();
    let app = APP.as_bytes();
    for (note, told) in [
        (drop_of(APP, 1), "repository team/app: its delete"),
        (named::note(4, &[app, &image], &[]), "manifest team/app@"),
        (named::note(3, &[app, b"v1"], &[]), "tag team/app:v1"),
        (named::note(5, &[app, &layer], &[]), "team/app's link to"),
    ] {
        let store = Named::without_catalog();
        append(&store, &[note]);
        copied(&store, shown, &[]);
        let (outcome, found) = made(&store);
        let left = outcome.left.join("\n");
        assert!(left.contains(told), "{told}: {left}");
        assert!(held(&store));
        assert_eq!(found, [row(1, "team/app v1")], "{told}");
    }
}

/// Of notes before the copy before it a copy says what was done.
#[test]
fn what_a_copy_shows_is_not_hidden_by_a_delete_that_was_noted_before_it() {
    let image = sha256(&contents().image).encode();
    let layer = sha256(&contents().small).encode();
    let app = APP.as_bytes();
    let notes = [
        named::note(5, &[app, &layer], &[]),
        named::note(3, &[app, b"v1"], &[]),
        named::note(4, &[app, &image], &[]),
    ];
    for copies in [1, 2] {
        let store = Named::without_catalog();
        append(&store, &notes);
        for _ in 0..copies {
            copied(&store, shown, &[]);
        }
        let (outcome, found) = made(&store);
        assert_eq!(found, [row(1, "team/app v1")], "{outcome:#?}");
        assert_eq!(held(&store), copies == 1, "{outcome:#?}");
        assert_eq!(outcome.left.is_empty(), copies == 2, "{outcome:#?}");
    }
}

/// No copy can say whether a delete behind it was done, unless what follows does.
#[test]
fn a_delete_behind_the_copy_holds_collection_unless_it_is_known_that_it_was_done() {
    let (deleted, is_unsure) = unsure(&[], &[drop_of(APP, 1)]);
    assert_eq!(deleted, [row(1, "team/app deleted v1")]);
    assert!(is_unsure);
    // Another one had the name after it.
    let notes = [vec![drop_of(APP, 1)], push(APP, "v2"), vec![purge(APP, 3)]].concat();
    let expected = [row(1, "team/app deleted v1"), row(3, "team/app")];
    assert_eq!(found(&[], &notes), expected);
    let twice = [drop_of(APP, 1), drop_of(APP, 1), back(APP, OLD, 1)];
    assert_eq!(found(&[], &twice), [row(1, "team/old v1")]);
}

/// It was noted before the name passed to another repository.
#[test]
fn a_push_that_a_kill_kept_from_being_done_gives_nothing_to_who_has_the_name_then() {
    let notes = [
        drop_of(APP, 1),
        noted(named::link(OLD, &contents().image)),
        back(APP, OLD, 1),
    ];
    let store = Named::without_catalog();
    append(&store, &notes);
    assert_eq!(made(&store).1, [row(1, "team/old v1")]);
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    let links = "SELECT count(*) FROM link WHERE digest = ?1";
    let image = sha256(&contents().image).encode();
    let links: i64 = sql.query_row(links, (image,), |row| row.get(0)).unwrap();
    assert_eq!(links, 0);
}

/// A kill came between a return and its row, and what was pushed to that name is
/// another repository's.
#[test]
fn a_return_that_a_kill_kept_from_being_done_does_not_take_what_was_pushed() {
    let notes = [
        vec![drop_of(APP, 1), back(APP, OLD, 1)],
        push(OLD, "v2"),
        vec![back(APP, "team/web", 1)],
    ]
    .concat();
    let expected = [row(3, "team/old v2"), row(1, "team/web v1")];
    // No note between the returns says that it was deleted: a power cut may have
    // taken one.
    assert_eq!(unsure(&[], &notes), (expected.to_vec(), true));
    // It was purged then, so that no copy has it.
    let store = Named::without_catalog();
    append(&store, &[drop_of(APP, 1), back(APP, OLD, 1)]);
    copied(&store, purged, &push(OLD, "v2"));
    assert_eq!(made(&store).1, [row(3, "team/old v2")]);
}

/// The catalog is there and lacks a link that a note gave: one that was purged from
/// another repository that had the name is given back, one of its own is not.
#[test]
fn a_link_purged_from_another_repository_of_the_name_is_given_again() {
    let layer = sha256(&contents().small).encode();
    let purge_of = |id| of_row(9, &[APP.as_bytes(), &layer], id);
    for (id, is_given) in [(1, true), (3, false)] {
        let store = Named::without_catalog();
        append(&store, &[vec![drop_of(APP, 1)], push(APP, "v2")].concat());
        made(&store);
        append(&store, &[purge_of(id)]);
        named::sql(store.folder(), "DELETE FROM link WHERE repository = 3");
        let outcome = store.repair(&[]);
        assert_eq!(outcome.after.clean(), is_given, "{id}: {outcome:#?}");
    }
}

/// The same, where notes say of repositories what was then not done.
#[test]
fn a_link_is_given_again_to_a_repository_whose_delete_or_return_was_not_done() {
    for notes in [
        vec![drop_of(APP, 1)],
        vec![drop_of("team/gone", 2), back("team/gone", APP, 2)],
    ] {
        let store = Named::without_catalog();
        made(&store);
        append(&store, &notes);
        append(&store, &push(APP, "v2"));
        named::sql(store.folder(), "DELETE FROM link WHERE repository = 1");
        let outcome = store.repair(&[]);
        assert!(outcome.after.clean(), "{outcome:#?}");
    }
}
