//! The simulator: the real store on a simulated disk, with a model of its
//! index and of the names, under every fault and crash.
//!
//! A run is a pure function of its seed: one thread, a virtual clock, seeded
//! numbers, a disk in memory. [`simulation::run`] runs a workload once and keeps
//! each moment of it; a crash at any of them is one image, which the checkers
//! open and look at. Workloads and checkers know nothing of each other: what
//! lies between them is the model of what clients were told.
//!
//! Reading order: `world` is what there is, `client` and `workload` what is
//! done, `model` what is remembered, `simulation` the crashes, `checker` what
//! must hold after them.

pub mod case;
pub mod catalog;
pub mod checker;
pub mod client;
pub mod index;
pub mod model;
pub mod random;
pub mod runtime;
pub mod simulation;
pub mod sweep;
pub mod workload;
pub mod world;
