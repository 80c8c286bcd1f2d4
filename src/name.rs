//! A pool's name, as cheap to copy as a refusal needs it to be.

use std::fmt;
use std::ops::Deref;

use smol_str::SmolStr;

/// The name of a pool: a `str`, shared and never changed.
///
/// A copy costs next to nothing, up to 23 bytes not even an atomic operation, so that a refusal can carry it.
///
/// ```
/// use budget_pool::BudgetPool;
///
/// let pool = BudgetPool::builder().name("run-17").build();
/// assert_eq!(pool.snapshot().name, "run-17");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(SmolStr);

impl Name {
    /// Of a pool that was not given one.
    pub(crate) const DEFAULT: Name = Name(SmolStr::new_static("pool"));

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Name {
        Name(name.into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Name {
        Name(name.into())
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
