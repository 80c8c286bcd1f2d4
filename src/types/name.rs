//! A name, as cheap to copy as a refusal needs it to be.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Write as _};
use std::ops::Deref;

use ecow::EcoString;

/// The name of a pool, or a [key](crate::BudgetPool::record_once): a `str`, shared and never
/// changed.
///
/// A copy costs next to nothing, up to 15 bytes not even an atomic operation, so that a refusal can
/// carry it.
///
/// ```
/// use budget_pool::BudgetPool;
///
/// let pool = BudgetPool::builder().name("run-17").build();
/// assert_eq!(pool.snapshot().name, "run-17");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(EcoString);

impl Name {
    /// Of a pool that was not given one.
    pub(crate) const DEFAULT: Name = Name(EcoString::inline("pool"));

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For a text of one line, whatever the name: a character that would break the line, or command
    /// the terminal, is escaped.
    pub(crate) fn in_line(&self) -> InLine<'_> {
        InLine(self)
    }
}

pub(crate) struct InLine<'a>(pub(crate) &'a str);

impl fmt::Display for InLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two that separate lines are no control characters.
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        self.0
            .chars()
            .try_for_each(|c| if breaks(c) { c.escape_default().fmt(f) } else { f.write_char(c) })
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A map by name can be asked with a `&str`.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Name {
        name.clone()
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Name {
        Name(name.into())
    }
}

impl From<&String> for Name {
    fn from(name: &String) -> Name {
        Name(name.into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Name {
        Name(name.into())
    }
}

impl From<Box<str>> for Name {
    fn from(name: Box<str>) -> Name {
        Name::from(&*name)
    }
}

impl From<Cow<'_, str>> for Name {
    fn from(name: Cow<'_, str>) -> Name {
        Name::from(&*name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0.into()
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        **self == **other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl PartialEq<Name> for str {
    fn eq(&self, other: &Name) -> bool {
        other == self
    }
}

impl PartialEq<Name> for &str {
    fn eq(&self, other: &Name) -> bool {
        other == self
    }
}

impl PartialEq<Name> for String {
    fn eq(&self, other: &Name) -> bool {
        other == self
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
