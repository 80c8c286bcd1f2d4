//! No library: the program is in `examples/replay`.
