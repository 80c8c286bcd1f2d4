//! Time as users set it: clocks, budgets of time, windows.

pub(crate) mod clock;
pub(crate) mod deadline;
pub(crate) mod window;
