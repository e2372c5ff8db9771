//! Layers: archives of one file, and gzip around them.
//!
//! Written by hand so that each byte follows from the seed.

/// A tar archive with one file.
pub(crate) fn tar(name: &str, text: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut head = [0_u8; BLOCK];
    let mut field = |at: usize, value: &str| {
        head[at..at + value.len()].copy_from_slice(value.as_bytes());
    };
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", text.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = head.to_vec();
    archive.extend_from_slice(text);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

/// The bytes in gzip's form, stored as they are. At most 65,535 of them.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(bytes.len()).expect("one stored block");
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    out.push(1); // the last block, stored
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&(!size).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    out.extend_from_slice(&u32::from(size).to_le_bytes());
    out
}

/// Base64 with padding, as the `data` field of a descriptor has it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i > three.len() { '=' } else { letter.into() });
        }
    }
    out
}

#[test]
fn layers_are_what_tar_and_gzip_read() {
    use orlop_tests::{place, tools};
    use std::process::Command;
    assert_eq!(base64(b"a"), "YQ==");
    assert_eq!(base64(b"light w"), "bGlnaHQgdw==");
    let Some(tar_program) = tools::need("tar") else {
        return;
    };
    let folder = place::dir();
    let file = folder.path().join("layer.tar.gz");
    std::fs::write(&file, gzip(&tar("note.txt", b"read me"))).expect("write a layer");
    let mut command = Command::new(tar_program);
    command.arg("-xOzf").arg(&file).arg("note.txt");
    assert_eq!(tools::run(&mut command), "read me");
}
