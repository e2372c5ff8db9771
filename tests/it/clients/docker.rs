//! A real dockerd: pull, run, push, mount.

use orlop_tests::docker::Docker;
use orlop_tests::image::{GREETING, Images, SECOND};
use orlop_tests::server::Server;
use orlop_tests::tools::Skopeo;

use super::{image, transport};

/// One daemon for the whole life of an image: starting one takes seconds.
#[test]
fn docker_pulls_runs_pushes_and_pulls_again() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(docker) = Docker::start() else {
        return;
    };
    let server = Server::start();
    skopeo.copy(&images.single(), &transport(&server, "docker/one:v1"));
    skopeo.copy(&images.multi(), &transport(&server, "docker/multi:v1"));

    // Pull and run.
    let one = image(&server, "docker/one:v1");
    assert_eq!(docker.pull(&one), images.manifest);
    assert_eq!(docker.id(&one), images.config);
    let run = ["run", "--rm", "--network", "none", one.as_str()];
    assert_eq!(docker.run(&run), GREETING);
    let mut second = run.to_vec();
    second.extend(["/bin/cat", "/etc/second"]);
    assert_eq!(docker.run(&second), SECOND);

    // One platform out of an index: docker reports the index's digest.
    let multi = image(&server, "docker/multi:v1");
    assert_eq!(docker.pull(&multi), images.index);
    assert_eq!(docker.id(&multi), images.config);

    // Push to another repository, twice. The second time nothing is new, but
    // docker may choose another of the compressed forms it knows of a layer.
    let other = image(&server, "docker/other:v2");
    docker.run(&["tag", &one, &other]);
    docker.push(&other);
    let pushed = docker.push(&other);
    let client = server.client();
    assert_eq!(client.digest_of("docker/other", "v2"), pushed);

    // Forget everything and pull what was pushed.
    let listed = docker.run(&["images", "--quiet", "--no-trunc"]);
    let mut remove = vec!["rmi", "--force"];
    remove.extend(listed.split_whitespace());
    docker.run(&remove);
    assert_eq!(docker.pull(&other), pushed);
    assert_eq!(docker.id(&other), images.config);
    let run = ["run", "--rm", "--network", "none", other.as_str()];
    assert_eq!(docker.run(&run), GREETING);

    // A layer docker has never seen, made by docker itself.
    let built = image(&server, "docker/built:v1");
    let container = docker.run(&["create", &other, "/bin/cat", "/etc/new"]);
    let folder = orlop_tests::place::dir();
    let file = folder.path().join("new");
    std::fs::write(&file, "made by docker").expect("write a file");
    let to = format!("{container}:/etc/new");
    docker.run(&["cp", &file.display().to_string(), &to]);
    docker.run(&["commit", &container, &built]);
    let pushed = docker.push(&built);
    docker.run(&["rm", &container]);
    docker.run(&["rmi", "--force", &built]);
    assert_eq!(docker.pull(&built), pushed);
    let run = ["run", "--rm", "--network", "none", built.as_str()];
    assert_eq!(docker.run(&run), "made by docker");

    // A list of two images, made and pushed by the command alone.
    let list = image(&server, "docker/list:v1");
    docker.run(&["manifest", "create", "--insecure", &list, &other, &built]);
    docker.run(&["manifest", "annotate", "--arch", "arm64", &list, &built]);
    let pushed = docker.run(&["manifest", "push", "--insecure", &list]);
    let pushed = pushed.lines().last().unwrap_or_default();
    assert_eq!(client.digest_of("docker/list", "v1"), pushed);
    docker.run(&["rmi", "--force", &other]);
    docker.pull(&list);
    assert_eq!(docker.id(&list), images.config);
}
