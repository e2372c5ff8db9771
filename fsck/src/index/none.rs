//! Stands for RocksDB where the program is built without it.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::path::Path;

use crate::report::Report;
use crate::scratch::Scratch;
use crate::trouble::Result;

/// A database that cannot be opened.
#[derive(Debug)]
pub(super) struct Database(Infallible);

/// Rows that cannot be.
#[derive(Debug)]
pub(super) struct Rows<'a>(Infallible, PhantomData<&'a ()>);

impl Database {
    /// Whether there can be one.
    pub(super) const AVAILABLE: bool = false;

    /// Never opens it.
    pub(super) fn open(
        _: &Path,
        _: &[String],
        _: &Scratch,
        _: &mut Report,
    ) -> Result<std::result::Result<(Self, u64), String>> {
        Ok(Err("this program was built without RocksDB".to_owned()))
    }

    /// Never gives any.
    pub(super) fn rows(&self, _: &'static str) -> std::result::Result<Rows<'_>, String> {
        match self.0 {}
    }
}

impl Rows<'_> {
    /// Never gives one.
    pub(super) fn next(&mut self) -> std::result::Result<Option<(Vec<u8>, Vec<u8>)>, String> {
        match self.0 {}
    }
}
