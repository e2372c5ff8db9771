//! Scenarios of tasks that meet, each run under thousands of schedules.
//!
//! The real store runs with the locks, channels and tasks of an explorer
//! (feature `shuttle`): one thread, and at each lock, channel, disk operation
//! and look at the index the explorer decides who goes on. `explore` says how
//! often and replays one schedule, `world` is what the store runs on. Every
//! scenario loses the power at a moment that the explorer chooses too, and
//! opens what is left.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "schedules/collect.rs"]
mod collect;
#[path = "schedules/explore.rs"]
mod explore;
#[path = "schedules/names.rs"]
mod names;
#[path = "schedules/pushes.rs"]
mod pushes;
#[path = "schedules/reads.rs"]
mod reads;
#[path = "schedules/space.rs"]
mod space;
#[path = "schedules/step.rs"]
mod step;
#[path = "schedules/upkeep.rs"]
mod upkeep;
#[path = "schedules/uploads.rs"]
mod uploads;
#[path = "schedules/world.rs"]
mod world;
