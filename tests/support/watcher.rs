//! A future that is polled by hand, and counts its wakes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::waiter::Wakes;

pub struct Watcher<F> {
    future: F,
    wakes: Arc<Wakes>,
}

impl<F: Future + Unpin> Watcher<F> {
    pub fn new(future: F) -> Watcher<F> {
        Watcher { future, wakes: Arc::default() }
    }

    /// One that waits.
    #[track_caller]
    pub fn waiting(future: F) -> Watcher<F> {
        let mut watcher = Watcher::new(future);
        assert!(watcher.poll().is_pending(), "it is there already");
        watcher
    }

    pub fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }

    /// What it was told, and was woken for.
    #[track_caller]
    pub fn told(&mut self) -> F::Output {
        assert_eq!(self.wakes(), 1, "it was woken once");
        match self.poll() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it still waits"),
        }
    }

    /// Waits, and was not woken.
    #[track_caller]
    pub fn still_waits(&mut self) {
        assert_eq!(self.wakes(), 0, "it was woken");
        assert!(self.poll().is_pending(), "it was not woken for what it is told");
    }

    pub fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}
