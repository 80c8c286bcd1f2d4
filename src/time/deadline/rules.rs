//! The rules of a budget of time: its clock, its floor and its named caps.

use std::time::Duration;

use crate::time::clock::SharedClock;

/// The rules that clones and children share.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) clock: SharedClock,
    pub(super) min_timeout: Duration,
    /// By name, the last one of a name counts. Some ten names: a scan, which compares lengths
    /// first, beats a map.
    pub(super) call_caps: Vec<(Box<str>, Duration)>,
}

impl Rules {
    pub(super) const DEFAULT: Rules = Rules {
        clock: SharedClock::SYSTEM,
        min_timeout: Duration::from_millis(100),
        call_caps: Vec::new(),
    };

    #[inline]
    pub(super) fn call_cap(&self, name: &str) -> Option<Duration> {
        self.call_caps.iter().rev().find(|(known, _)| **known == *name).map(|(_, cap)| *cap)
    }
}

pub(super) static DEFAULT_RULES: Rules = Rules::DEFAULT;
