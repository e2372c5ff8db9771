//! Starts that have to be refused, with a message that says what to do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use orlop_tests::mount::Mount;
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, oci, place, tools};

/// How long a refusal may take.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn i22_a_second_start_on_the_same_folder_names_the_holder() {
    let server = Server::start();
    let client = server.client();
    let bytes = data::bytes(22, 100_000);
    let digest = client.push_blob("i22/repo", &bytes);
    let refusal = Setup::default()
        .data(server.data())
        .start_refused(Duration::from_secs(2));
    refusal.names(&[&server.pid().to_string()]);
    // The first is unharmed.
    client.blob_is("i22/repo", &digest, &bytes);
}

#[test]
fn a_lock_left_by_a_killed_server_holds_nobody_up() {
    let mut server = Server::start();
    server.kill();
    server.start_again();
    server.client().get("/v2/").expect(200);
}

#[test]
fn another_address_than_loopback_needs_the_flag() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refusal = Setup::default().listen(address).start_refused(SOON);
        refusal.names(&["--insecure-anonymous", "127.0.0.1"]);
    }
    // Only the flag, no variable.
    Setup::default()
        .listen("0.0.0.0:0")
        .env("ORLOP_INSECURE_ANONYMOUS", "true")
        .start_refused(SOON)
        .names(&["--insecure-anonymous"]);
    let port = place::port();
    let server = Setup::default()
        .listen(&format!("0.0.0.0:{port}"))
        .arg("--insecure-anonymous")
        .start();
    server.client().get("/v2/").expect(200);
}

#[test]
fn a_port_in_use_is_named() {
    let server = Server::start();
    let address = server.address().to_string();
    Setup::default()
        .listen(&address)
        .start_refused(SOON)
        .names(&[&address]);
}

#[test]
fn wrong_settings_are_named() {
    for (name, value) in [
        ("ORLOP_DISK_BACKEND", "tape"),
        ("ORLOP_GC_LEASE", "soon"),
        ("ORLOP_SPACE_RESERVE", "much"),
        ("ORLOP_LOG_FORMAT", "xml"),
    ] {
        Setup::default()
            .env(name, value)
            .start_refused(SOON)
            .names(&[value]);
    }
    Setup::default()
        .listen("nowhere")
        .start_refused(SOON)
        .names(&["nowhere"]);
}

