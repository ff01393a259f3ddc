//! What another thread does meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Does one thing over and over in another thread for as long as `act` takes, also where that fails.
pub fn beside<R>(mut again: impl FnMut() + Send, act: impl FnOnce() -> R) -> R {
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                again();
            }
        });
        let _end = End(&ended);
        act()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_beside_ends_with_a_failure() {
        let outcome = std::panic::catch_unwind(|| beside(thread::yield_now, || panic!("as planned")));
        assert!(outcome.is_err());
    }
}
