//! curl: the protocol as a shell script would speak it.

use orlop_tests::client::{blob, manifest};
use orlop_tests::server::Server;
use orlop_tests::{data, oci, place, tools};

/// Pushes a file by POST and PUT, a manifest, and pulls both.
const SCRIPT: &str = r#"
base=$1 repository=$2 file=$3 digest=$4 out=$5
location=$(curl -fsS -X POST -D - -o /dev/null "$base/v2/$repository/blobs/uploads/" |
    tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
case $location in http*) ;; *) location=$base$location ;; esac
case $location in *\?*) sign='&' ;; *) sign='?' ;; esac
curl -fsS -T "$file" -H 'Content-Type: application/octet-stream' \
    "$location${sign}digest=$digest"
curl -fsS -o "$out" "$base/v2/$repository/blobs/$digest"
curl -fsS -r 100-199 "$base/v2/$repository/blobs/$digest" | cmp - "$out.range"
# A pull that was cut goes on where it stopped.
head -c 70001 "$file" >"$out.part"
curl -fsS -C - -o "$out.part" "$base/v2/$repository/blobs/$digest"
cmp "$file" "$out.part"
"#;

#[test]
fn curl_pushes_pulls_and_resumes() {
    if tools::need("curl").is_none() {
        return;
    }
    let server = Server::shared();
    let folder = place::dir();
    let bytes = data::bytes(20, 5 << 20);
    let digest = data::sha256(&bytes);
    let file = folder.path().join("file");
    let out = folder.path().join("out");
    std::fs::write(&file, &bytes).unwrap();
    std::fs::write(folder.path().join("out.range"), &bytes[100..200]).unwrap();
    let base = format!("http://{}", server.address());
    let text = |path: &std::path::Path| path.display().to_string();
    tools::sh(
        SCRIPT,
        &[
            base,
            "curl/blob".into(),
            text(&file),
            digest.clone(),
            text(&out),
        ],
    );
    assert!(std::fs::read(&out).unwrap() == bytes);
    server
        .client()
        .head(&blob("curl/blob", &digest))
        .expect(200);
}

#[test]
fn curl_puts_a_manifest_and_gets_its_exact_bytes() {
    let Some(curl) = tools::need("curl") else {
        return;
    };
    let server = Server::shared();
    let client = server.client();
    let image = oci::image(&client, "curl/manifest", &[b"layer"]);
    let folder = place::dir();
    let file = folder.path().join("manifest.json");
    std::fs::write(&file, &image.bytes).unwrap();
    let url = format!(
        "http://{}{}",
        server.address(),
        manifest("curl/manifest", "v1")
    );
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&curl);
        tools::run(command.args(["-fsS"]).args(arguments))
    };
    let kind = format!("Content-Type: {}", oci::IMAGE);
    let body = format!("@{}", file.display());
    run(&["-X", "PUT", "-H", &kind, "--data-binary", &body, &url]);
    let out = folder.path().join("out");
    let accept = format!("Accept: {}", oci::IMAGE);
    run(&["-H", &accept, "-o", &out.display().to_string(), &url]);
    assert!(std::fs::read(&out).unwrap() == image.bytes);
}
