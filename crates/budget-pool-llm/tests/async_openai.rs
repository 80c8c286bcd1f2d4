//! The usage blocks of async-openai, as its own types read them.

#![cfg(feature = "async-openai")]

use std::fs;

use async_openai::types::chat::{CompletionUsage, CreateChatCompletionStreamResponse};
use async_openai::types::responses::ResponseUsage;
use budget_pool_llm::Usage;
use serde_json::{Value, json};

fn block(name: &str) -> Value {
    let path = format!("{}/tests/data/usage/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn chat(said: Value) -> Usage {
    Usage::from(&serde_json::from_value::<CompletionUsage>(said).unwrap())
}

fn response(said: Value) -> Usage {
    Usage::from(&serde_json::from_value::<ResponseUsage>(said).unwrap())
}

#[test]
fn cached_tokens_are_inside_the_prompt_and_reasoning_inside_the_output() {
    let cached = Usage::new(2_006, 300).cache_read(1_920);
    assert_eq!(chat(block("openai_chat_cached")), cached);
    let cached = Usage::new(1_553, 28).cache_read(1_408);
    assert_eq!(response(block("openai_responses_cached")), cached);
    let written = Usage::new(2_600, 300).cache_read(2_000).cache_write(400);
    assert_eq!(response(block("openai_responses_cache_write")), written);
    let reasoning = Usage::new(75, 1_186).reasoning(1_024);
    assert_eq!(response(block("openai_responses_reasoning")), reasoning);
}

#[test]
fn a_total_that_exceeds_both_is_output() {
    let usage = chat(block("xai_reasoning_beside"));
    assert_eq!(usage, Usage::new(32, 103).cache_read(6).reasoning(94));
    let said = json!({
        "input_tokens": 70, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 90,
    });
    assert_eq!(response(said), Usage::new(70, 20));
}

#[test]
fn audio_counts_as_text() {
    let said = json!({
        "prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 900},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 400},
    });
    assert_eq!(chat(said), Usage::new(1_000, 500));
}

#[test]
fn details_may_be_absent_or_below_zero() {
    assert_eq!(chat(block("details_null")), Usage::new(70, 7));
    let said = json!({
        "prompt_tokens": 70, "completion_tokens": 7, "total_tokens": 77,
        "prompt_tokens_details": {"cached_tokens": null, "cache_write_tokens": -5},
    });
    assert_eq!(chat(said), Usage::new(70, 7));
}

#[test]
fn a_chunk_of_a_stream_may_have_no_usage() {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt",
        "choices": [], "usage": null,
    });
    let chunk: CreateChatCompletionStreamResponse = serde_json::from_value(chunk).unwrap();
    assert!(chunk.usage.is_none());
}

#[test]
fn absurd_blocks_of_the_wire_are_refused_by_the_client_or_kept_as_they_came() {
    // A count that is negative as an `i32`: the client has no chunk of it, but an error.
    for said in [
        json!({"prompt_tokens": -1, "completion_tokens": 7, "total_tokens": 6}),
        json!({"prompt_tokens": i32::MIN, "completion_tokens": 7, "total_tokens": 7}),
        json!({"prompt_tokens": 70, "completion_tokens": 7}),
        json!({"prompt_tokens": 70.5, "completion_tokens": 7, "total_tokens": 77}),
    ] {
        assert!(serde_json::from_value::<CompletionUsage>(said.clone()).is_err(), "{said}");
    }
    // More than an `i32` holds, a total below its parts, more cached than the prompt.
    let most = u64::from(u32::MAX);
    let said = json!({"prompt_tokens": most, "completion_tokens": most, "total_tokens": 5});
    assert_eq!(chat(said), Usage::new(most, most));
    let said = json!({
        "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 9},
    });
    assert_eq!(chat(said), Usage::new(5, 7).cache_read(9));
}