/// A start that may not pass over permissions, as root otherwise does.
fn confined() -> Option<Setup> {
    if !tools::is_root() {
        return Some(Setup::default());
    }
    tools::need("setpriv")?;
    Some(Setup::default().under(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"]))
}

#[test]
fn a_folder_without_permission_is_named() {
    let Some(setup) = confined() else { return };
    let folder = place::dir();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let mode = |bits| fs::set_permissions(&closed, fs::Permissions::from_mode(bits)).unwrap();
    mode(0o555);
    let inside = closed.join("data");
    for data in [&closed, &inside] {
        let refusal = setup.clone().data(data).start_refused(SOON);
        refusal.names(&[&closed.display().to_string(), "permission"]);
    }
    mode(0o755);
    assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
}

#[test]
fn a_file_where_the_folder_should_be_is_named() {
    let folder = place::dir();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    Setup::default()
        .data(&file)
        .start_refused(SOON)
        .names(&[&file.display().to_string()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a folder");
}

#[test]
fn a_read_only_file_system_is_named_and_loses_nothing() {
    let Some(mount) = Mount::ext4(1 << 30) else {
        return;
    };
    let reserve = "64MiB";
    let data_folder = mount.path().join("data");
    let setup = Setup::default()
        .data(&data_folder)
        .env("ORLOP_SPACE_RESERVE", reserve);
    let bytes = data::bytes(30, 2 << 20);
    let mut server = setup.clone().start();
    let digest = server.client().push_blob("readonly/repo", &bytes);
    server.stop();
    mount.read_only(true);
    setup
        .start_refused(SOON)
        .names(&[&data_folder.display().to_string(), "read-only"]);
    mount.read_only(false);
    server.start_again();
    server.client().blob_is("readonly/repo", &digest, &bytes);
    server.stop();
}

/// A stopped store with a tagged image in it.
fn stopped_store() -> (Server, oci::Manifest) {
    let mut server = Server::start();
    let client = server.client();
    let image = oci::image(&client, "kept/repo", &[&data::bytes(50, 300_000), b"small"]);
    image.put(&client, "kept/repo", "v1");
    server.stop();
    (server, image)
}

/// Fails unless the store still starts and serves after `damage` is undone.
fn refused_then_healed(name: &str, damage: impl Fn(&Path) -> io::Result<()>, words: &[&str]) {
    let (mut server, image) = stopped_store();
    let folder = place::dir();
    let copy = folder.path().join("copy");
    let data_folder = server.data().to_path_buf();
    tools::sh("cp -a \"$1\" \"$2\"", &[&data_folder, &copy]);
    damage(&data_folder).unwrap_or_else(|e| panic!("{name}: {e}"));
    Setup::default()
        .data(&data_folder)
        .start_refused(SOON)
        .names(words);
    fs::remove_dir_all(&data_folder).unwrap();
    fs::rename(&copy, &data_folder).unwrap();
    server.start_again();
    image.is_at(&server.client(), "kept/repo", "v1");
}

#[test]
fn a_missing_catalog_beside_names_is_refused_and_names_fsck() {
    let damage = |data: &Path| {
        for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
            if data.join(name).exists() {
                fs::remove_file(data.join(name))?;
            }
        }
        Ok(())
    };
    refused_then_healed("no catalog", damage, &["catalog", "orlop-fsck"]);
}

#[test]
fn a_damaged_catalog_is_refused_and_names_fsck() {
    let damage = |data: &Path| {
        let path = data.join("catalog.db");
        let size = usize::try_from(fs::metadata(&path)?.len()).unwrap_or(4096);
        fs::write(path, data::bytes(51, size))
    };
    refused_then_healed("rotten catalog", damage, &["catalog", "orlop-fsck"]);
}

#[test]
fn a_catalog_of_a_newer_version_is_refused() {
    let Some(python) = tools::need("python3") else {
        return;
    };
    let damage = |data: &Path| {
        // The row in which a catalog says which release may open it.
        let script = "import sqlite3, sys\n\
            c = sqlite3.connect(sys.argv[1])\n\
            assert c.execute('update catalog set schema = 999, needs = 999').rowcount == 1\n\
            c.commit()\n\
            c.close()\n";
        tools::run(
            std::process::Command::new(&python)
                .args(["-c", script])
                .arg(data.join("catalog.db")),
        );
        Ok(())
    };
    refused_then_healed("newer catalog", damage, &["catalog", "newer"]);
}

/// Changes a field of every superblock slot and makes its checksum right
/// again: what a newer version would have written.
fn newer_superblock(data: &Path, offset: usize, value: u8) -> io::Result<()> {
    const BLOCK: usize = 4096;
    const COVERED: usize = 104;
    let mut changed = 0;
    for name in ["superblock.0", "superblock.1"] {
        let path = data.join(name);
        let mut bytes = fs::read(&path)?;
        for slot in bytes.chunks_mut(BLOCK) {
            if slot.starts_with(b"ORLB") {
                slot[offset] = value;
                let sum = crc32fast::hash(&slot[..COVERED]);
                slot[COVERED..COVERED + 4].copy_from_slice(&sum.to_le_bytes());
                changed += 1;
            }
        }
        fs::write(path, bytes)?;
    }
    assert!(changed > 0, "no superblock to change");
    Ok(())
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    refused_then_healed(
        "newer format",
        |data| newer_superblock(data, 4, 2),
        &["newer"],
    );
}

#[test]
fn a_store_with_features_this_version_does_not_know_is_refused() {
    refused_then_healed(
        "newer features",
        |data| newer_superblock(data, 79, 0x80),
        &["newer"],
    );
}

/// Starts the server with what the shell does before it.
fn after(shell: &str) -> Setup {
    let line = format!("{shell}; exec \"$@\"");
    Setup::default().under(&["sh", "-c", &line, "sh"])
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    // A full disk, and a pipe whose reader is gone.
    let gone = "f=$(mktemp -u); mkfifo $f; exec 4<>$f 5>$f 4>&- 1>&5 2>&5 5>&-; rm $f";
    for shell in ["exec >/dev/full 2>&1", gone] {
        let mut server = after(shell).env("ORLOP_LOG_LEVEL", "trace").start();
        let client = server.client();
        let image = oci::image(&client, "full/log", &[&data::bytes(52, 300_000)]);
        image.put(&client, "full/log", "v1");
        image.is_at(&client, "full/log", "v1");
        server.hang_up();
        client.get("/v2/full/none/tags/list").expect(404);
        server.stop();
        assert_eq!(server.log(), "", "it could be written");
        // A start that is refused cannot say why, and is refused all the same.
        after(shell)
            .listen("nowhere")
            .start_refused(SOON)
            .names(&[]);
    }
}

#[test]
fn who_looks_at_the_lock_keeps_no_server_from_starting() {
    use rustix::fs::{FlockOperation, flock};
    let mut server = Server::start();
    server.stop();
    // What `orlop doctor` does for a moment.
    let file = fs::File::open(server.data().join("LOCK")).unwrap();
    flock(&file, FlockOperation::LockShared).unwrap();
    let look = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        drop(file);
    });
    server.start_again();
    look.join().unwrap();
}
