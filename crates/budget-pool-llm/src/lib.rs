//! The cost of a call to an LLM, to the nano-dollar, for the pools of [`budget_pool`].
//!
//! ```
//! use budget_pool::BudgetPool;
//! use budget_pool_llm::{Price, Usage};
//!
//! // Dollars per million tokens, as price pages say them.
//! let price = Price::new("3".parse()?, "15".parse()?).cache_read("0.30".parse()?);
//! let pool = BudgetPool::builder().usd("1".parse()?).build();
//!
//! // Before the call: hold the most that it can cost. If the hold is dropped, that is booked.
//! let hold = pool.reserve(price.ask(10_000, 2_000))?;
//! assert_eq!(pool.snapshot().usd.reserved, "0.06".parse()?);
//!
//! // After the call: settle what the provider says.
//! let usage = Usage::new(10_000, 500).cache_read(8_000);
//! hold.commit(price.amount(&usage)?);
//! assert_eq!(pool.snapshot().usd.used, "0.0159".parse()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Usage`]: the tokens of one call, in one meaning for all providers.
//! - [`Price`]: from tokens to money. The arithmetic is exact, and rounds up once, at the end.
//! - [`Metered`]: a stream of chunks with a hold. However the stream ends, the hold is settled.
//!
//! # The rules of the money
//!
//! - Each part of a usage block has a [`Rate`] of its own, exact to 27 decimals of a dollar a token.
//!   A float of a price list counts as the shortest decimal text that names it.
//! - A part that has tokens and no rate makes the call [`Unpriced`]; it never costs 0. Reasoning
//!   tokens without a rate of their own are output tokens.
//! - A [tier](Price::above) applies to the whole call when its input is greater than the threshold.
//! - The sum is rounded up to the next nano-dollar. A sum above [`Usd::MAX`](budget_pool::Usd::MAX)
//!   is `Usd::MAX`.
//!
//! # Usage blocks
//!
//! The same words mean different things at different providers. [`Usage`] has one meaning: `input`
//! holds all tokens of the prompt, `output` all generated ones. Three functions bring a block there:
//!
//! | provider | how it counts | what to call |
//! | --- | --- | --- |
//! | OpenAI, DeepSeek | cached tokens inside the prompt, reasoning inside the completion | nothing |
//! | Anthropic | cached and written tokens beside `input_tokens` | [`Usage::cache_beside`] |
//! | Gemini | cached tokens inside the prompt, tool use beside it, thoughts beside the candidates | [`Usage::reasoning_beside`], with `toolUsePromptTokenCount` added to `input` |
//! | any that names a total | the total may exceed input and output | [`Usage::total_at_least`] |
//!
//! With the feature `async-openai`, `Usage` is `From<&CompletionUsage>` and `From<&ResponseUsage>`
//! of that client. Other clients take a function of a few lines.
//!
//! ## genai 0.7
//!
//! genai counts cached tokens inside the prompt and reasoning inside the completion for every
//! provider. It says `None` for zero, and its integers have a sign.
//!
//! ```
//! # mod genai { pub mod chat {
//! #     #[derive(Default)] pub struct Usage { pub prompt_tokens: Option<i32>, pub prompt_tokens_details: Option<PromptTokensDetails>, pub completion_tokens: Option<i32>, pub completion_tokens_details: Option<CompletionTokensDetails>, pub total_tokens: Option<i32> }
//! #     #[derive(Default)] pub struct PromptTokensDetails { pub cache_creation_tokens: Option<i32>, pub cache_creation_details: Option<CacheCreationDetails>, pub cached_tokens: Option<i32> }
//! #     #[derive(Default)] pub struct CacheCreationDetails { pub ephemeral_1h_tokens: Option<i32> }
//! #     #[derive(Default)] pub struct CompletionTokensDetails { pub reasoning_tokens: Option<i32> }
//! # } }
//! use budget_pool_llm::Usage;
//!
//! fn usage(said: &genai::chat::Usage) -> Usage {
//!     let count = |count: Option<i32>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
//!     let (prompt, completion) = (said.prompt_tokens_details.as_ref(), said.completion_tokens_details.as_ref());
//!     let written = count(prompt.and_then(|prompt| prompt.cache_creation_tokens));
//!     let for_an_hour = count(prompt.and_then(|prompt| prompt.cache_creation_details.as_ref()?.ephemeral_1h_tokens));
//!     let (cache_write, cache_write_1h) = (written.saturating_sub(for_an_hour), for_an_hour);
//!     let cache_read = count(prompt.and_then(|prompt| prompt.cached_tokens));
//!     let reasoning = count(completion.and_then(|completion| completion.reasoning_tokens));
//!     let (input, output) = (count(said.prompt_tokens), count(said.completion_tokens));
//!     Usage::new(input, output)
//!         .cache_read(cache_read)
//!         .cache_write(cache_write)
//!         .cache_write_1h(cache_write_1h)
//!         .reasoning(reasoning)
//!         .total_at_least(count(said.total_tokens))
//! }
//! # let details = genai::chat::PromptTokensDetails { cache_creation_tokens: Some(248), cache_creation_details: Some(genai::chat::CacheCreationDetails { ephemeral_1h_tokens: Some(100) }), cached_tokens: Some(1_800) };
//! # let said = genai::chat::Usage { prompt_tokens: Some(4_096), prompt_tokens_details: Some(details), completion_tokens: Some(503), total_tokens: Some(4_599), ..Default::default() };
//! # assert_eq!(usage(&said), Usage::new(4_096, 503).cache_read(1_800).cache_write(148).cache_write_1h(100));
//! # assert_eq!(usage(&genai::chat::Usage { prompt_tokens: Some(-1), ..Default::default() }), Usage::default());
//! ```
//!
//! ## rig 0.44
//!
//! rig counts everything inside, too, and does not tell writes for an hour apart.
//!
//! ```
//! # mod rig { pub mod completion {
//! #     #[derive(Default)] pub struct Usage { pub input_tokens: Option<u64>, pub output_tokens: Option<u64>, pub total_tokens: Option<u64>, pub cached_input_tokens: Option<u64>, pub cache_creation_input_tokens: Option<u64>, pub reasoning_tokens: Option<u64> }
//! # } }
//! use budget_pool_llm::Usage;
//!
//! fn usage(said: &rig::completion::Usage) -> Usage {
//!     let count = |count: Option<u64>| count.unwrap_or(0);
//!     let (cache_read, cache_write) = (count(said.cached_input_tokens), count(said.cache_creation_input_tokens));
//!     let (input, output) = (count(said.input_tokens), count(said.output_tokens));
//!     let reasoning = count(said.reasoning_tokens);
//!     Usage::new(input, output)
//!         .cache_read(cache_read)
//!         .cache_write(cache_write)
//!         .reasoning(reasoning)
//!         .total_at_least(count(said.total_tokens))
//! }
//! # let said = rig::completion::Usage { input_tokens: Some(10), output_tokens: Some(3), total_tokens: Some(15), ..Default::default() };
//! # assert_eq!(usage(&said), Usage::new(10, 5));
//! ```
//!
//! # What is not here
//!
//! - **A table of prices.** Prices change weekly; public lists exist. [`Price::per_token`] reads
//!   their figures.
//! - **A tokenizer.** The provider counts, or a function of yours does.
//! - **Prices of audio.** `Usage` counts audio tokens as text, and a [`Price`] prices them so.
//!
//! # Features and versions
//!
//! `async-openai` is off by default. The minimum supported Rust version is 1.85, with the feature,
//! too; a rise is a minor release.

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// An `expect` states the invariant that makes it impossible.
#![warn(clippy::unwrap_used)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "async-openai")]
mod async_openai;
mod metered;
mod price;
mod rate;
mod usage;

pub use metered::{Chunk, Metered};
pub use price::{Price, PriceError, Unpriced};
pub use rate::{Rate, RateError};
pub use usage::{Part, Usage};

/// The README's example runs, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
