//! What every index does: one suite, run on each implementation.
//!
//! `ORLOP_SEED=<number>` repeats a run of the property test; the seed is
//! printed with every run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use orlop_index::Index as _;
use orlop_index::{Batch, Table};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::{MemorySubject, RocksSubject, Subject, rows, rows_from};

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $test() { super::$test::<super::MemorySubject>(); })*
        }
        mod rocks {
            $(#[test] fn $test() { super::$test::<super::RocksSubject>(); })*
        }
    };
}

suite!(
    reads_what_was_written,
    applies_steps_in_order,
    keeps_tables_apart,
    scans_within_bounds,
    scans_one_state,
    clears_one_table,
    keeps_what_was_flushed,
    loses_only_a_suffix,
    random_histories_match_a_map,
);

fn put(pairs: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(Table::Blob, *key, *value);
    }
    batch
}

fn reads_what_was_written<S: Subject>() {
    let subject = S::new();
    let index = subject.index();
    assert_eq!(index.get(Table::Blob, b"a").unwrap(), None);
    assert_eq!(index.watermark().unwrap(), 0);
    index
        .apply(put(&[("a", "1"), ("b", ""), ("", "no key")]))
        .unwrap();
    assert_eq!(index.get(Table::Blob, b"a").unwrap().unwrap(), b"1");
    assert_eq!(index.get(Table::Blob, b"b").unwrap().unwrap(), b"");
    assert_eq!(index.get(Table::Blob, b"").unwrap().unwrap(), b"no key");
    assert_eq!(index.get(Table::Blob, b"ab").unwrap(), None);
    let keys = ["b", "absent", "a", "b"].map(|key| key.as_bytes().to_vec());
    let values = index.multi_get(Table::Blob, &keys).unwrap();
    let expected = [Some(vec![]), None, Some(b"1".to_vec()), Some(vec![])];
    assert_eq!(values, expected);
    assert_eq!(index.multi_get(Table::Blob, &[]).unwrap().len(), 0);
    let mut batch = Batch::new();
    batch.delete(Table::Blob, "a");
    batch.delete(Table::Blob, "absent");
    index.apply(batch).unwrap();
    assert_eq!(index.get(Table::Blob, b"a").unwrap(), None);
    assert_eq!(index.watermark().unwrap(), 0);
}

fn applies_steps_in_order<S: Subject>() {
    let subject = S::new();
    let index = subject.index();
    let mut batch = put(&[("a", "1"), ("b", "1"), ("a", "2")]);
    batch.delete(Table::Blob, "b");
    batch.delete(Table::Blob, "c");
    batch.put(Table::Blob, "c", "3");
    batch.set_watermark(4);
    batch.set_watermark(7);
    assert_eq!(batch.len(), 6);
    index.apply(batch).unwrap();
    assert_eq!(
        rows(index, Table::Blob),
        BTreeMap::from([
            (b"a".to_vec(), b"2".to_vec()),
            (b"c".to_vec(), b"3".to_vec())
        ])
    );
    assert_eq!(index.watermark().unwrap(), 7);
    assert!(Batch::new().is_empty());
    index.apply(Batch::new()).unwrap();
    assert_eq!(index.watermark().unwrap(), 7);
}

fn keeps_tables_apart<S: Subject>() {
    let subject = S::new();
    let index = subject.index();
    let mut batch = Batch::new();
    for table in Table::ALL {
        batch.put(table, "key", table.name());
    }
    index.apply(batch).unwrap();
    for table in Table::ALL {
        let value = index.get(table, b"key").unwrap().unwrap();
        assert_eq!(value, table.name().as_bytes());
        assert_eq!(rows(index, table).len(), 1);
    }
}

