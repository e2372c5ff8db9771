//! nginx and HAProxy in front, with the very lines that docs/operating.md
//! tells operators to write.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orlop_tests::client::Client;
use orlop_tests::image::Images;
use orlop_tests::raw::Wire;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tls::Certificates;
use orlop_tests::tools::{self, Skopeo};
use orlop_tests::{data, oci, place};
use rustix::process::{Pid, Signal, kill_process_group};

/// The lines of the page between the fences of this language.
fn example(language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
    let page = std::fs::read_to_string(path).expect("docs/operating.md");
    let (_, rest) = page
        .split_once(&format!("```{language}\n"))
        .expect("an example on the page");
    rest.split_once("```").expect("the end of it").0.to_owned()
}

/// Puts what is here in the place of what the page says, all of which it says.
fn fill(text: String, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "the example has no {from:?}:\n{text}");
        text.replace(from, to)
    })
}

/// A proxy, ended with its workers.
struct Proxy(Child);

impl Proxy {
    fn start(command: &mut Command, port: u16) -> Proxy {
        command.process_group(0).stdin(Stdio::null());
        let proxy = Proxy(command.spawn().expect("start a proxy"));
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "the proxy does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn behind(port: u16) -> Server {
    Setup::default()
        .env(
            "ORLOP_SERVER_PUBLIC_URL",
            format!("https://127.0.0.1:{port}"),
        )
        .env("ORLOP_SERVER_TRUSTED_PROXIES", "127.0.0.1/32")
        .start()
}

/// What clients do all day, through the proxy.
fn serves(server: &Server, certificates: &Certificates, port: u16) {
    let address = ([127, 0, 0, 1], port).into();
    let client = Client::over_tls(address, certificates);
    let bytes = data::bytes(90, 12 << 20);
    // Of a length nobody knows before its end.
    let digest = data::sha256(&bytes);
    client.push_stream("proxy/repo", &digest, std::io::Cursor::new(bytes.clone()));
    client.blob_is("proxy/repo", &digest, &bytes);
    let digest = client.push_blob("proxy/repo", &bytes[1..]);
    client.blob_is("proxy/repo", &digest, &bytes[1..]);
    let image = oci::image(&client, "proxy/repo", &[&bytes]);
    image.put(&client, "proxy/repo", "v1");
    image.is_at(&client, "proxy/repo", "v1");
    let uploads = "/v2/proxy/repo/blobs/uploads/";
    let started = client.call("POST", uploads, &[], "").expect(202);
    let location = started.header("location").to_owned();
    assert!(
        location.starts_with(&format!("https://127.0.0.1:{port}/v2/")),
        "{location}"
    );
    names_the_client(server, certificates, port);
    if let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) {
        let skopeo = skopeo.trusting(&certificates.trusted());
        let there = format!("docker://127.0.0.1:{port}/proxy/image:v1");
        assert_eq!(skopeo.copy(&images.multi(), &there), images.index);
    }
    // Two readers of ambiguous bytes: at most one request comes of them.
    for head in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 0\r\nContent-Length: 44",
        "Content-Length: +5",
        "Transfer-Encoding: chunked, identity",
        "X: 1\r\n folded",
    ] {
        let mut wire = Wire::over_tls(address, certificates, &["http/1.1"]);
        let smuggled = "0\r\n\r\nGET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
        wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{smuggled}").as_bytes());
        wire.finish();
        let answers = String::from_utf8_lossy(&wire.rest())
            .matches("HTTP/1.1 ")
            .count();
        let reached = server.log().matches("/v2/smuggled/").count();
        assert!(
            answers <= 2 && reached <= answers.saturating_sub(1),
            "{head:?}: {answers} {reached}"
        );
    }
}

/// The log names whom the proxy has seen, and not whom the client claims to be.
fn names_the_client(server: &Server, certificates: &Certificates, port: u16) {
    let Some(curl) = tools::need("curl") else {
        return;
    };
    // From another address than the proxy's.
    let mut command = Command::new(curl);
    command.args(["-sS", "--fail", "--interface", "127.0.0.2", "--cacert"]);
    command.arg(certificates.authority());
    command.args([
        "-H",
        "X-Forwarded-For: 203.0.113.66",
        "-A",
        "the one from .2",
    ]);
    tools::run(command.arg(format!("https://127.0.0.1:{port}/v2/")));
    server.wait_for_log("the one from .2", 1);
    let log = server.log();
    let line = log.lines().find(|line| line.contains("the one from .2"));
    let line = line.expect("an access line");
    assert!(line.contains("\"peer\":\"127.0.0.2\""), "{line}");
}

#[test]
fn nginx_in_front_as_the_page_says() {
    let Some(nginx) = tools::need("nginx") else {
        return;
    };
    let port = place::port();
    let (certificates, server, folder) = (Certificates::new(), behind(port), place::dir());
    let lines = fill(
        example("nginx"),
        &[
            ("127.0.0.1:5000", &server.address().to_string()),
            ("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl")),
            (
                "/etc/nginx/registry.crt",
                &certificates.certificate().display().to_string(),
            ),
            (
                "/etc/nginx/registry.key",
                &certificates.key().display().to_string(),
            ),
        ],
    );
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut file = std::fs::File::create(at("nginx.conf")).expect("nginx.conf");
    write!(
        file,
        "daemon off;\nuser root;\npid {};\nerror_log {} warn;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {};\nproxy_temp_path {};\n{lines}\n}}\n",
        at("pid"),
        at("error.log"),
        at("body"),
        at("proxy")
    )
    .expect("nginx.conf");
    let mut command = Command::new(nginx);
    command.args(["-c", &at("nginx.conf"), "-e", &at("error.log")]);
    let _proxy = Proxy::start(&mut command, port);
    serves(&server, &certificates, port);
    // Nothing went through a file on the way.
    for name in ["body", "proxy"] {
        let left = std::fs::read_dir(at(name)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nginx kept bodies in files");
    }
    let log = std::fs::read_to_string(at("error.log")).unwrap_or_default();
    assert!(!log.contains("buffered to a temporary file"), "{log}");
}

#[test]
fn haproxy_in_front_as_the_page_says() {
    let Some(haproxy) = tools::need("haproxy") else {
        return;
    };
    let port = place::port();
    let (certificates, server, folder) = (Certificates::new(), behind(port), place::dir());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let read = |path| std::fs::read_to_string(path).expect("a pair");
    let both = read(certificates.certificate()) + &read(certificates.key());
    std::fs::write(at("registry.pem"), both).expect("registry.pem");
    let lines = fill(
        example("haproxy"),
        &[
            ("127.0.0.1:5000", &server.address().to_string()),
            ("bind :443 ", &format!("bind 127.0.0.1:{port} ")),
            ("/etc/haproxy/registry.pem", &at("registry.pem")),
        ],
    );
    std::fs::write(at("haproxy.cfg"), lines).expect("haproxy.cfg");
    let mut command = Command::new(haproxy);
    command.args(["-db", "-f", &at("haproxy.cfg")]);
    let _proxy = Proxy::start(&mut command, port);
    serves(&server, &certificates, port);
}
