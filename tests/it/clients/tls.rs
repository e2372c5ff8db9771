//! Real clients over TLS, each with trust in an authority of the test's own.

use orlop_tests::docker::Docker;
use orlop_tests::image::{GREETING, Images};
use orlop_tests::podman::Podman;
use orlop_tests::server::Setup;
use orlop_tests::tls::Certificates;
use orlop_tests::tools::{self, Skopeo};

use super::{image, transport};

#[test]
fn skopeo_copies_over_tls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    let there = transport(&server, "tls/skopeo:v1");
    let trusting = skopeo.trusting(&certificates.trusted());
    assert_eq!(trusting.copy(&images.multi(), &there), images.index);
    let folder = orlop_tests::place::dir();
    let back = folder.path().join("back");
    let pulled = trusting.copy(&there, &format!("oci:{}:v1", back.display()));
    assert_eq!(pulled, images.index);
    // Who does not know the authority is kept off by its own check.
    let mut stranger = Skopeo::find().expect("found before").command();
    let ran = tools::try_run(stranger.args(["inspect", "--raw", &there]));
    assert!(!ran.ok && ran.err.contains("x509"), "{}", ran.err);
}

#[test]
fn podman_pushes_and_pulls_over_tls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(podman) = Podman::find() else { return };
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    let trusted = certificates.trusted();
    let there = transport(&server, "tls/podman:v1");
    skopeo.trusting(&trusted).copy(&images.single(), &there);
    let podman = podman.trusting(&trusted);
    let name = image(&server, "tls/podman:v1");
    assert_eq!(podman.pull(&name), images.config);
    let other = image(&server, "tls/podman-other:v1");
    let pushed = podman.push(&name, &other);
    let client = server.client();
    assert_eq!(client.digest_of("tls/podman-other", "v1"), pushed);
    assert_eq!(podman.run(&name, &[]), GREETING);
}

#[test]
fn docker_pushes_and_pulls_over_tls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    let address = server.address().to_string();
    let Some(docker) = Docker::start_trusting(&[(&address, &certificates.authority())]) else {
        return;
    };
    let there = transport(&server, "tls/docker:v1");
    let skopeo = skopeo.trusting(&certificates.trusted());
    skopeo.copy(&images.single(), &there);
    let name = image(&server, "tls/docker:v1");
    assert_eq!(docker.pull(&name), images.manifest);
    assert_eq!(docker.id(&name), images.config);
    let other = image(&server, "tls/docker-other:v1");
    docker.run(&["tag", &name, &other]);
    let pushed = docker.push(&other);
    let client = server.client();
    assert_eq!(client.digest_of("tls/docker-other", "v1"), pushed);
    docker.run(&["rmi", "--force", &name, &other]);
    assert_eq!(docker.pull(&other), pushed);
}
