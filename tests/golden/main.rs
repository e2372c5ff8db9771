//! Golden files of the byte format: what was written once is read for ever.
//!
//! The folder `v1` holds a store of format 1, file by file. It is read with
//! `orlop-format` and compared with what the store is known to say; and the
//! same values, written anew, must give the same bytes. The engine and fsck
//! open copies of it in tests of their own.

#[cfg(test)]
mod v1;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use orlop_format::BLOCK;
    use orlop_format::checksum;
    use orlop_format::digest::{Algorithm, Digest, Hasher};
    use orlop_format::group::{Entries, Head};
    use orlop_format::journal;
    use orlop_format::location::Home;
    use orlop_format::record::{Kind, Record};
    use orlop_format::segment::{self, ExtentHeader, Footer};
    use orlop_format::superblock::{FILES, Superblock};

    use crate::v1;

    /// A golden file as it lies in the repository.
    fn golden(path: &Path) -> Vec<u8> {
        let full = v1::folder().join(path);
        std::fs::read(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()))
    }

    #[test]
    fn v1_is_written_byte_for_byte_as_it_was() {
        for (path, bytes) in v1::store().files() {
            let stored = golden(&path);
            let differs = stored.iter().zip(&bytes).position(|(a, b)| a != b);
            assert_eq!(
                differs,
                None,
                "{}: first difference at this offset",
                path.display()
            );
            assert_eq!(stored.len(), bytes.len(), "{}", path.display());
        }
    }

    #[test]
    fn v1_has_no_file_that_is_not_checked() {
        let mut known: Vec<_> = v1::store()
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        known.sort();
        let mut found = Vec::new();
        let mut folders = vec![v1::folder()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(v1::folder()).unwrap().to_owned());
                }
            }
        }
        found.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn v1_superblock_slots_are_read() {
        let store = v1::store();
        for slot in &store.slots {
            let (file, offset) = Superblock::slot(slot.sequence);
            let bytes = golden(Path::new(FILES[file]));
            let block = &bytes[usize::try_from(offset).unwrap()..][..BLOCK];
            assert_eq!(Superblock::decode(block).as_ref(), Ok(slot));
        }
    }

    #[test]
    fn v1_journal_headers_are_read() {
        let decode = |sequence| {
            let path = Path::new("journal").join(journal::file_name(sequence));
            journal::FileHeader::decode(&golden(&path)).unwrap()
        };
        let (one, two) = (decode(2), decode(3));
        assert_eq!((one.store, one.sequence, one.salt), (v1::STORE, 2, 0x2002));
        assert_eq!((one.first_lsn, one.first_group), (v1::RECYCLED + 1, 5));
        assert_eq!(
            (one.previous, one.previous_end, one.chain),
            (1, 65_536, 0x1234_5678)
        );
        assert_eq!(
            (two.sequence, two.previous, two.first_lsn, two.first_group),
            (3, 2, 24, 10)
        );
        assert_ne!(
            two.previous_end as usize % BLOCK,
            0,
            "the cut lies inside a group"
        );
    }

    #[test]
    fn v1_groups_hold_the_records_they_held() {
        let mut kinds = Vec::new();
        for log in v1::store().logs {
            let bytes = golden(&log.path);
            let mut at = BLOCK;
            for (number, records) in &log.groups {
                let rest = &bytes[at..];
                let head = Head::decode(&log.volume, rest).unwrap();
                assert_eq!(head.number, *number);
                assert_eq!(head.lsn, records[0].0);
                let base = u32::try_from(at).unwrap();
                let mut entries = Entries::new(log.volume, &head, base, rest);
                for (lsn, record, payload) in records {
                    let entry = entries.next().unwrap().unwrap();
                    assert_eq!(entry.lsn, *lsn);
                    assert_eq!(entry.record().as_ref(), Ok(record));
                    assert!(entry.payload_good);
                    assert_eq!(entry.payload, payload);
                    kinds.push(entry.kind);
                }
                at += head.bytes as usize;
            }
            if let Home::Segment(_) = log.volume.home {
                let header = segment::FileHeader::decode(&bytes).unwrap();
                let footer = Footer::decode(&header, &bytes[at..]).unwrap();
                assert_eq!(footer.frames.len(), log.groups.len());
            }
        }
        // What the store writes, and the tombstone that its deletion will.
        let written = [
            Kind::Open,
            Kind::Checkpoint,
            Kind::Abandon,
            Kind::Commit,
            Kind::Alias,
            Kind::Tombstone,
            Kind::Move,
            Kind::Seal,
            Kind::Note,
            Kind::Mark,
            Kind::Quarantine,
            Kind::Copy,
        ];
        for kind in written {
            assert!(kinds.contains(&kind), "{kind:?} is not in the golden store");
        }
    }

    #[test]
    fn v1_torn_record_does_not_decode() {
        let store = v1::store();
        let log = store
            .logs
            .iter()
            .find(|log| log.volume.home == Home::Journal(2))
            .unwrap();
        let bytes = golden(&log.path);
        let mut at = BLOCK;
        let mut whole = Vec::new();
        while at < bytes.len() {
            let head = Head::decode(&log.volume, &bytes[at..]).unwrap();
            let entries: Vec<_> = Entries::new(log.volume, &head, 0, &bytes[at..])
                .map(|e| e.is_ok_and(|e| e.payload_good))
                .collect();
            whole.push(entries);
            at += head.bytes as usize;
        }
        assert_eq!(whole.pop().unwrap(), [true, false]);
        assert!(whole.iter().flatten().all(|good| *good));
    }

    #[test]
    fn v1_extents_and_footers_are_read() {
        for raw in v1::store().raws {
            let bytes = golden(&raw.path);
            let header = segment::FileHeader::decode(&bytes).unwrap();
            assert_eq!(header, raw.header);
            for (extent, expected, payload) in &raw.extents {
                let block = &bytes[extent.offset as usize..][..BLOCK];
                let found = ExtentHeader::decode(&header, block, Some(extent.body)).unwrap();
                assert_eq!(&found, expected);
                let stored = &bytes[extent.offset as usize + BLOCK..][..extent.len as usize];
                assert_eq!(stored, payload);
                assert_eq!(checksum::table(stored), found.table);
            }
            if let Some(footer) = &raw.footer {
                let (last, _, _) = raw.extents.last().unwrap();
                let end = usize::try_from(u64::from(last.offset) + last.footprint()).unwrap();
                assert_eq!(Footer::decode(&header, &bytes[end..]).as_ref(), Ok(footer));
            }
        }
    }

    #[test]
    fn v1_saved_hash_states_go_on() {
        let open = v1::content(9, v1::OPEN.2);
        let mut checked = 0;
        for log in v1::store().logs {
            for (_, record, _) in log.groups.into_iter().flat_map(|(_, records)| records) {
                let Record::Checkpoint(checkpoint) = record else {
                    continue;
                };
                if checkpoint.upload != v1::OPEN.0 {
                    continue;
                }
                for hash in checkpoint.hashes {
                    let algorithm = Algorithm::from_code(hash.algorithm).unwrap();
                    let mut hasher = Hasher::restore(algorithm, &hash.state).unwrap();
                    hasher.update(b"more");
                    let whole = [&open[..], b"more"].concat();
                    assert_eq!(hasher.finish(), Digest::of(algorithm, &whole));
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 2);
    }

    #[test]
    fn v1_names_the_blobs_it_holds() {
        let store = v1::store();
        let mut names = Vec::new();
        for (_, record, _) in store
            .logs
            .into_iter()
            .flat_map(|log| log.groups)
            .flat_map(|(_, records)| records)
        {
            match record {
                Record::Commit(commit) => {
                    names.push(Digest::new(Algorithm::Sha256, &commit.sha256).unwrap());
                    names.extend(commit.aliases);
                }
                Record::Alias { alias, .. } => names.push(alias),
                _ => {}
            }
        }
        for blob in &store.blobs {
            for algorithm in blob.aliases.iter().chain([&Algorithm::Sha256]) {
                let digest = Digest::of(*algorithm, &blob.bytes);
                assert_eq!(
                    names.contains(&digest),
                    blob.state != v1::State::Absent,
                    "{digest}"
                );
            }
        }
    }

    /// Writes files that are not there yet. Never changes one that is.
    #[test]
    #[ignore = "makes the golden files of a new format; run it by name, once"]
    fn write_missing_files() {
        for (path, bytes) in v1::store().files() {
            let full = v1::folder().join(path);
            if !full.exists() {
                std::fs::create_dir_all(full.parent().unwrap()).unwrap();
                std::fs::write(full, bytes).unwrap();
            }
        }
    }
}
