//! The tokens of one call.

use std::fmt;

use crate::price::Unpriced;

/// The tokens of one call, in one meaning for all providers.
///
/// `input` holds all tokens of the prompt, and `cache_read`, `cache_write` and `cache_write_1h` are
/// parts of it that do not overlap. `output` holds all generated tokens, and `reasoning` is a part
/// of it. A block that counts a part beside the whole is brought to this meaning by
/// [`cache_beside`](Usage::cache_beside), [`reasoning_beside`](Usage::reasoning_beside) and
/// [`total_at_least`](Usage::total_at_least).
///
/// Parts that are more than their whole contradict this meaning. They are kept as they came:
/// [`Price::cost`](crate::Price::cost) refuses the block, since no figure for it would be exact.
///
/// A provider may come to count another part: a block is made by [`new`](Usage::new) and the methods
/// that are named as the fields.
///
/// Usage blocks are not added up: a [tier](crate::Price::above) goes by the input of one call.
///
/// ```
/// use budget_pool_llm::Usage;
///
/// let usage = Usage::new(2_006, 300).cache_read(1_920);
/// assert_eq!(usage.total(), 2_306);
/// assert_eq!(usage.uncached(), Some(86));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Usage {
    /// All tokens of the prompt, cached and written ones included.
    pub input: u64,
    /// Of the input: tokens that were read from a cache.
    pub cache_read: u64,
    /// Of the input: tokens that were written to a cache, for the provider's usual time.
    pub cache_write: u64,
    /// Of the input: tokens that were written to a cache for an hour. They are not counted in
    /// `cache_write`.
    pub cache_write_1h: u64,
    /// All generated tokens, reasoning included.
    pub output: u64,
    /// Of the output: tokens of reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// A call without cached tokens and without reasoning.
    ///
    /// ```
    /// use budget_pool_llm::Usage;
    ///
    /// let usage = Usage::new(70, 7);
    /// assert_eq!((usage.input, usage.output, usage.reasoning), (70, 7, 0));
    /// ```
    #[must_use]
    pub const fn new(input: u64, output: u64) -> Usage {
        Usage { input, cache_read: 0, cache_write: 0, cache_write_1h: 0, output, reasoning: 0 }
    }

    /// Sets `cache_read`: tokens that were read from a cache. They are a part of `input`.
    #[must_use]
    pub const fn cache_read(mut self, tokens: u64) -> Usage {
        self.cache_read = tokens;
        self
    }

    /// Sets `cache_write`: tokens that were written to a cache for the provider's usual time. They
    /// are a part of `input`.
    #[must_use]
    pub const fn cache_write(mut self, tokens: u64) -> Usage {
        self.cache_write = tokens;
        self
    }

    /// Sets `cache_write_1h`: tokens that were written to a cache for an hour. They are a part of
    /// `input`.
    #[must_use]
    pub const fn cache_write_1h(mut self, tokens: u64) -> Usage {
        self.cache_write_1h = tokens;
        self
    }

    /// Sets `reasoning`: tokens of reasoning. They are a part of `output`.
    #[must_use]
    pub const fn reasoning(mut self, tokens: u64) -> Usage {
        self.reasoning = tokens;
        self
    }

    /// The block counts the cached tokens beside the input, as Anthropic does: adds all three parts
    /// to `input`.
    ///
    /// ```
    /// use budget_pool_llm::Usage;
    ///
    /// // input_tokens 337, cache_creation_input_tokens 46,209, output_tokens 342
    /// let usage = Usage::new(337, 342).cache_write(46_209);
    /// assert_eq!(usage.cache_beside().input, 46_546);
    /// ```
    #[must_use]
    pub const fn cache_beside(mut self) -> Usage {
        self.input = (self.input.saturating_add(self.cache_read))
            .saturating_add(self.cache_write)
            .saturating_add(self.cache_write_1h);
        self
    }

    /// The block counts the reasoning beside the output, as Gemini does: adds `reasoning` to
    /// `output`.
    ///
    /// ```
    /// use budget_pool_llm::Usage;
    ///
    /// // promptTokenCount 14, toolUsePromptTokenCount 50, candidatesTokenCount 2,
    /// // thoughtsTokenCount 43
    /// let usage = Usage::new(14 + 50, 2).reasoning(43).reasoning_beside();
    /// assert_eq!((usage.input, usage.output), (64, 45));
    /// ```
    #[must_use]
    pub const fn reasoning_beside(mut self) -> Usage {
        self.output = self.output.saturating_add(self.reasoning);
        self
    }

    /// The block names a total, too: tokens that the total has and no part names count as output,
    /// which is the dearest reading. A `total` below the parts changes nothing.
    ///
    /// This is also the reading of a block that has a total and nothing else.
    ///
    /// Call `total_at_least` last. A [`cache_beside`](Usage::cache_beside) or
    /// [`reasoning_beside`](Usage::reasoning_beside) after it adds tokens that the total has counted
    /// already.
    ///
    /// ```
    /// use budget_pool_llm::Usage;
    ///
    /// // prompt_tokens 32, completion_tokens 9, and 94 tokens of reasoning in the total alone.
    /// assert_eq!(Usage::new(32, 9).total_at_least(135), Usage::new(32, 103));
    /// assert_eq!(Usage::new(32, 9).total_at_least(0), Usage::new(32, 9));
    /// // The total counts the reasoning that is beside the output.
    /// let usage = Usage::new(14, 2).reasoning(43).reasoning_beside().total_at_least(59);
    /// assert_eq!(usage.output, 45);
    /// ```
    #[must_use]
    pub const fn total_at_least(mut self, total: u64) -> Usage {
        let output = total.saturating_sub(self.input);
        if output > self.output {
            self.output = output;
        }
        self
    }

    /// The sum of `input` and `output`.
    ///
    /// ```
    /// use budget_pool_llm::Usage;
    ///
    /// assert_eq!(Usage::new(70, 7).total(), 77);
    /// ```
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The input that was neither read from a cache nor written to one, or `None` if those parts
    /// are more than the input. Some providers limit a rate by [`uncached`](Usage::uncached) input.
    ///
    /// ```
    /// use budget_pool_llm::Usage;
    ///
    /// let usage = Usage::new(10_000, 0).cache_read(8_000);
    /// assert_eq!(usage.uncached(), Some(2_000));
    /// assert_eq!(Usage::new(1_000, 0).cache_read(8_000).uncached(), None);
    /// ```
    #[must_use]
    pub fn uncached(&self) -> Option<u64> {
        self.input
            .checked_sub(self.cache_read)?
            .checked_sub(self.cache_write)?
            .checked_sub(self.cache_write_1h)
    }

    /// The tokens of each part, none of them counted twice.
    pub(crate) fn parts(&self) -> Result<[(Part, u64); Part::COUNT], Unpriced> {
        let Some(uncached) = self.uncached() else {
            return Err(Unpriced::CachedBeyondInput { usage: *self });
        };
        let Some(visible) = self.output.checked_sub(self.reasoning) else {
            return Err(Unpriced::ReasoningBeyondOutput { usage: *self });
        };
        Ok([
            (Part::Input, uncached),
            (Part::CacheRead, self.cache_read),
            (Part::CacheWrite, self.cache_write),
            (Part::CacheWrite1h, self.cache_write_1h),
            (Part::Output, visible),
            (Part::Reasoning, self.reasoning),
        ])
    }
}

