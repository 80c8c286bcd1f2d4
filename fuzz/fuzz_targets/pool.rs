//! Any sequence of calls on a tree of pools, against the naive model.

#![no_main]

#[path = "../../tests/support/model.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|ops: Vec<model::language::Op>| {
    // Longer ones find nothing that a shorter one does not, and each step looks at everything.
    model::run(&ops[..ops.len().min(200)]);
});
