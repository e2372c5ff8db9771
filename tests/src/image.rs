//! Real images, made without a network from the programs of this machine.
//!
//! Owns: a small root file system, a multi-layer image built by buildah as an
//! OCI layout, and a two-platform index of it. Made once for as many tests as
//! use it at the same time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::oci::{self, Manifest};
use crate::{data, place, tools};

/// What `/etc/motd` of the image holds, and a container prints by default.
pub const GREETING: &str = "a container from the hold";
/// What `/etc/second` of the image's second layer holds.
pub const SECOND: &str = "the second layer";

/// Copies programs with the libraries they need.
const MAKE_ROOT: &str = r#"
root=$1
mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/proc" "$root/sys" "$root/dev"
for name in bash cat ls sha256sum; do
    program=$(readlink -f "$(command -v "$name")")
    cp "$program" "$root/bin/$name"
    for library in $(ldd "$program" | grep -o '/[^ ]*'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
ln -s bash "$root/bin/sh"
"#;

/// The images, as OCI layouts in one folder.
#[derive(Debug)]
pub struct Images {
    folder: TempDir,
    /// Digest of the image's manifest.
    pub manifest: String,
    /// Digest of its configuration: what docker and podman call its id.
    pub config: String,
    /// Digest of the two-platform index.
    pub index: String,
}

impl Images {
    /// Makes them, or takes those another test uses just now. Nothing where
    /// buildah is absent or cannot work.
    #[must_use]
    pub fn shared() -> Option<Arc<Images>> {
        static SHARED: Mutex<Weak<Images>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = shared.upgrade() {
            return Some(images);
        }
        let images = Arc::new(Images::make()?);
        *shared = Arc::downgrade(&images);
        Some(images)
    }

    /// skopeo's name of the single image.
    #[must_use]
    pub fn single(&self) -> String {
        format!("oci:{}:v1", self.folder.path().join("single").display())
    }

    /// skopeo's name of the two-platform index.
    #[must_use]
    pub fn multi(&self) -> String {
        format!("oci:{}:multi", self.folder.path().join("multi").display())
    }

    /// The layout's folder of the single image.
    #[must_use]
    pub fn layout(&self) -> PathBuf {
        self.folder.path().join("single")
    }

    /// A blob of the single image.
    #[must_use]
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        read_blob(&self.layout(), digest)
    }

    fn make() -> Option<Images> {
        let buildah = tools::need("buildah")?;
        let folder = place::dir();
        let at = folder.path();
        tools::sh(MAKE_ROOT, &[at.join("root")]);
        std::fs::write(at.join("root/etc/motd"), GREETING).expect("write motd");
        std::fs::write(at.join("second"), SECOND).expect("write second");
        std::fs::write(at.join("ballast"), data::bytes(3, 3 << 20)).expect("write ballast");
        if let Err(why) = build(&buildah, at) {
            tools::skipped(&format!("buildah does not work here: {why}"));
            return None;
        }
        let manifest = only_entry(&at.join("single"));
        let document = read_json(&at.join("single"), &manifest);
        let config = text(&document["config"]["digest"]);
        assert!(
            document["layers"].as_array().is_some_and(|l| l.len() == 3),
            "buildah made other layers than asked: {document}"
        );
        let index = make_multi(at, &manifest, &document);
        Some(Images {
            folder,
            manifest,
            config,
            index,
        })
    }
}

/// Builds three layers: a base image, and two commits on top of it.
fn build(program: &Path, at: &Path) -> Result<(), String> {
    let buildah = |arguments: &[&str]| -> Result<String, String> {
        let mut command = Command::new(program);
        command.env("HOME", at.join("home"));
        command.arg("--root").arg(at.join("store"));
        command.arg("--runroot").arg(at.join("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        let ran = tools::try_run(&mut command);
        if ran.ok {
            Ok(ran.out.trim().to_owned())
        } else {
            Err(format!("{arguments:?}: {}", ran.err.trim()))
        }
    };
    let path = |name: &str| at.join(name).display().to_string();
    let base = buildah(&["from", "scratch"])?;
    buildah(&["add", &base, &path("root"), "/"])?;
    buildah(&["config", "--cmd", r#"["/bin/cat", "/etc/motd"]"#, &base])?;
    buildah(&["config", "--env", "PATH=/bin", &base])?;
    let base = buildah(&["commit", "-q", &base])?;
    let second = buildah(&["from", &base])?;
    buildah(&["add", &second, &path("second"), "/etc/second"])?;
    let second = buildah(&["commit", "-q", &second])?;
    let third = buildah(&["from", &second])?;
    buildah(&["add", &third, &path("ballast"), "/ballast"])?;
    let to = format!("oci:{}:v1", path("single"));
    buildah(&["commit", "-q", "--disable-compression=false", &third, &to])?;
    Ok(())
}

/// Adds a second platform whose configuration differs in its architecture
/// alone, and an index of both, in a layout of its own.
fn make_multi(at: &Path, manifest: &str, document: &Value) -> String {
    let (single, multi) = (at.join("single"), at.join("multi"));
    tools::sh("cp -R \"$1\" \"$2\"", &[&single, &multi]);
    let mut config = read_json(&single, &text(&document["config"]["digest"]));
    config["architecture"] = json!("arm64");
    let config = Manifest::json(oci::CONFIG, &config);
    let mut other = document.clone();
    other["config"] = config.descriptor();
    let other = Manifest::json(oci::IMAGE, &other);
    let first = Manifest::of(oci::IMAGE, read_blob(&single, manifest));
    let index = oci::index(&[&first, &other]);
    for blob in [&config, &other, &index] {
        std::fs::write(blob_path(&multi, &blob.digest), &blob.bytes).expect("write a blob");
    }
    let mut entry = index.descriptor();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "multi"});
    let list = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(multi.join("index.json"), list.to_string()).expect("write index.json");
    index.digest
}

/// The digest of the one manifest a layout has.
#[must_use]
pub fn only_entry(layout: &Path) -> String {
    let text_of = std::fs::read(layout.join("index.json")).expect("index.json of the layout");
    let document: Value = serde_json::from_slice(&text_of).expect("index.json");
    assert_eq!(document["manifests"].as_array().map(Vec::len), Some(1));
    text(&document["manifests"][0]["digest"])
}

/// Every blob of a layout by digest, in order: two layouts hold the same
/// image when these are equal and the bytes match their names.
#[must_use]
pub fn blobs(layout: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(layout.join("blobs/sha256"))
        .expect("blobs of the layout")
        .map(|entry| {
            let path = entry.expect("entry of the layout").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let named = format!("sha256:{name}");
            let (_, digest) = data::sha256_of_reader(std::fs::File::open(&path).expect("a blob"));
            assert_eq!(digest, named, "a blob of {} is damaged", layout.display());
            named
        })
        .collect();
    all.sort();
    all
}

fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn read_blob(layout: &Path, digest: &str) -> Vec<u8> {
    std::fs::read(blob_path(layout, digest)).expect("a blob of the layout")
}

fn read_json(layout: &Path, digest: &str) -> Value {
    serde_json::from_slice(&read_blob(layout, digest)).expect("JSON of the layout")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text in the document").to_owned()
}
