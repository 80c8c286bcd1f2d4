//! No library: the program is in `examples/agent`.
