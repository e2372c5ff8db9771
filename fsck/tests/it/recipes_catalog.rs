//! A store damaged in one way for each code about names, and the report that
//! is expected of it, in `fsck/tests/golden/`.
//!
//! `ORLOP_BLESS=1` writes the reports anew; read what changed.

use std::path::Path;

use crate::named::{Named, contents, sha256};

/// A code, and what brings it about in a whole store.
type Recipe = (&'static str, fn(&Named));

const RECIPES: &[Recipe] = &[
    ("catalog.missing", |store| {
        std::fs::remove_file(store.path("catalog.db")).unwrap();
    }),
    ("catalog.unreadable", |store| {
        store.write("catalog.db", &crate::v1::content(90, 8192));
    }),
    ("catalog.integrity", |store| {
        store.sql("DELETE FROM repository WHERE name = 'team/gone'");
    }),
    ("catalog.other", |store| {
        store.sql("UPDATE catalog SET id = CAST('another catalog!' AS BLOB)");
    }),
    ("catalog.older", |store| {
        store.sql("UPDATE catalog SET sequence = 6");
    }),
    ("catalog.totals", |store| {
        store.sql("UPDATE repository SET edges = edges + 1 WHERE name = 'team/app'");
    }),
    ("manifest.blob", |store| {
        let never = hex(b"no manifest");
        store.sql(&format!(
            "UPDATE tag SET manifest = {never} WHERE deleted_at IS NULL; \
             UPDATE edge SET manifest = {never} WHERE manifest = {0}; \
             UPDATE manifest SET digest = {never} WHERE digest = {0}",
            hex(&contents().image)
        ));
        // The totals tell too; here the manifest is to be alone.
        totals(store);
    }),
    ("manifest.bytes", |store| {
        // The config is no manifest.
        let config = hex(&contents().config);
        store.sql(&format!(
            "DELETE FROM edge WHERE manifest = {0}; \
             UPDATE manifest SET digest = {config}, size = 37 WHERE digest = {0}",
            hex(&contents().report)
        ));
        totals(store);
    }),
    ("manifest.row", |store| {
        store.sql("UPDATE manifest SET artifact_type = 'text/plain', size = size + 1 WHERE subject IS NOT NULL");
    }),
    ("manifest.edges", |store| {
        store.sql(
            "UPDATE edge SET size = size + 1 WHERE kind = 2 AND size = 500 AND repository = 1",
        );
    }),
    ("tag.manifest", |store| {
        store.sql("UPDATE tag SET deleted_at = NULL WHERE repository = 2");
    }),
    ("link.blob", |store| {
        let never = hex(b"no blob");
        store.sql(&format!(
            "INSERT INTO link (repository, digest, size, linked_at) VALUES (1, {never}, 7, 0)"
        ));
    }),
    ("link.size", |store| {
        store.sql("UPDATE link SET size = 501 WHERE size = 500");
    }),
    ("link.repository", |store| {
        // Without the constraint, which SQLite's own check would report.
        store.sql(
            "CREATE TABLE loose (repository BIGINT NOT NULL, digest BLOB NOT NULL, \
             size BIGINT NOT NULL, birth BIGINT, linked_at BIGINT NOT NULL, \
             PRIMARY KEY (digest, repository)) WITHOUT ROWID; \
             INSERT INTO loose SELECT * FROM link; DROP TABLE link; \
             ALTER TABLE loose RENAME TO link; UPDATE link SET repository = 9 WHERE size = 500",
        );
    }),
];

/// The encoded digest of bytes as SQLite writes it.
fn hex(bytes: &[u8]) -> String {
    let digest = sha256(bytes).encode();
    let digits: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("X'{digits}'")
}

/// Makes the totals those of the rows.
fn totals(store: &Named) {
    let sum = |parts: &[&[u8]]| {
        let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let sum = parts.concat().iter().fold(0xcbf2_9ce4_8422_2325, step);
        i64::from_le_bytes(sum.to_le_bytes())
    };
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    let mut edges = sql
        .prepare("SELECT manifest, kind, digest FROM edge WHERE repository = 1")
        .unwrap();
    let edges: Vec<i64> = edges
        .query_map((), |row| {
            let (manifest, kind): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
            let digest: Vec<u8> = row.get(2)?;
            Ok(sum(&[&manifest, &kind.to_le_bytes(), &digest]))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut manifests = sql
        .prepare("SELECT digest FROM manifest WHERE repository = 1")
        .unwrap();
    let manifests: Vec<i64> = manifests
        .query_map((), |row| Ok(sum(&[&row.get::<_, Vec<u8>>(0)?])))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let all = |sums: &[i64]| sums.iter().fold(0i64, |all, sum| all.wrapping_add(*sum));
    store.sql(&format!(
        "UPDATE repository SET manifests = {}, manifest_sum = {}, edges = {}, edge_sum = {} WHERE id = 1",
        manifests.len(),
        all(&manifests),
        edges.len(),
        all(&edges)
    ));
}

#[test]
fn each_code_about_names_has_a_store_and_a_report() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut wrong = Vec::new();
    for (code, damage) in RECIPES {
        let store = Named::whole();
        damage(&store);
        let said = store.check();
        let codes = said.findings().iter().map(|finding| finding.code.name());
        assert!(codes.clone().any(|found| found == *code), "{code}: {said}");
        let report = serde_json::json!({
            "findings": said.findings(),
            "notes": said.notes(),
        });
        let folder = store.folder().display().to_string();
        let report = format!("{report:#}\n").replace(&folder, "DIR");
        let file = golden.join(format!("{code}.json"));
        if std::env::var_os("ORLOP_BLESS").is_some() {
            std::fs::create_dir_all(&golden).unwrap();
            std::fs::write(&file, &report).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if report != expected {
            wrong.push(format!("{code}: expected {expected}found {report}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a rebuilt catalog has not, repair takes away; the rest it names.
#[test]
fn repair_mends_every_damage_of_names_that_it_can() {
    for (code, damage) in RECIPES {
        let store = Named::whole();
        damage(&store);
        let outcome = store.repair(&[]);
        // A name of a blob that never was is in no note, and so is not made
        // again; rows of its own stay as long as the catalog is believed.
        let stays = ["manifest.blob", "manifest.bytes", "link.blob"].contains(code);
        assert_eq!(
            outcome.after.clean(),
            !stays,
            "{code}: {:#?}",
            outcome.after
        );
    }
}

#[test]
fn an_older_link_to_a_blob_that_ended_is_a_note() {
    let store = Named::whole();
    let digest = hex(&contents().small);
    // The log of this store has no tombstones yet; a newer birth stands for
    // the end of the blob that the link meant.
    store.sql(&format!(
        "UPDATE link SET birth = 1 WHERE digest = {digest}"
    ));
    let report = store.check();
    assert!(report.clean(), "{report}");
}
