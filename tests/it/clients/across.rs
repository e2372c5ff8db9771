//! What one client pushed, every other pulls, with the same digests.

use orlop_tests::docker::Docker;
use orlop_tests::image::{self, GREETING, Images};
use orlop_tests::podman::Podman;
use orlop_tests::server::Server;
use orlop_tests::tools::Skopeo;
use orlop_tests::{data, place};

use super::{image, transport};

/// A client that pushes: its name, and the digest it says it pushed.
struct Pushed {
    by: &'static str,
    digest: String,
}

#[test]
fn what_one_client_pushed_every_other_pulls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let server = Server::start();
    let (podman, docker) = (Podman::find(), Docker::start());
    let source = image(&server, "across/source:v1");
    skopeo.copy(&images.single(), &transport(&server, "across/source:v1"));

    let mut all = vec![Pushed {
        by: "skopeo",
        digest: skopeo.copy(&images.single(), &transport(&server, "across/skopeo:v1")),
    }];
    if let Some(podman) = &podman {
        podman.pull(&source);
        all.push(Pushed {
            by: "podman",
            digest: podman.push(&source, &image(&server, "across/podman:v1")),
        });
    }
    if let Some(docker) = &docker {
        let name = image(&server, "across/docker:v1");
        docker.pull(&source);
        docker.run(&["tag", &source, &name]);
        all.push(Pushed {
            by: "docker",
            digest: docker.push(&name),
        });
        docker.run(&["rmi", "--force", &images.config]);
    }

    let client = server.client();
    let folder = place::dir();
    for Pushed { by, digest } in &all {
        let repository = format!("across/{by}");
        let name = format!("{repository}:v1");
        assert_eq!(&client.digest_of(&repository, "v1"), digest, "{by}");

        let raw = skopeo.raw_manifest(&transport(&server, &name));
        assert_eq!(&data::sha256(&raw), digest, "{by} to skopeo");
        let layout = folder.path().join(by);
        let to = format!("oci:{}:v1", layout.display());
        skopeo.copy_with(&[], &transport(&server, &name), &to);
        assert!(
            image::blobs(&layout).contains(&images.config),
            "{by} to skopeo"
        );

        if let Some(podman) = &podman {
            let pulled = podman.pull(&image(&server, &name));
            assert_eq!(pulled, images.config, "{by} to podman");
            let said = podman.run(&image(&server, &name), &[]);
            assert_eq!(said, GREETING, "{by} to podman");
        }
        if let Some(docker) = &docker {
            let name = image(&server, &name);
            assert_eq!(&docker.pull(&name), digest, "{by} to docker");
            assert_eq!(docker.id(&name), images.config, "{by} to docker");
            let run = ["run", "--rm", "--network", "none", name.as_str()];
            assert_eq!(docker.run(&run), GREETING, "{by} to docker");
        }
    }
}
