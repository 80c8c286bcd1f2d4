//! Usage blocks as providers send them, and the traps in them.

use std::fs;

use budget_pool::Usd;
use budget_pool_llm::{Price, Unpriced, Usage};
use serde_json::{Value, json};

fn block(name: &str) -> Value {
    let path = format!("{}/tests/data/usage/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A count that is absent, null or below zero says nothing.
fn count(block: &Value, path: &str) -> u64 {
    block.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn openai_chat(said: &Value) -> Usage {
    Usage::new(count(said, "/prompt_tokens"), count(said, "/completion_tokens"))
        .cache_read(count(said, "/prompt_tokens_details/cached_tokens"))
        .cache_write(count(said, "/prompt_tokens_details/cache_write_tokens"))
        .reasoning(count(said, "/completion_tokens_details/reasoning_tokens"))
        .total_at_least(count(said, "/total_tokens"))
}

fn openai_responses(said: &Value) -> Usage {
    Usage::new(count(said, "/input_tokens"), count(said, "/output_tokens"))
        .cache_read(count(said, "/input_tokens_details/cached_tokens"))
        .cache_write(count(said, "/input_tokens_details/cache_write_tokens"))
        .reasoning(count(said, "/output_tokens_details/reasoning_tokens"))
        .total_at_least(count(said, "/total_tokens"))
}

fn anthropic(said: &Value) -> Usage {
    let for_an_hour = count(said, "/cache_creation/ephemeral_1h_input_tokens");
    let written = count(said, "/cache_creation_input_tokens");
    Usage::new(count(said, "/input_tokens"), count(said, "/output_tokens"))
        .cache_read(count(said, "/cache_read_input_tokens"))
        .cache_write(written.saturating_sub(for_an_hour))
        .cache_write_1h(for_an_hour)
        .cache_beside()
}

fn gemini(said: &Value) -> Usage {
    Usage::new(
        count(said, "/promptTokenCount") + count(said, "/toolUsePromptTokenCount"),
        count(said, "/candidatesTokenCount"),
    )
    .cache_read(count(said, "/cachedContentTokenCount"))
    .reasoning(count(said, "/thoughtsTokenCount"))
    .reasoning_beside()
    .total_at_least(count(said, "/totalTokenCount"))
}

const PRICE: Price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15))
    .cache_read(Usd::from_cents(30))
    .cache_write(Usd::from_cents(375))
    .cache_write_1h(Usd::from_dollars(6));

fn cost(usage: Usage) -> Usd {
    PRICE.cost(&usage).unwrap_or_else(|error| panic!("{usage:?}: {error}"))
}

#[test]
fn openai_counts_cached_tokens_inside_the_prompt() {
    let usage = openai_chat(&block("openai_chat_cached"));
    assert_eq!(usage, Usage::new(2_006, 300).cache_read(1_920));
    assert_eq!(cost(usage), Usd::from_nanos(86 * 3_000 + 1_920 * 300 + 300 * 15_000));

    let usage = openai_responses(&block("openai_responses_cached"));
    assert_eq!(usage, Usage::new(1_553, 28).cache_read(1_408));
    assert_eq!(cost(usage), Usd::from_nanos(145 * 3_000 + 1_408 * 300 + 28 * 15_000));

    let usage = openai_responses(&block("openai_responses_cache_write"));
    let parts = Usage::new(2_600, 300).cache_read(2_000).cache_write(400);
    assert_eq!(usage, parts);
    assert_eq!(usage.uncached(), Some(200));
}

#[test]
fn openai_counts_reasoning_inside_the_output() {
    let usage = openai_responses(&block("openai_responses_reasoning"));
    assert_eq!(usage, Usage::new(75, 1_186).reasoning(1_024));
    assert_eq!(cost(usage), Usd::from_nanos(75 * 3_000 + 1_186 * 15_000));
}

#[test]
fn anthropic_counts_cached_tokens_beside_the_input() {
    let usage = anthropic(&block("anthropic_cache_write"));
    assert_eq!(usage, Usage::new(337 + 46_209, 342).cache_write(46_209));
    assert_eq!(cost(usage), Usd::from_nanos(337 * 3_000 + 46_209 * 3_750 + 342 * 15_000));

    // Writes for an hour are inside the written ones, and cost more.
    let usage = anthropic(&block("anthropic_cache_1h"));
    assert_eq!((usage.input, usage.uncached()), (4_096, Some(2_048)));
    let written = 148 * 3_750 + 100 * 6_000;
    assert_eq!(cost(usage), Usd::from_nanos(2_048 * 3_000 + 1_800 * 300 + written + 503 * 15_000));
}

#[test]
fn gemini_counts_cached_tokens_inside_the_prompt() {
    let usage = gemini(&block("gemini_cached"));
    let cached = Usage::new(696_219, 214).cache_read(696_190);
    assert_eq!((usage, usage.uncached()), (cached, Some(29)));
}

#[test]
fn gemini_counts_thoughts_beside_the_candidates_and_tool_use_beside_the_prompt() {
    let usage = gemini(&block("gemini_thoughts"));
    assert_eq!(usage, Usage::new(14, 45).reasoning(43));
    let usage = gemini(&block("gemini_tool_use"));
    assert_eq!(usage, Usage::new(5_926, 162).reasoning(112));
    assert_eq!(usage.total(), 6_088);
}

#[test]
fn a_total_may_exceed_input_and_output() {
    // The completion leaves the reasoning out, and the total does not.
    let usage = openai_chat(&block("xai_reasoning_beside"));
    let parts = Usage::new(32, 103).cache_read(6).reasoning(94);
    assert_eq!(usage, parts);
    assert_eq!(cost(usage), Usd::from_nanos(26 * 3_000 + 6 * 300 + 103 * 15_000));
}

#[test]
fn m3_a_block_with_a_total_alone_counts_as_output() {
    assert_eq!(openai_chat(&block("total_alone")), Usage::new(0, 90));
}

#[test]
fn a_total_below_its_parts_changes_nothing() {
    assert_eq!(Usage::new(70, 7).total_at_least(76), Usage::new(70, 7));
    assert_eq!(Usage::new(70, 7).total_at_least(77), Usage::new(70, 7));
    assert_eq!(Usage::new(70, 7).total_at_least(78), Usage::new(70, 8));
    assert_eq!(Usage::new(u64::MAX, 7).total_at_least(u64::MAX), Usage::new(u64::MAX, 7));
    assert_eq!(Usage::new(u64::MAX, 7).total(), u64::MAX);
}

#[test]
fn zero_may_come_as_null() {
    assert_eq!(openai_chat(&block("details_null")), Usage::new(70, 7));
}

#[test]
fn a_count_below_zero_leaves_its_tokens_in_the_input() {
    let said = json!({"input_tokens": 10, "input_tokens_details": {"cached_tokens": -3}});
    assert_eq!(openai_responses(&said), Usage::new(10, 0));
    assert_eq!(
        openai_chat(&json!({"prompt_tokens": -1, "completion_tokens": 7})),
        Usage::new(0, 7)
    );
}

#[test]
fn more_cached_than_the_prompt_is_refused_and_not_clamped() {
    // This prompt counts the uncached tokens alone. A difference taken as zero would lose all five.
    let usage = openai_chat(&block("written_beyond_prompt"));
    let error = PRICE.cost(&usage).unwrap_err();
    assert!(matches!(error, Unpriced::CachedBeyondInput { .. }));
    assert_eq!(error.to_string(), "4735 tokens cached or written in an input of 5");
}

#[test]
fn no_usage_at_all_is_no_tokens() {
    assert_eq!(openai_chat(&json!({"usage": null})), Usage::default());
    assert_eq!(cost(Usage::default()), Usd::ZERO);
}
