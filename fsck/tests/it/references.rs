//! What manifests refer to: what a collection took wrongly is damage, what was
//! deleted or never was here is not.

use orlop_format::digest::Digest;
use orlop_format::record::Record;
use orlop_fsck::{Code, Report};
use serde_json::json;

use crate::interrupted::layout;
use crate::named::{self, IMAGE, Named, append, append_all, contents, ended, inline, sha256};
use crate::recipes_catalog::{collect, hex, index, purge_image, push, push_index};
use crate::repair::says;

fn codes(found: &[orlop_fsck::Finding]) -> Vec<Code> {
    found.iter().map(|finding| finding.code).collect()
}

/// The notes about references.
fn notes(report: &Report) -> Vec<(Code, String)> {
    let notes = report.notes().iter();
    notes
        .filter(|note| note.code.name().starts_with("reference."))
        .map(|note| (note.code, note.object.blob.clone().unwrap()))
        .collect()
}

fn links(store: &Named, digest: &Digest) -> i64 {
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    let count = "SELECT count(*) FROM link WHERE digest = ?1";
    sql.query_row(count, (digest.encode(),), |row| row.get(0))
        .unwrap()
}

/// A store with an index of its image.
fn with_index() -> Named {
    let store = Named::whole();
    push_index(store.folder(), &index(&[&contents().image]));
    let report = store.check();
    assert!(report.clean(), "{report}");
    store
}

