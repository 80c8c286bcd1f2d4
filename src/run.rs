//! A future that ends with its pool.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::handle::Sleep;
use crate::pool::BudgetPool;
use crate::types::error::BudgetError;

/// Drives a future until it is done, its pool is closed, or the deadline of its pool passes.
pub(crate) async fn run<F: Future>(pool: BudgetPool, future: F) -> Result<F::Output, BudgetError> {
    let is_open = || pool.handle().ask(|engine, at, now| engine.open(at, now));
    is_open()?;
    // The output has its owner here before the future is dropped: should that panic, the compiler
    // would forget the value of an `await`, and with it a hold.
    let mut outcome = None;
    {
        let (mut future, mut closed) = (pin!(future), pin!(pool.closed()));
        let mut end = End { pool: &pool, sleep: None };
        let mut drive = |context: &mut Context<'_>| {
            // The future first, as a timeout does: what is done is done.
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            if closed.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(is_open().expect_err("it was closed")));
            }
            end.poll(context).map(Err)
        };
        poll_fn(|context| drive(context).map(|ended| outcome = Some(ended))).await;
    }
    outcome.expect("it was driven to its end")
}

/// The deadline of a pool, and a sleep towards it.
struct End<'a> {
    pool: &'a BudgetPool,
    sleep: Option<Sleep>,
}

impl End<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<BudgetError> {
        let handle = self.pool.handle();
        let Some(deadline) = handle.bounded().and_then(|budget| budget.deadline()) else {
            return Poll::Pending;
        };
        if let Err(late) = handle.ask(|engine, at, now| engine.open(at, now)) {
            return Poll::Ready(late);
        }
        if !handle.has_timer() {
            let refusal = BudgetError::NoTimer { pool: handle.name().clone() };
            return Poll::Ready(handle.refused(refusal));
        }
        let sleep = self.sleep.get_or_insert_with(|| sleep_until(self.pool, deadline));
        if sleep.as_mut().poll(context).is_ready() {
            // It is early by the pool's clock, or the deadline has just come: look again.
            self.sleep = None;
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

fn sleep_until(pool: &BudgetPool, deadline: Instant) -> Sleep {
    pool.handle().sleep(deadline).expect("it has a timer")
}
