//! How names are damaged for a code: rows of the catalog of a small store that
//! has some, changed by SQL.

use std::path::Path;

use orlop_format::BLOCK;
use orlop_format::superblock::{FILES, Superblock};
use orlop_fsck::Code;

use crate::golden::{Case, case};
use crate::named::{self, IMAGE, Named, append, append_all, contents, ended, inline, sha256};
use crate::support::Folder;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Puts the store of names in the golden one's place and changes its rows.
fn change(folder: &Folder, text: &str) {
    Named::instead_of(folder.root());
    named::sql(folder.root(), text);
}

pub(crate) const CASES: &[Case] = &[
    case(Code::CatalogMissing, |folder| folder.remove("catalog.db")),
    case(Code::CatalogUnreadable, |folder| {
        folder.write("catalog.db", &crate::v1::content(90, 8192));
    }),
    case(Code::CatalogIntegrity, |folder| {
        change(folder, "DELETE FROM repository WHERE name = 'team/gone'");
    }),
    case(Code::CatalogOther, |folder| {
        change(
            folder,
            "UPDATE catalog SET id = CAST('another catalog!' AS BLOB)",
        );
    }),
    case(Code::CatalogOlder, |folder| {
        change(folder, "UPDATE catalog SET sequence = 6");
    }),
    case(Code::CatalogTotals, |folder| {
        change(
            folder,
            "UPDATE repository SET edges = edges + 1 WHERE name = 'team/app'",
        );
    }),
    case(Code::CatalogNone, |folder| {
        Named::instead_of(folder.root());
        folder.remove("catalog.db");
        named::no_records(folder.root());
        never_seen(folder);
    }),
    case(Code::CatalogOutdated, |folder| {
        change(folder, "UPDATE catalog SET schema = 2");
    }),
    case(Code::ManifestBlob, |folder| {
        let never = hex(b"no manifest");
        let image = hex(&contents().image);
        change(
            folder,
            &format!(
                "UPDATE tag SET manifest = {never} WHERE repository = 1; \
                 UPDATE edge SET manifest = {never} WHERE manifest = {image} AND repository = 1; \
                 UPDATE manifest SET digest = {never} WHERE digest = {image} AND repository = 1"
            ),
        );
        totals(folder.root());
    }),
    case(Code::ManifestBytes, |folder| {
        // The config is no manifest.
        let (config, report) = (hex(&contents().config), hex(&contents().report));
        change(
            folder,
            &format!(
                "UPDATE edge SET manifest = {config} WHERE manifest = {report}; \
                 UPDATE manifest SET digest = {config} WHERE digest = {report}"
            ),
        );
        totals(folder.root());
    }),
    case(Code::ManifestRow, |folder| {
        change(
            folder,
            "UPDATE manifest SET artifact_type = 'text/plain', size = size + 1 \
             WHERE subject IS NOT NULL",
        );
    }),
    case(Code::ManifestEdges, |folder| {
        change(
            folder,
            "UPDATE edge SET size = size + 1 WHERE kind = 2 AND size = 500 AND repository = 1",
        );
    }),
    case(Code::ManifestEnded, |folder| {
        // Deleted in both repositories, then collected.
        change(
            folder,
            "UPDATE tag SET deleted_at = 1; UPDATE manifest SET deleted_at = 1",
        );
        append(folder.root(), vec![ended(&contents().image)]);
    }),
    case(Code::TagManifest, |folder| {
        change(
            folder,
            "UPDATE tag SET deleted_at = NULL WHERE repository = 2",
        );
    }),
    case(Code::LinkBlob, |folder| {
        let never = hex(b"no blob");
        change(
            folder,
            &format!(
                "INSERT INTO link (repository, digest, size, linked_at) VALUES (1, {never}, 7, 0)"
            ),
        );
    }),
    case(Code::LinkSize, |folder| {
        change(folder, "UPDATE link SET size = 501 WHERE size = 500");
    }),
    case(Code::LinkRepository, |folder| {
        // Without the constraint, which SQLite's own check would report.
        change(
            folder,
            "CREATE TABLE loose (repository BIGINT NOT NULL, digest BLOB NOT NULL, \
             size BIGINT NOT NULL, birth BIGINT, linked_at BIGINT NOT NULL, \
             PRIMARY KEY (digest, repository)) WITHOUT ROWID; \
             INSERT INTO loose SELECT * FROM link; DROP TABLE link; \
             ALTER TABLE loose RENAME TO link; UPDATE link SET repository = 9 WHERE size = 500",
        );
    }),
    case(Code::LinkEnded, |folder| {
        // A collection ends a blob first, and takes its links after that.
        let layer = b"a layer without a manifest";
        let digest = hex(layer);
        change(
            folder,
            &format!("INSERT INTO link VALUES (1, {digest}, 26, 18, 0)"),
        );
        let folder = folder.root();
        append_all(folder, vec![inline(7, layer, Vec::new())]);
        append(folder, vec![ended(layer)]);
    }),
    case(Code::ReferenceBlob, |folder| {
        Named::instead_of(folder.root());
        collect(folder.root(), &contents().small);
    }),
    case(Code::ReferenceManifest, |folder| {
        with_index(folder);
        purge_image(folder.root());
    }),
    case(Code::ReferenceLink, |folder| {
        let small = hex(&contents().small);
        change(folder, &format!("DELETE FROM link WHERE digest = {small}"));
    }),
    case(Code::ReferenceDeleted, |folder| {
        let small = hex(&contents().small);
        change(
            folder,
            &format!(
                "DELETE FROM link WHERE digest = {small}; \
                 INSERT INTO unlinked VALUES (1, {small}, 500, 0)"
            ),
        );
    }),
    case(Code::ReferenceEnded, |folder| {
        // Deleted in both repositories; a layer went too soon.
        change(
            folder,
            "UPDATE tag SET deleted_at = 1; UPDATE manifest SET deleted_at = 1",
        );
        collect(folder.root(), &contents().small);
    }),
    case(Code::ReferenceAbsent, |folder| {
        Named::instead_of(folder.root());
        let index = index(&[b"a platform that nobody pushed"]);
        push_index(folder.root(), &index);
    }),
];

