//! All that an agent program has to do about its budget. This is the part to take home.

use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::{HttpRequestFactory, ReqwestService};
use async_openai::types::chat::CreateChatCompletionRequest;
use budget_pool::{Axis, BudgetPool, Level, Observer, Reached, Reservation, Usd, Wait, Window};
use budget_pool_llm::{Chunk, Metered};
use futures::TryStreamExt;
use tower::{ServiceExt, service_fn};

use crate::MODELS;

/// What the provider allows, whoever asks: 400 requests a second, 40 of them at once. Below it stands
/// the money of the run, and below that a share for each agent, more than an equal one.
pub fn pools(
    money: Usd,
    agents: u64,
    observer: impl Observer + Send + Sync + 'static,
) -> (BudgetPool, BudgetPool, Vec<BudgetPool>) {
    let window = Window::token_bucket(Duration::from_secs(1));
    let provider = BudgetPool::builder().name("provider").requests(400).window(window);
    let provider = provider.in_flight(40).tokio().observer(observer).build();
    let run = provider.child().name("run").usd(money).build();
    let share = Usd::from_nanos(money.as_nanos() / agents * 11 / 10);
    let agent = |number| run.child().name(format!("agent-{number}")).usd(share).build();
    let agents = (0..agents).map(agent).collect();
    (provider, run, agents)
}

/// Resolves when four fifths of the money are spent.
pub fn alert(run: &BudgetPool) -> Reached {
    run.reached(Level::percent(Axis::Usd, 80).settled())
}

/// A client that pauses the provider's pool for as long as a 429 says, for all agents at once.
pub fn client(config: OpenAIConfig, provider: BudgetPool) -> Client<OpenAIConfig> {
    let http = ReqwestService::default();
    Client::with_config(config).with_http_service(service_fn(move |request: HttpRequestFactory| {
        let (http, provider) = (http.clone(), provider.clone());
        async move {
            let response = http.oneshot(request).await?;
            let after = response.headers().get("retry-after").and_then(|after| after.to_str().ok());
            if let Some(seconds) = after.and_then(|seconds| seconds.parse().ok()) {
                provider.pause(Duration::from_secs(seconds));
            }
            Ok::<_, OpenAIError>(response)
        }
    }))
}

/// A hold for a call, in line with all others: on the dear model if there is the money, else on the
/// cheap one. `input` is at least what the provider will count.
pub fn hold(agent: &BudgetPool, [input, output]: [u64; 2], label: &str) -> Wait {
    let [large, small] = MODELS.each_ref().map(|(_, price)| price.ask(input, output));
    agent.reserve_wait(large.or(small.amount()).label(label))
}

/// One call. However it ends, and if its future is dropped, its hold is settled: by the usage block,
/// or whole where none came. Where the provider answers with an error, the hold is released.
pub async fn call(
    client: &Client<OpenAIConfig>,
    hold: Reservation,
    mut request: CreateChatCompletionRequest,
) -> Result<String, OpenAIError> {
    let (model, price) = &MODELS[hold.choice()];
    request.model = (*model).to_owned();
    let chunks = match client.chat().create_stream(request).await {
        Err(error @ OpenAIError::ApiError(_)) => {
            hold.release();
            return Err(error);
        }
        chunks => chunks?,
    };
    let metered = Metered::new(chunks, hold, price, |chunk| {
        let usage = chunk.as_ref().ok().and_then(|chunk| chunk.usage.as_ref());
        usage.map_or(Chunk::Nothing, |said| Chunk::Usage(said.into()))
    });
    let text = metered.try_fold(String::new(), async |text, chunk| {
        let said = chunk.choices.into_iter().find_map(|choice| choice.delta.content);
        Ok(text + &said.unwrap_or_default())
    });
    text.await
}
