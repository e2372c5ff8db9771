//! oras for Python: artifacts, and what is about them.

use orlop_tests::data;
use orlop_tests::fetched::Fetched;
use orlop_tests::server::Server;
use serde_json::{Value, json};

/// Pushes a file and another about it, lists, pulls, deletes a tag; prints
/// what it saw as JSON.
const SCRIPT: &str = r#"
import json, sys
import oras.client, oras.oci

registry = sys.argv[1]
name = registry + "/oras/artifact"
client = oras.client.OrasClient(hostname=registry, insecure=True)

def push(tag, *files, **options):
    answer = client.push(target=f"{name}:{tag}", files=list(files), quiet=True, **options)
    wanted = ("docker-content-digest", "oci-subject")
    return {key: answer.headers.get(key) for key in wanted}

saw = {}
saw["file"] = push("v1", "file:application/octet-stream", manifest_annotations={"made-by": "oras"})
manifest = client.get_manifest(f"{name}:v1")
saw["manifest"] = manifest
subject = oras.oci.Subject.from_manifest(manifest)
saw["report"] = push("report", "report.json:application/json", subject=subject)
path = f"{client.prefix}://{registry}/v2/oras/artifact/referrers/{subject.digest}"
saw["referrers"] = client.do_request(path).json()
kind = "?artifactType=application/vnd.unknown.config.v1%2Bjson"
saw["of_a_kind"] = client.do_request(path + kind).json()
saw["of_another"] = client.do_request(path + "?artifactType=application/x").json()
saw["chunked"] = push("chunked", "file:application/octet-stream", do_chunked=True, chunk_size=100_000)
saw["tags"] = client.get_tags(f"{name}:v1")
saw["pulled"] = client.pull(target=f"{name}:v1", outdir="pulled")
client.pull(target=f"{name}:report", outdir="pulled")
saw["deleted"] = client.delete_tags(f"{name}:v1", "chunked")
saw["left"] = client.get_tags(f"{name}:v1")
print(json.dumps(saw))
"#;

#[test]
fn oras_pushes_attaches_lists_and_pulls() {
    let Some(python) = Fetched::oras() else {
        return;
    };
    let server = Server::start();
    let client = server.client();
    let (file, report) = (data::bytes(80, 1_234_567), br#"{"findings": 0}"#);
    let home = python.home();
    std::fs::write(home.join("file"), &file).unwrap();
    std::fs::write(home.join("report.json"), report).unwrap();
    let said = python.run(&["-c", SCRIPT, &server.address().to_string()]);
    let saw: Value = serde_json::from_str(&said).unwrap();

    let pushed = client.digest_of("oras/artifact", "v1");
    assert_eq!(saw["file"]["docker-content-digest"], pushed.as_str());
    assert_eq!(saw["manifest"]["annotations"]["made-by"], "oras");
    let layer = data::sha256(&file);
    assert_eq!(saw["manifest"]["layers"][0]["digest"], layer.as_str());
    client.blob_is("oras/artifact", &layer, &file);

    assert_eq!(saw["report"]["oci-subject"], pushed.as_str());
    let digest = client.digest_of("oras/artifact", "report");
    assert_eq!(saw["report"]["docker-content-digest"], digest.as_str());
    for list in ["referrers", "of_a_kind"] {
        let entries = saw[list]["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{list}");
        assert_eq!(entries[0]["digest"], digest.as_str(), "{list}");
    }
    assert_eq!(saw["of_another"]["manifests"], json!([]));

    assert_eq!(saw["tags"], json!(["chunked", "report", "v1"]));
    assert_eq!(saw["left"], json!(["report", "v1"]));
    assert!(std::fs::read(home.join("pulled/file")).unwrap() == file);
    assert_eq!(
        std::fs::read(home.join("pulled/report.json")).unwrap(),
        report
    );
}
