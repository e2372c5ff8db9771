//! helm: charts as artifacts.

use orlop_tests::data;
use orlop_tests::fetched::Fetched;
use orlop_tests::server::Server;

const CHART: &str =
    "apiVersion: v2\nname: hold\ndescription: What is in the hold\ntype: application\n";
const TEMPLATE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n";

/// Packages a chart of this version; returns the archive's name.
fn package(helm: &Fetched, version: &str) -> String {
    let chart = helm.home().join("hold");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(
        chart.join("Chart.yaml"),
        format!("{CHART}version: {version}\n"),
    )
    .unwrap();
    std::fs::write(chart.join("templates/map.yaml"), TEMPLATE).unwrap();
    helm.run(&["package", "hold"]);
    format!("hold-{version}.tgz")
}

/// The digest helm says after a push or pull.
fn digest_in(said: &str) -> &str {
    let line = said.lines().find_map(|line| line.strip_prefix("Digest: "));
    line.unwrap_or_else(|| panic!("no digest: {said}")).trim()
}

#[test]
fn helm_pushes_shows_pulls_and_renders_charts() {
    let Some(helm) = Fetched::helm() else { return };
    let server = Server::shared();
    let client = server.client();
    let charts = format!("oci://{}/charts", server.address());
    let chart = format!("{charts}/hold");
    // A tag has no plus sign: helm writes another for it.
    for (version, tag) in [
        ("0.1.0", "0.1.0"),
        ("0.2.0-rc.1+build.7", "0.2.0-rc.1_build.7"),
    ] {
        let archive = package(&helm, version);
        let pushed = helm.try_run(&["push", "--plain-http", &archive, &charts]);
        assert!(pushed.ok, "{}", pushed.err);
        let digest = client.digest_of("charts/hold", tag);
        assert_eq!(digest_in(&pushed.err), digest);
        let shown = helm.run(&[
            "show",
            "chart",
            "--plain-http",
            "--version",
            version,
            &chart,
        ]);
        assert!(
            shown.contains("description: What is in the hold"),
            "{shown}"
        );
        assert!(shown.contains(&format!("version: {version}")), "{shown}");
        let to = helm.home().join("pulled");
        let into = to.display().to_string();
        let pulled = helm.try_run(&[
            "pull",
            "--plain-http",
            "--version",
            version,
            "-d",
            &into,
            &chart,
        ]);
        assert!(pulled.ok, "{}", pulled.err);
        let both = format!("{}\n{}", pulled.out, pulled.err);
        assert_eq!(digest_in(&both), digest);
        let read = |path| data::sha256(&std::fs::read(path).unwrap());
        assert_eq!(read(to.join(&archive)), read(helm.home().join(&archive)));
    }
    // Without a version, helm asks for the tags and takes the newest release.
    let rendered = helm.run(&["template", "afloat", "--plain-http", &chart]);
    assert!(rendered.contains("name: afloat"), "{rendered}");
    let shown = helm.run(&["show", "chart", "--plain-http", &chart]);
    assert!(shown.contains("version: 0.1.0"), "{shown}");
}
