//! The time that a caller still has, as its headers tell it.

use std::fmt;
use std::time::Duration;

use budget_pool::{DeadlineBudget, ParseGrpcTimeoutError};
use http::{Extensions, HeaderMap, HeaderValue};

/// A header that tells how much time a caller still has: for
/// [`BudgetLayer::deadline_from`](crate::BudgetLayer::deadline_from).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeadlineHeader {
    name: &'static str,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Format {
    Grpc,
    Millis,
}

/// `grpc-timeout`: at most eight digits and a unit, such as `250m`.
pub const GRPC_TIMEOUT: DeadlineHeader = DeadlineHeader::grpc("grpc-timeout");

/// `x-envoy-expected-rq-timeout-ms`: the milliseconds after which the proxy in front gives up.
pub const ENVOY_EXPECTED_RQ_TIMEOUT_MS: DeadlineHeader =
    DeadlineHeader::millis("x-envoy-expected-rq-timeout-ms");

impl DeadlineHeader {
    /// A header of this name in the format of `grpc-timeout`.
    #[must_use]
    pub const fn grpc(name: &'static str) -> DeadlineHeader {
        DeadlineHeader { name, format: Format::Grpc }
    }

    /// A header of this name that is a whole number of milliseconds, at most `u64::MAX`.
    #[must_use]
    pub const fn millis(name: &'static str) -> DeadlineHeader {
        DeadlineHeader { name, format: Format::Millis }
    }

    fn read(
        self,
        value: &HeaderValue,
        base: &DeadlineBudget,
    ) -> Result<DeadlineBudget, BadDeadline> {
        // A value that is no text becomes a text that is no number.
        let text = String::from_utf8_lossy(value.as_bytes());
        let why = match self.format {
            Format::Grpc => match base.child_from_grpc_timeout(&text) {
                Ok(deadline) => return Ok(deadline),
                Err(error) => Why::Grpc(error),
            },
            Format::Millis => match digits(&text) {
                Some(millis) => return Ok(base.child(Duration::from_millis(millis))),
                None => Why::Millis,
            },
        };
        Err(BadDeadline { header: self.name, why })
    }
}

/// A number as headers have them. `u64::from_str` would take a sign.
pub(crate) fn digits(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// A header whose time cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadDeadline {
    header: &'static str,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Grpc(ParseGrpcTimeoutError),
    Millis,
}

impl fmt::Display for BadDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad header {}: ", self.header)?;
        match &self.why {
            Why::Grpc(error) => error.fmt(f),
            Why::Millis => f.write_str("a time in milliseconds is ASCII digits, at most u64::MAX"),
        }
    }
}

/// How the deadline of a request is found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deadlines {
    pub(crate) headers: Vec<DeadlineHeader>,
    pub(crate) longest: Option<Duration>,
    pub(crate) below: Option<DeadlineBudget>,
}

impl Deadlines {
    /// The deadline of a request, if it has one; the extensions know it, too.
    pub(crate) fn find(
        &self,
        headers: &HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<Option<DeadlineBudget>, BadDeadline> {
        let known = extensions.get::<DeadlineBudget>().cloned();
        let mut found = match (known.or_else(|| self.below.clone()), self.longest) {
            (base, Some(longest)) => {
                Some(base.unwrap_or_else(DeadlineBudget::unbounded).child(longest))
            }
            (base, None) => base,
        };
        for header in &self.headers {
            for value in headers.get_all(header.name) {
                let base = found.unwrap_or_else(DeadlineBudget::unbounded);
                found = Some(header.read(value, &base)?);
            }
        }
        if let Some(found) = &found {
            extensions.insert(found.clone());
        }
        Ok(found)
    }
}