fn scans_within_bounds<S: Subject>() {
    let mut subject = S::new();
    let keys: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 0],
        vec![1],
        vec![1, 255],
        vec![255],
    ];
    for flushed in [false, true] {
        let index = subject.index();
        let mut batch = Batch::new();
        for key in keys.iter().rev() {
            batch.put(Table::Upload, key.clone(), "v");
        }
        index.apply(batch).unwrap();
        let seen = |from: &[u8]| -> Vec<Vec<u8>> {
            let mut seen = Vec::new();
            index
                .scan(Table::Upload, from, &mut |key, value| {
                    assert_eq!(value, b"v");
                    seen.push(key.to_vec());
                    ControlFlow::Continue(())
                })
                .unwrap();
            seen
        };
        assert_eq!(seen(&[]), keys);
        assert_eq!(seen(&[0]), keys[1..]);
        assert_eq!(seen(&[0, 0, 0]), keys[3..]);
        assert_eq!(seen(&[1, 255]), keys[4..]);
        assert_eq!(seen(&[255]), keys[5..]);
        assert!(seen(&[255, 0]).is_empty());
        assert!(rows(index, Table::Segment).is_empty());
        let mut count = 0;
        index
            .scan(Table::Upload, &[], &mut |_, _| {
                count += 1;
                if count == 2 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        assert_eq!(count, 2);
        if !flushed {
            index.flush().unwrap();
            subject.reopen();
        }
    }
}

fn scans_one_state<S: Subject>() {
    let subject = S::new();
    let index = subject.index();
    index
        .apply(put(&[("a", "1"), ("b", "1"), ("c", "1")]))
        .unwrap();
    let mut seen = Vec::new();
    index
        .scan(Table::Blob, b"", &mut |key, value| {
            // Changing the index from within neither blocks nor shows.
            let mut batch = put(&[("b", "2"), ("bb", "2"), ("d", "2")]);
            batch.delete(Table::Blob, "c");
            index.apply(batch).unwrap();
            seen.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    let expected = ["a", "b", "c"].map(|key| (key.as_bytes().to_vec(), b"1".to_vec()));
    assert_eq!(seen, expected);
    let now: Vec<_> = rows(index, Table::Blob).into_keys().collect();
    assert_eq!(
        now,
        [b"a".to_vec(), b"b".to_vec(), b"bb".to_vec(), b"d".to_vec()]
    );
}

fn clears_one_table<S: Subject>() {
    let mut subject = S::new();
    subject.index().clear(Table::Scratch).unwrap();
    for _ in 0..2 {
        let mut batch = Batch::new();
        for key in [&[][..], &[1], &[255; 40]] {
            batch.put(Table::Scratch, key, "v");
            batch.put(Table::Meta, key, "v");
        }
        subject.index().apply(batch).unwrap();
        subject.index().flush().unwrap();
        subject.index().clear(Table::Scratch).unwrap();
        assert!(rows(subject.index(), Table::Scratch).is_empty());
        assert_eq!(subject.index().get(Table::Scratch, &[1]).unwrap(), None);
        assert_eq!(rows(subject.index(), Table::Meta).len(), 3);
        subject.index().flush().unwrap();
        subject.crash();
        assert!(rows(subject.index(), Table::Scratch).is_empty());
        assert_eq!(rows(subject.index(), Table::Meta).len(), 3);
    }
}

fn keeps_what_was_flushed<S: Subject>() {
    let mut subject = S::new();
    let mut batch = put(&[("a", "1")]);
    batch.set_watermark(u64::MAX - 1);
    subject.index().apply(batch).unwrap();
    assert_eq!(subject.index().flush().unwrap(), u64::MAX - 1);
    assert_eq!(subject.index().flush().unwrap(), u64::MAX - 1);
    for _ in 0..2 {
        subject.crash();
        assert_eq!(subject.index().watermark().unwrap(), u64::MAX - 1);
        assert_eq!(
            subject.index().get(Table::Blob, b"a").unwrap().unwrap(),
            b"1"
        );
        subject.reopen();
    }
}

/// Every batch writes its number to all tables: after a crash they all hold
/// the watermark's number.
fn loses_only_a_suffix<S: Subject>() {
    let mut subject = S::new();
    let mut next = 1_u64;
    let mut floor = 0;
    for round in 0..6 {
        for _ in 0..50 {
            let mut batch = Batch::new();
            for table in Table::ALL {
                batch.put(table, "number", next.to_le_bytes());
                batch.put(table, next.to_be_bytes(), vec![7; 100]);
            }
            batch.set_watermark(next);
            subject.index().apply(batch).unwrap();
            next += 1;
            if next % 37 == round {
                floor = subject.index().flush().unwrap();
                assert_eq!(floor, next - 1);
            }
        }
        subject.crash();
        let index = subject.index();
        let watermark = index.watermark().unwrap();
        assert!(
            floor <= watermark && watermark < next,
            "{floor} {watermark} {next}"
        );
        for table in Table::ALL {
            let number = index.get(table, b"number").unwrap();
            let number = number.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
            assert_eq!(number, watermark, "in {table}");
            assert_eq!(
                rows_from(index, table, &[0]).len() as u64,
                watermark + u64::from(watermark > 0)
            );
        }
        next = watermark + 1;
        floor = watermark;
    }
    assert!(floor > 0, "nothing was ever flushed");
}

#[derive(Debug, Clone)]
enum Action {
    Apply(Vec<(Table, Vec<u8>, Option<Vec<u8>>)>),
    Clear(Table),
    Flush,
    Crash,
    Reopen,
    Scan(Table, Vec<u8>),
    MultiGet(Table, Vec<Vec<u8>>),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    // Few tables and short keys of few bytes, so that keys meet.
    let table = || proptest::sample::select(&[Table::Meta, Table::Blob, Table::Scratch][..]);
    let key = || vec(proptest::sample::select(&[0_u8, 1, 127, 255][..]), 0..4);
    let value = proptest::option::weighted(0.7, vec(any::<u8>(), 0..300));
    let action = prop_oneof![
        12 => vec((table(), key(), value), 1..20).prop_map(Action::Apply),
        1 => table().prop_map(Action::Clear),
        2 => Just(Action::Flush),
        1 => Just(Action::Crash),
        1 => Just(Action::Reopen),
        3 => (table(), key()).prop_map(|(table, from)| Action::Scan(table, from)),
        3 => (table(), vec(key(), 0..9)).prop_map(|(table, keys)| Action::MultiGet(table, keys)),
    ];
    vec(action, 1..60)
}

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn random_histories_match_a_map<S: Subject>() {
    let seed = std::env::var("ORLOP_SEED").ok().map_or_else(
        || std::process::id() as u64 ^ (std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64),
        |text| text.parse().expect("ORLOP_SEED is a number"),
    );
    eprintln!("random_histories_match_a_map: ORLOP_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: S::CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(config, rng)
        .run(&actions(), |actions| {
            replay::<S>(&actions);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("ORLOP_SEED={seed}: {error}"));
}

/// Plays the actions on an index and on a map. `states[n]` is the map after
/// the batch with watermark `n`.
fn replay<S: Subject>(actions: &[Action]) {
    let mut subject = S::new();
    let mut states: Vec<Model> = vec![Model::new()];
    let mut floor = 0;
    for action in actions {
        let mut now = states.last().unwrap().clone();
        let last = states.len() as u64 - 1;
        match action {
            Action::Apply(steps) => {
                let mut batch = Batch::new();
                for (table, key, value) in steps {
                    match value {
                        Some(value) => {
                            batch.put(*table, key.clone(), value.clone());
                            now.insert((*table, key.clone()), value.clone());
                        }
                        None => {
                            batch.delete(*table, key.clone());
                            now.remove(&(*table, key.clone()));
                        }
                    }
                }
                batch.set_watermark(last + 1);
                subject.index().apply(batch).unwrap();
                states.push(now);
            }
            Action::Clear(table) => {
                subject.index().clear(*table).unwrap();
                now.retain(|(of, _), _| of != table);
                // A watermark of its own tells the state before from after.
                let mut batch = Batch::new();
                batch.set_watermark(last + 1);
                subject.index().apply(batch).unwrap();
                floor = subject.index().flush().unwrap();
                states.push(now);
            }
            Action::Flush => {
                floor = subject.index().flush().unwrap();
                assert_eq!(floor, last);
            }
            Action::Reopen => {
                // A clean close may flush, but need not.
                subject.reopen();
                floor = after_restart(&subject, &mut states, floor);
            }
            Action::Crash => {
                subject.crash();
                floor = after_restart(&subject, &mut states, floor);
            }
            Action::Scan(table, from) => {
                let expected: BTreeMap<_, _> = now
                    .into_iter()
                    .filter(|((of, key), _)| of == table && key >= from)
                    .map(|((_, key), value)| (key, value))
                    .collect();
                assert_eq!(rows_from(subject.index(), *table, from), expected);
            }
            Action::MultiGet(table, keys) => {
                let values = subject.index().multi_get(*table, keys).unwrap();
                for (key, value) in keys.iter().zip(&values) {
                    assert_eq!(value.as_ref(), now.get(&(*table, key.clone())));
                    assert_eq!(&subject.index().get(*table, key).unwrap(), value);
                }
            }
        }
    }
    check_state(&subject, states.last().unwrap());
}

fn after_restart<S: Subject>(subject: &S, states: &mut Vec<Model>, floor: u64) -> u64 {
    let watermark = subject.index().watermark().unwrap();
    assert!(
        floor <= watermark,
        "lost what was flushed: {watermark} < {floor}"
    );
    states.truncate(watermark as usize + 1);
    assert_eq!(states.len() as u64, watermark + 1, "a watermark never set");
    check_state(subject, states.last().unwrap());
    watermark
}

fn check_state<S: Subject>(subject: &S, model: &Model) {
    let mut found = Model::new();
    for table in Table::ALL {
        let rows = rows(subject.index(), table);
        found.extend(rows.into_iter().map(|(key, value)| ((table, key), value)));
    }
    assert_eq!(&found, model);
}

/// What a crash may leave of the reference index: the last flush and any number
/// of the batches after it, as the seed says.
#[test]
fn a_crash_keeps_any_prefix_of_what_was_not_flushed() {
    let index = MemorySubject::new();
    let index = index.memory();
    for lsn in 1..=6 {
        let mut batch = put(&[("key", &lsn.to_string())]);
        batch.set_watermark(lsn);
        index.apply(batch).unwrap();
        if lsn == 2 {
            assert_eq!(index.flush().unwrap(), 2);
        }
    }
    let mut left = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let crashed = index.crash_at(seed);
        let watermark = crashed.watermark().unwrap();
        let value = crashed.get(Table::Blob, b"key").unwrap().unwrap();
        assert_eq!(value, watermark.to_string().into_bytes(), "whole batches");
        assert_eq!(
            crashed.crash().watermark().unwrap(),
            watermark,
            "and durable"
        );
        left.insert(watermark);
    }
    assert_eq!(left, (2..=6).collect());
    assert_eq!(index.crash().watermark().unwrap(), 2);
    assert_eq!(
        index.snapshot().crash_at(3).watermark(),
        index.crash_at(3).watermark()
    );
    assert_eq!((index.flushes(), index.watermark().unwrap()), (1, 6));
}