/// Ends a blob, and takes its links, as a collection does.
pub(crate) fn collect(folder: &Path, bytes: &[u8]) {
    append(folder, vec![ended(bytes)]);
    let digest = hex(bytes);
    named::sql(folder, &format!("DELETE FROM link WHERE digest = {digest}"));
}

/// Takes the rows of the image in `team/app`, as a purge does.
pub(crate) fn purge_image(folder: &Path) {
    let image = hex(&contents().image);
    named::sql(
        folder,
        &format!(
            "DELETE FROM tag WHERE manifest = {image} AND repository = 1; \
             DELETE FROM edge WHERE manifest = {image} AND repository = 1; \
             DELETE FROM manifest WHERE digest = {image} AND repository = 1; \
             INSERT INTO departed (digest, repository, manifest, deleted_at, purged_at) \
             VALUES ({image}, 'team/app', {image}, 0, 0)"
        ),
    );
    totals(folder);
}

/// The store of names in the golden one's place, with an index of its image.
fn with_index(folder: &Folder) {
    Named::instead_of(folder.root());
    push_index(folder.root(), &index(&[&contents().image]));
}

/// An index of these manifests.
pub(crate) fn index(children: &[&[u8]]) -> Vec<u8> {
    let children = children.iter().map(|child| named::descriptor(IMAGE, child));
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": children.collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes()
}

/// Pushes an index to `team/app` as `all`: nothing is asked of its children.
pub(crate) fn push_index(folder: &Path, index: &[u8]) {
    push(folder, INDEX, index);
}

/// Pushes a manifest to `team/app` as `all`: nothing is asked of what it names.
pub(crate) fn push(folder: &Path, media_type: &str, manifest: &[u8]) {
    let note = named::manifest_of(media_type, "team/app", manifest, &["all"]);
    append_all(folder, vec![inline(90, manifest, note)]);
    std::fs::remove_file(folder.join("catalog.db")).unwrap();
    named::repaired(folder, &[]);
}

/// Writes superblocks that have seen a catalog without names.
fn never_seen(folder: &Folder) {
    for file in FILES {
        folder.edit(file, |bytes| {
            for block in bytes.chunks_mut(BLOCK) {
                let mut slot = Superblock::decode(block).unwrap();
                (slot.catalog, slot.catalog_sequence) = ([0; 16], 0);
                block.copy_from_slice(&slot.encode());
            }
        });
    }
}

/// The encoded digest of bytes as SQLite writes it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digest = sha256(bytes).encode();
    let digits: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("X'{digits}'")
}

/// Makes the totals those of the rows.
pub(crate) fn totals(folder: &Path) {
    let sum = |parts: &[&[u8]]| {
        let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let sum = parts.concat().iter().fold(0xcbf2_9ce4_8422_2325, step);
        i64::from_le_bytes(sum.to_le_bytes())
    };
    let sql = rusqlite::Connection::open(folder.join("catalog.db")).unwrap();
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
    let text = format!(
        "UPDATE repository SET manifests = {}, manifest_sum = {}, edges = {}, edge_sum = {} WHERE id = 1",
        manifests.len(),
        all(&manifests),
        edges.len(),
        all(&edges)
    );
    named::sql(folder, &text);
}

/// What a catalog made again has not, repair takes away; the rest it names.
#[test]
fn repair_mends_every_damage_of_names_that_it_can() {
    for Case { code, damage, .. } in CASES {
        let folder = Folder::golden();
        damage(&folder);
        let before = named::checked(folder.root());
        // Notes of the golden store are none that a registry writes.
        if matches!(code, Code::CatalogMissing | Code::CatalogUnreadable) {
            continue;
        }
        let outcome = named::repaired(folder.root(), &[]);
        // A row of a blob that never was may be all that is left of a push.
        let stays = [
            Code::ManifestBlob,
            Code::ManifestBytes,
            Code::LinkBlob,
            Code::ReferenceBlob,
            Code::ReferenceManifest,
        ]
        .contains(code);
        assert_eq!(outcome.after.clean(), !stays, "{code}: {}", outcome.after);
        assert_eq!(
            outcome.done.is_empty(),
            before.clean() || stays,
            "{code}: {outcome:#?}"
        );
    }
}

/// The log that the catalog is made from is not always one that can be read.
#[test]
fn notes_of_a_newer_version_end_a_repair_before_it_changes_anything() {
    let folder = Folder::golden();
    folder.remove("catalog.db");
    let error = orlop_fsck::repair::plan(folder.root(), named::options(&[])).unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
    assert!(!folder.path("catalog.db").exists());
}
