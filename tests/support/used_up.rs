//! A task that has used up its cooperative budget as it begins to wait, and is busy then.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// Uses so many units of the budget, polls the wait once, and does not come back for so long.
pub async fn polls_used_up<F: Future>(wait: F, spent: u32, busy: Duration) {
    let mut wait = pin!(wait);
    for _ in 0..spent {
        tokio::task::coop::consume_budget().await;
    }
    tokio::select! { biased;
        _ = &mut wait => {}
        () = std::future::ready(()) => tokio::time::sleep(busy).await,
    }
}