#[test]
fn a_collected_layer_of_a_manifest_that_can_be_pulled_is_damage_and_comes_back_from_a_source() {
    let contents = contents();
    let store = Named::whole();
    for bytes in [&contents.small, &contents.large] {
        collect(store.folder(), bytes);
    }
    let report = store.check();
    assert_eq!(
        codes(report.findings()),
        [Code::ReferenceBlob; 2],
        "{report}"
    );
    let mut blobs = Vec::new();
    for finding in report.findings() {
        let object = &finding.object;
        let key = format!("team/app@{}", sha256(&contents.image));
        assert_eq!(object.key.as_ref(), Some(&key));
        assert_eq!(object.affected.len(), 1, "{report}");
        assert_eq!(object.affected[0].repository, "team/app");
        assert_eq!(object.affected[0].tags, ["v1"]);
        assert!(finding.found.contains("collected at LSN"), "{finding}");
        blobs.extend(object.blob.clone());
    }
    let [small, large] = [sha256(&contents.small), sha256(&contents.large)];
    blobs.sort();
    let mut wanted = [small.to_string(), large.to_string()];
    wanted.sort();
    assert_eq!(blobs, wanted);
    // What is deleted loses nothing that anybody can pull.
    let hidden = notes(&report);
    assert_eq!(hidden.len(), 2, "{report}");
    assert!(hidden.iter().all(|(code, _)| *code == Code::ReferenceEnded));

    let outcome = store.repair(&[]);
    assert!(outcome.done.is_empty(), "{outcome:#?}");
    let source = layout(&[&contents.small, &contents.large]);
    let outcome = store.repair(&[source.path().to_str().unwrap()]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert!(
        says(&outcome.done, "2 links were given back"),
        "{outcome:#?}"
    );
    assert_eq!((links(&store, &small), links(&store, &large)), (1, 1));
    assert!(notes(&outcome.after).is_empty(), "{outcome:#?}");
    // And once is enough.
    let outcome = store.repair(&[source.path().to_str().unwrap()]);
    assert!(outcome.done.is_empty(), "{outcome:#?}");
    // A catalog that is made again has the links as well.
    std::fs::remove_file(store.path("catalog.db")).unwrap();
    let outcome = store.repair(&[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert_eq!((links(&store, &small), links(&store, &large)), (1, 1));
}

/// A source that has one of two gives back one.
#[test]
fn a_layer_that_no_source_has_gets_no_link() {
    let contents = contents();
    let store = Named::whole();
    for bytes in [&contents.small, &contents.large] {
        collect(store.folder(), bytes);
    }
    let source = layout(&[&contents.small]);
    let outcome = store.repair(&[source.path().to_str().unwrap()]);
    assert!(says(&outcome.left, &sha256(&contents.large).to_string()));
    assert_eq!(codes(outcome.after.findings()), [Code::ReferenceBlob]);
    assert_eq!(links(&store, &sha256(&contents.large)), 0);
    assert_eq!(links(&store, &sha256(&contents.small)), 1);
}

#[test]
fn a_purged_child_of_an_index_that_can_be_pulled_is_damage() {
    let image = contents().image;
    let store = with_index();
    purge_image(store.folder());
    for forgotten in [false, true] {
        if forgotten {
            // Nobody else has it, so it had a row here.
            let rows = "DELETE FROM departed; DELETE FROM edge WHERE repository = 2; \
                 DELETE FROM tag WHERE repository = 2; DELETE FROM manifest WHERE repository = 2; \
                 UPDATE repository SET manifests = 0, manifest_sum = 0, edges = 0, edge_sum = 0 \
                 WHERE id = 2";
            named::sql(store.folder(), rows);
        }
        let report = store.check();
        assert_eq!(
            codes(report.findings()),
            [Code::ReferenceManifest],
            "{report}"
        );
        let object = &report.findings()[0].object;
        assert_eq!(object.blob, Some(sha256(&image).to_string()));
        assert_eq!(object.affected[0].tags, ["all"], "{report}");
    }
    append(store.folder(), vec![ended(&image)]);
    let report = store.check();
    assert_eq!(
        codes(report.findings()),
        [Code::ReferenceManifest],
        "{report}"
    );
    assert!(report.findings()[0].found.contains("collected at LSN"));
}

#[test]
fn a_deleted_child_that_may_come_back_is_a_note() {
    let store = with_index();
    let image = hex(&contents().image);
    named::sql(
        store.folder(),
        &format!(
            "UPDATE tag SET deleted_at = 1 WHERE manifest = {image}; \
             UPDATE manifest SET deleted_at = 1 WHERE digest = {image}"
        ),
    );
    let report = store.check();
    assert!(report.clean(), "{report}");
    let child = sha256(&contents().image).to_string();
    assert_eq!(notes(&report), [(Code::ReferenceDeleted, child)]);
}

#[test]
fn what_a_sparse_push_names_and_never_was_here_is_a_note() {
    let store = Named::whole();
    let platforms: [&[u8]; 2] = [b"a platform", b"another one"];
    push_index(store.folder(), &index(&platforms));
    let report = store.check();
    assert!(report.clean(), "{report}");
    let found = notes(&report);
    assert_eq!(found.len(), 2, "{report}");
    assert!(found.iter().all(|(code, _)| *code == Code::ReferenceAbsent));

    // A child of another repository alone: a pull from here fails.
    let store = Named::whole();
    let child = json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": [],
        "config": named::descriptor("application/vnd.oci.empty.v1+json", b"{}")})
    .to_string()
    .into_bytes();
    let note = named::manifest_of(IMAGE, "team/other", &child, &["v1"]);
    let linked = (named::link("team/other", b"{}"), Vec::new());
    append_all(store.folder(), vec![linked, inline(80, &child, note)]);
    push_index(store.folder(), &index(&[&child]));
    let report = store.check();
    assert_eq!(codes(report.findings()), [Code::ReferenceLink], "{report}");
}

#[test]
fn what_had_ended_before_a_sparse_push_named_it_is_a_note() {
    let store = Named::whole();
    let layer = b"a layer of earlier days".to_vec();
    append_all(store.folder(), vec![inline(80, &layer, Vec::new())]);
    append(store.folder(), vec![ended(&layer)]);
    push(store.folder(), IMAGE, &image_of("tar", &layer));
    let report = store.check();
    assert!(report.clean(), "{report}");
    let layer = sha256(&layer).to_string();
    assert_eq!(notes(&report), [(Code::ReferenceAbsent, layer)]);
}

/// An image of one layer of this type.
fn image_of(media_type: &str, layer: &[u8]) -> Vec<u8> {
    let media_type = format!("application/vnd.oci.image.layer.{media_type}");
    json!({"schemaVersion": 2, "mediaType": IMAGE,
        "config": named::descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [named::descriptor(&media_type, layer)]})
    .to_string()
    .into_bytes()
}

#[test]
fn layers_that_may_not_be_distributed_need_no_blob_and_no_link() {
    let foreign = "nondistributable.v1.tar";
    for (is_here, ends) in [(false, false), (true, false), (true, true)] {
        let store = Named::whole();
        let layer = b"a layer from elsewhere".to_vec();
        if is_here {
            append_all(store.folder(), vec![inline(80, &layer, Vec::new())]);
        }
        push(store.folder(), IMAGE, &image_of(foreign, &layer));
        if ends {
            append(store.folder(), vec![ended(&layer)]);
        }
        let report = store.check();
        assert!(report.clean(), "{report}");
        let absent = usize::from(!is_here || ends);
        assert_eq!(notes(&report).len(), absent, "{report}");
    }
}

#[test]
fn a_blob_that_was_deleted_by_its_digest_is_a_note() {
    let store = Named::whole();
    let small = sha256(&contents().small);
    let digest = hex(&contents().small);
    let unlink = named::note(5, &[b"team/app", &small.encode()], &[]);
    append(store.folder(), vec![Record::Note(unlink)]);
    named::sql(
        store.folder(),
        &format!(
            "DELETE FROM link WHERE digest = {digest}; DELETE FROM unlinked; \
             INSERT INTO unlinked VALUES (1, {digest}, 500, 0)"
        ),
    );
    let purged = format!(
        "DELETE FROM unlinked; INSERT INTO departed (digest, repository, manifest, deleted_at, purged_at) \
             VALUES ({digest}, 'team/app', X'', 0, 0)"
    );
    for change in [String::new(), purged] {
        named::sql(store.folder(), &change);
        let report = store.check();
        assert!(report.clean(), "{report}");
        let deleted = (Code::ReferenceDeleted, small.to_string());
        assert_eq!(notes(&report), [deleted]);
    }
    // When nothing tells of it any more, it is told that a pull fails; and a
    // repair brings back no link that the log says was taken.
    named::sql(store.folder(), "DELETE FROM departed");
    let report = store.check();
    assert_eq!(codes(report.findings()), [Code::ReferenceLink], "{report}");
    let outcome = store.repair(&[]);
    assert!(outcome.done.is_empty(), "{outcome:#?}");
    assert_eq!(links(&store, &small), 0);
}

#[test]
fn a_link_that_only_the_catalog_lost_is_given_back() {
    let store = Named::whole();
    let small = sha256(&contents().small);
    let digest = hex(&contents().small);
    named::sql(
        store.folder(),
        &format!("DELETE FROM link WHERE digest = {digest}; UPDATE catalog SET pulls_floor = 77"),
    );
    assert!(!store.check().clean());
    let outcome = store.repair(&[]);
    assert!(outcome.after.clean(), "{outcome:#?}");
    assert_eq!(links(&store, &small), 1);
    // The catalog is the one that was there, and what was there is kept.
    let sql = rusqlite::Connection::open(store.path("catalog.db")).unwrap();
    let floor: i64 = sql
        .query_row("SELECT pulls_floor FROM catalog", (), |row| row.get(0))
        .unwrap();
    assert_eq!(floor, 77);
    assert!(store.path("quarantine/repair-1/catalog.db").exists());
}

/// Sparse pushes name what others have; reading it is not theirs to be given.
#[test]
fn a_repair_gives_no_repository_a_blob_that_the_log_does_not_say_it_had() {
    let store = Named::whole();
    let layer = b"a layer of somebody else".to_vec();
    let other = (named::link("team/other", &layer), Vec::new());
    append_all(store.folder(), vec![inline(80, &layer, Vec::new()), other]);
    push(store.folder(), IMAGE, &image_of("tar", &layer));
    let report = store.check();
    assert_eq!(codes(report.findings()), [Code::ReferenceLink], "{report}");
    let source = layout(&[&layer]);
    let outcome = store.repair(&[source.path().to_str().unwrap()]);
    assert!(outcome.done.is_empty(), "{outcome:#?}");
    assert_eq!(links(&store, &sha256(&layer)), 1);
}

#[test]
fn a_store_after_an_ordinary_collection_is_clean() {
    let contents = contents();
    let store = Named::whole();
    // Rows of what was deleted go first, then the blobs, then their links.
    named::sql(
        store.folder(),
        "DELETE FROM edge; DELETE FROM tag; DELETE FROM manifest; DELETE FROM unlinked; \
         UPDATE repository SET manifests = 0, manifest_sum = 0, edges = 0, edge_sum = 0",
    );
    let empty = b"{}".to_vec();
    for blob in [
        &contents.image,
        &contents.report,
        &contents.config,
        &contents.small,
        &contents.large,
        &empty,
    ] {
        collect(store.folder(), blob);
    }
    let report = store.check();
    assert!(report.clean(), "{report}");
    assert!(notes(&report).is_empty(), "{report}");
    assert_eq!((report.counts.blobs, report.counts.links), (0, 0));
}
