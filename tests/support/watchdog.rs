//! What waits for a lock that it holds itself waits for ever: a test that fails instead.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// It ends, in a thread of its own. Its panic is the caller's.
#[track_caller]
pub fn ends<T: Send + 'static>(case: &str, story: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(done.send(story())));
    match is_done.recv_timeout(Duration::from_secs(60)) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => panic!("{case}: it hangs"),
        Err(RecvTimeoutError::Disconnected) => {
            resume_unwind(thread.join().expect_err("what ends without a word panicked"))
        }
    }
}
