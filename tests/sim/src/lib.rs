//! The simulator: the real store on a simulated disk, with a model of its
//! index and of the names, under every fault and crash.
