//! What other crates are served with: a file for each feature.

#[cfg(feature = "serde")]
mod serde;
#[cfg(feature = "tokio")]
mod tokio;
