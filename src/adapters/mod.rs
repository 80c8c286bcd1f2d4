//! Adapters to other crates: a file for each feature.

#[cfg(feature = "metrics")]
pub(crate) mod metrics;
#[cfg(feature = "serde")]
mod serde;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(feature = "tracing")]
pub(crate) mod tracing;
