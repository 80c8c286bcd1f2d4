//! Models of what threads can do to each other, which need a look inside the crate.

#[cfg(budget_pool_loom)]
mod loom;
#[cfg(budget_pool_shuttle)]
mod shuttle;
