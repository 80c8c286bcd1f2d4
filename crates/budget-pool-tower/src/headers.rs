//! The headers that tell a caller what is left.

use std::fmt::Write;
use std::time::Duration;

use budget_pool::{Axis, Limit, Quantity, Usd};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Which headers tell a caller what is left: for
/// [`BudgetLayer::headers`](crate::BudgetLayer::headers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RateLimitHeaders {
    /// None.
    #[default]
    None,
    /// `RateLimit-Policy` and `RateLimit` of [the IETF
    /// draft](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/), versions 10
    /// and 11: one policy for each cap on the way up, at the instant at which the response began.
    ///
    /// ```text
    /// RateLimit-Policy: "day";q=40000;budget-pool-unit="tokens";w=86400
    /// RateLimit: "day";r=1200;t=30
    /// ```
    ///
    /// - A policy has the name of its pool. Where a pool has caps on several axes, the axis follows
    ///   after a colon: `"day:tokens"`, `"day:usd"`. A character that is not printable ASCII, and a
    ///   `%`, is percent-encoded as UTF-8. Where the pools of a path have one name, their policies
    ///   are numbered from the second on, from below: `"pool"`, `"pool#2"`.
    /// - `q` and `r` are at most 999,999,999,999,999, as no integer of these headers can be greater.
    ///   Money is in micros of a dollar, rounded down.
    /// - `qu` is there for the units that the draft registers: `requests`, `concurrent-requests` for
    ///   what is in flight, `content-bytes` for an axis of one's own of that name. The other units
    ///   are told by `budget-pool-unit`, money as `usd-micros`.
    /// - `w` is the window's period in seconds, rounded up. It is absent below a second, for a
    ///   calendar, and without a window.
    /// - `t` is the time until the window frees more, in seconds, rounded up. It is absent where
    ///   only a release helps, as of what other requests hold.
    Ietf,
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The greatest integer of a structured field.
const MOST: u64 = 999_999_999_999_999;

/// Adds the headers for these limits. An earlier header of another layer stays.
pub(crate) fn write(headers: &mut HeaderMap, limits: &[Limit], disclosed: impl Fn(&str) -> bool) {
    let (mut policy, mut limit) = (List::default(), List::default());
    let named = limits.iter().zip(policy_names(limits));
    for (each, name) in named.filter(|(limit, _)| disclosed(&limit.pool)) {
        let (parameter, unit) = unit(each.axis());
        let mut item = policy.item(&name);
        item.integer("q", figure(each.cap)).string(parameter, &unit);
        if let Some(period) = each.period.filter(|period| *period >= Duration::from_secs(1)) {
            item.integer("w", seconds(period));
        }
        let mut item = limit.item(&name);
        item.integer("r", figure(each.free));
        if let Some(more_in) = each.more_in {
            item.integer("t", seconds(more_in));
        }
    }
    for (name, List(list)) in [(POLICY, policy), (LIMIT, limit)] {
        // All of it is printable ASCII. An empty list is no header.
        if let Some(value) = HeaderValue::from_str(&list).ok().filter(|value| !value.is_empty()) {
            headers.append(name, value);
        }
    }
}

/// The name of each limit as a policy, among those of its path: no two are alike.
pub(crate) fn policy_names(limits: &[Limit]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(limits.len());
    for limit in limits {
        let name = policy_name(limit, limits);
        let numbered = (2..).map(|number: u64| format!("{name}#{number}"));
        let mut candidates = std::iter::once(name.clone()).chain(numbered);
        names.extend(candidates.find(|candidate| !names.contains(candidate)));
    }
    names
}

fn policy_name(limit: &Limit, all: &[Limit]) -> String {
    let of_the_pool = all.iter().filter(|other| other.pool == limit.pool);
    match of_the_pool.count() {
        0 | 1 => ascii(&limit.pool),
        _ => ascii(&format!("{}:{}", limit.pool.as_str(), axis_name(limit.axis()))),
    }
}

fn axis_name(axis: Axis) -> String {
    match axis {
        Axis::Custom(custom) => custom.label().to_owned(),
        axis => axis.as_str().to_owned(),
    }
}

/// The parameter that tells the unit, and the unit.
fn unit(axis: Axis) -> (&'static str, String) {
    const REGISTERED: &str = "qu";
    const OWN: &str = "budget-pool-unit";
    match axis {
        Axis::Requests => (REGISTERED, "requests".to_owned()),
        Axis::InFlight => (REGISTERED, "concurrent-requests".to_owned()),
        Axis::Custom(custom) if custom.label() == "content-bytes" => {
            (REGISTERED, "content-bytes".to_owned())
        }
        Axis::Usd => (OWN, "usd-micros".to_owned()),
        axis => (OWN, ascii(&axis_name(axis))),
    }
}

fn figure(quantity: Quantity) -> u64 {
    quantity.usd().map_or(quantity.units(), Usd::as_micros).min(MOST)
}

/// Whole seconds, rounded up: a caller that waits as long does not come too early.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).min(MOST)
}

/// Printable ASCII; what is not is percent-encoded, and so is a `%`.
pub(crate) fn ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => ascii.push(char::from(byte)),
            // Writing to a text cannot fail.
            _ => _ = write!(ascii, "%{byte:02X}"),
        }
    }
    ascii
}

/// A list of strings with parameters, as a structured field.
#[derive(Default)]
struct List(String);

struct Item<'a>(&'a mut String);

impl List {
    fn item(&mut self, name: &str) -> Item<'_> {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        quote(&mut self.0, name);
        Item(&mut self.0)
    }
}

impl Item<'_> {
    fn integer(&mut self, key: &str, value: u64) -> &mut Self {
        _ = write!(self.0, ";{key}={value}");
        self
    }

    fn string(&mut self, key: &str, value: &str) -> &mut Self {
        _ = write!(self.0, ";{key}=");
        quote(self.0, value);
        self
    }
}

fn quote(list: &mut String, text: &str) {
    list.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            list.push('\\');
        }
        list.push(character);
    }
    list.push('"');
}
