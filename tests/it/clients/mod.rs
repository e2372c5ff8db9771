//! Real clients against the real server: one file each, then across them.

mod across;
mod containerd;
mod crane;
mod curl;
mod docker;
mod helm;
mod large;
mod oras;
mod podman;
mod proxies;
mod regctl;
mod skopeo;
mod tls;
mod whole;

use orlop_tests::server::Server;

/// `127.0.0.1:PORT/repository:tag`, as docker and podman write it.
fn image(server: &Server, name: &str) -> String {
    format!("{}/{name}", server.address())
}

/// `docker://127.0.0.1:PORT/repository:tag`, as skopeo writes it.
fn transport(server: &Server, name: &str) -> String {
    format!("docker://{}", image(server, name))
}
