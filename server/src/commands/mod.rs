//! The commands of `orlop`, one file each.

pub mod catalog;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod maintenance;
pub mod serve;
mod service;
pub mod version;

use clap::ValueEnum;

/// How a command reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}
