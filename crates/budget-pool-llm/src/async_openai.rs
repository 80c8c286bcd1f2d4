//! The usage blocks of async-openai.

use async_openai::types::chat::CompletionUsage;
use async_openai::types::responses::ResponseUsage;

use crate::usage::Usage;

/// The count has a sign, and one below zero says nothing.
fn count(count: Option<i64>) -> u64 {
    count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

/// Cached tokens are inside the prompt, and reasoning is inside the completion. Where the total is
/// more than both, as at servers that leave reasoning out, the difference counts as
/// [output](Usage::total_at_least). A count below zero is zero: its tokens count as plain input.
/// `audio_tokens` are not read: audio counts as text, and is priced as text.
///
/// ```
/// use async_openai::types::chat::CompletionUsage;
/// use budget_pool_llm::Usage;
///
/// let said = CompletionUsage { prompt_tokens: 70, completion_tokens: 7, total_tokens: 77, ..Default::default() };
/// assert_eq!(Usage::from(&said), Usage::new(70, 7));
/// ```
impl From<&CompletionUsage> for Usage {
    fn from(said: &CompletionUsage) -> Usage {
        let prompt = said.prompt_tokens_details.as_ref();
        let completion = said.completion_tokens_details.as_ref();
        Usage::new(said.prompt_tokens.into(), said.completion_tokens.into())
            .cache_read(prompt.and_then(|prompt| prompt.cached_tokens).unwrap_or(0).into())
            .cache_write(count(prompt.and_then(|prompt| prompt.cache_write_tokens)))
            .reasoning(completion.and_then(|part| part.reasoning_tokens).unwrap_or(0).into())
            .total_at_least(said.total_tokens.into())
    }
}

/// As `From<&CompletionUsage>`, for the Responses API.
///
/// ```
/// use async_openai::types::responses::ResponseUsage;
/// use budget_pool_llm::Usage;
///
/// let said = ResponseUsage { input_tokens: 70, output_tokens: 7, total_tokens: 77, ..Default::default() };
/// assert_eq!(Usage::from(&said), Usage::new(70, 7));
/// ```
impl From<&ResponseUsage> for Usage {
    fn from(said: &ResponseUsage) -> Usage {
        Usage::new(said.input_tokens.into(), said.output_tokens.into())
            .cache_read(said.input_tokens_details.cached_tokens.into())
            .cache_write(count(said.input_tokens_details.cache_write_tokens))
            .reasoning(said.output_tokens_details.reasoning_tokens.into())
            .total_at_least(said.total_tokens.into())
    }
}
