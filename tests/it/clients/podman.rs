//! podman: pull, run, push.

use orlop_tests::image::{GREETING, Images, SECOND};
use orlop_tests::podman::Podman;
use orlop_tests::server::Server;
use orlop_tests::tools::Skopeo;

use super::{image, transport};

#[test]
fn a_container_runs_from_what_podman_pulled() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(podman) = Podman::find() else { return };
    let server = Server::shared();
    let name = image(&server, "podman/run:v1");
    skopeo.copy(&images.single(), &transport(&server, "podman/run:v1"));
    assert_eq!(podman.pull(&name), images.config);
    assert_eq!(podman.run(&name, &[]), GREETING);
    let second = podman.run(&name, &["/bin/cat", "/etc/second"]);
    assert_eq!(second, SECOND);
    // The ballast of the third layer, hashed inside the container.
    let hash = podman.run(&name, &["/bin/sha256sum", "/ballast"]);
    let ballast = orlop_tests::data::sha256(&orlop_tests::data::bytes(3, 3 << 20));
    assert_eq!(
        hash.split_whitespace().next(),
        ballast.strip_prefix("sha256:")
    );
}

#[test]
fn what_podman_pushed_podman_pulls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(podman) = Podman::find() else { return };
    let server = Server::shared();
    skopeo.copy(&images.single(), &transport(&server, "podman/from:v1"));
    let from = image(&server, "podman/from:v1");
    let to = image(&server, "podman/to:v2");
    let id = podman.pull(&from);
    let pushed = podman.push(&from, &to);
    let raw = skopeo.raw_manifest(&transport(&server, "podman/to:v2"));
    assert_eq!(orlop_tests::data::sha256(&raw), pushed);
    let Some(other) = Podman::find() else { return };
    assert_eq!(other.pull(&to), id);
    assert_eq!(other.run(&to, &[]), GREETING);
}
