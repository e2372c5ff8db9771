//! What an operator did to names, by notes alone: a catalog that is made again
//! has no manifest that was purged, and repositories as they were left.

use orlop_format::record::Record;

use crate::named::{self, IMAGE, Named, contents, sha256};

/// A note that ends in the row of its repository.
fn note(kind: u8, fields: &[&[u8]], row: i64) -> Record {
    Record::Note(named::note(kind, fields, &row.to_le_bytes()))
}

/// The numbers that these queries give.
fn numbers<const N: usize>(store: &Named, queries: [&str; N]) -> [i64; N] {
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    queries.map(|query| sql.query_row(query, (), |row| row.get(0)).unwrap())
}

#[test]
fn a_repair_does_not_bring_a_purged_manifest_back() {
    let image = sha256(&contents().image).encode();
    let store = Named::without_catalog();
    named::append(store.folder(), vec![note(6, &[b"team/app", &image], 1)]);
    let outcome = store.repair(&[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let found = numbers(
        &store,
        [
            "SELECT count(*) FROM manifest m JOIN repository r ON r.id = m.repository \
             WHERE r.name = 'team/app'",
            "SELECT count(*) FROM tag t JOIN repository r ON r.id = t.repository \
             WHERE r.name = 'team/app'",
            "SELECT count(*) FROM manifest m JOIN repository r ON r.id = m.repository \
             WHERE r.name = 'team/gone' AND m.deleted_at IS NOT NULL",
            "SELECT count(*) FROM catalog WHERE gc_hold IS NOT NULL",
        ],
    );
    // What is about it has a row of its own; the other repository's is hidden.
    assert_eq!(found, [1, 0, 1, 0]);

    // A push after it counts, also when all is applied again to that catalog.
    let again = named::manifest_of(IMAGE, "team/app", &contents().image, &["v2"]);
    named::append(store.folder(), vec![Record::Note(again)]);
    std::fs::remove_file(store.path("catalog.db")).unwrap();
    let outcome = store.repair(&[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let tags = "SELECT count(*) FROM tag WHERE name = 'v2' AND deleted_at IS NULL";
    let old = "SELECT count(*) FROM tag t JOIN repository r ON r.id = t.repository \
         WHERE t.name = 'v1' AND r.name = 'team/app'";
    assert_eq!(numbers(&store, [tags, old]), [1, 0]);
}

/// A purge of bytes that are gone is no loss that has to be told.
#[test]
fn a_purged_manifest_whose_bytes_are_gone_is_not_missed() {
    let lost = b"{\"schemaVersion\":2}".to_vec();
    let digest = sha256(&lost).encode();
    let store = Named::without_catalog();
    let pushed = named::manifest_of(IMAGE, "team/app", &lost, &["secret"]);
    let records = vec![Record::Note(pushed), note(6, &[b"team/app", &digest], 1)];
    named::append(store.folder(), records);
    let outcome = store.repair(&[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    let holds = "SELECT count(*) FROM catalog WHERE gc_hold IS NOT NULL";
    let secret = "SELECT count(*) FROM tag WHERE name = 'secret'";
    assert_eq!(numbers(&store, [holds, secret]), [0, 0]);
}

#[test]
fn a_repair_leaves_repositories_deleted_and_brought_back_as_they_were() {
    let live = "SELECT count(*) FROM repository WHERE name = 'team/app' AND deleted_at IS NULL";
    let hidden =
        "SELECT count(*) FROM repository WHERE name = 'team/app' AND deleted_at IS NOT NULL";
    let other = "SELECT count(*) FROM repository WHERE name = 'team/old' AND deleted_at IS NULL";
    let tagged = "SELECT count(*) FROM tag t JOIN repository r ON r.id = t.repository \
         AND r.deleted_at IS NULL WHERE t.name = 'v1' AND t.deleted_at IS NULL";
    let made = |records: Vec<Record>| {
        let store = Named::without_catalog();
        named::append(store.folder(), records);
        let outcome = store.repair(&[]);
        assert!(outcome.after.clean(), "{outcome:#?}");
        numbers(&store, [live, hidden, other, tagged])
    };
    let gone = || note(7, &[b"team/app"], 1);
    let back = |name: &[u8]| note(8, &[b"team/app", name], 1);
    assert_eq!(made(vec![gone()]), [0, 1, 0, 0]);
    assert_eq!(made(vec![gone(), back(b"team/app")]), [1, 0, 0, 1]);
    assert_eq!(made(vec![gone(), back(b"team/old")]), [0, 0, 1, 1]);
    // A push makes a new one, and what was deleted does not come in its way.
    let again = |then: Vec<Record>| {
        let contents = contents();
        let mut records = vec![gone()];
        for blob in [&contents.config, &contents.small, &contents.large] {
            records.push(named::link("team/app", blob));
        }
        let note = named::manifest_of(IMAGE, "team/app", &contents.image, &["v2"]);
        records.push(Record::Note(note));
        records.extend(then);
        made(records)
    };
    assert_eq!(again(vec![]), [1, 1, 0, 0]);
    assert_eq!(again(vec![back(b"team/old")]), [1, 0, 1, 1]);
    let other = note(7, &[b"team/app"], 3);
    assert_eq!(again(vec![other, back(b"team/app")]), [1, 1, 0, 1]);
}