/// A kind of tokens with a price of its own.
///
/// ```
/// use budget_pool_llm::Part;
///
/// assert_eq!(Part::CacheWrite1h.to_string(), "cache_write_1h");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Tokens of the prompt that no other part has.
    Input,
    /// Tokens read from a cache.
    CacheRead,
    /// Tokens written to a cache, for the provider's usual time.
    CacheWrite,
    /// Tokens written to a cache for an hour.
    CacheWrite1h,
    /// Generated tokens, and those of reasoning where `Part::Reasoning` has no price.
    Output,
    /// Tokens of reasoning.
    Reasoning,
}

impl Part {
    pub(crate) const COUNT: usize = Part::ALL.len();

    /// All parts.
    ///
    /// ```
    /// use budget_pool_llm::Part;
    ///
    /// assert!(Part::ALL.contains(&Part::Reasoning));
    /// ```
    pub const ALL: &'static [Part] = &[
        Part::Input,
        Part::CacheRead,
        Part::CacheWrite,
        Part::CacheWrite1h,
        Part::Output,
        Part::Reasoning,
    ];

    /// The name of the field of [`Usage`].
    ///
    /// ```
    /// use budget_pool_llm::Part;
    ///
    /// assert_eq!(Part::CacheRead.as_str(), "cache_read");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Part::Input => "input",
            Part::CacheRead => "cache_read",
            Part::CacheWrite => "cache_write",
            Part::CacheWrite1h => "cache_write_1h",
            Part::Output => "output",
            Part::Reasoning => "reasoning",
        }
    }
}

/// [`as_str`](Part::as_str), padded as texts are.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
