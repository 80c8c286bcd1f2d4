//! Models of what threads can do to each other, which need a look inside the crate. In `units` lie
//! the longest tests of single files: those files include them, and the published package lacks
//! them.

#[cfg(budget_pool_loom)]
mod loom;
#[cfg(budget_pool_shuttle)]
mod shuttle;
