//! When it cannot look: status 2 and a line that says why.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};

use crate::support::Folder;

#[test]
fn a_running_store_is_refused() {
    let folder = Folder::golden();
    folder.write("LOCK", b"4711\n");
    let lock = File::open(folder.path("LOCK")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let said = folder.check();
    assert_eq!(said.status, 2);
    assert!(
        said.error.contains("in use by process 4711; stop it first"),
        "{}",
        said.error
    );
    drop(lock);
    assert_eq!(
        folder.check().status,
        0,
        "a lock file that nobody holds does not matter"
    );
}

#[test]
fn what_is_no_store_is_refused() {
    let folder = Folder::golden();
    folder.remove("superblock.0");
    folder.remove("superblock.1");
    let said = folder.check();
    assert_eq!(said.status, 2);
    assert!(
        said.error.contains("is not a data folder of Orlop"),
        "{}",
        said.error
    );
}

#[test]
fn a_newer_store_is_refused_by_name() {
    let newer = |file: &str, covered: usize| {
        let folder = Folder::golden();
        folder.edit(file, |bytes| {
            bytes[4] = 2;
            let crc = orlop_format::checksum::crc(&bytes[..covered]);
            bytes[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
        });
        let said = folder.check();
        assert_eq!(said.status, 2, "{file}");
        assert!(
            said.error.contains("newer version") && said.error.contains(file),
            "{}",
            said.error
        );
    };
    newer("superblock.0", 104);
    newer(crate::support::TWO, 72);
    newer(crate::support::META, 56);
}

#[test]
fn a_file_that_cannot_be_read_is_no_finding() {
    let folder = Folder::golden();
    folder.remove("superblock.1");
    std::fs::create_dir(folder.path("superblock.1")).unwrap();
    let said = folder.check();
    assert_eq!(said.status, 2);
    assert!(said.error.contains("superblock.1"), "{}", said.error);
}
