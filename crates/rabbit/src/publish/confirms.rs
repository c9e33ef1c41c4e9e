use std::future::{poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use lapin::ErrorKind;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::fingerprint::Fingerprint;
use super::open::{Answer, Confirmed, Open};
use crate::link::GivenUp;

/// How often it is looked at most whether publishes are confirmed that their callers do not look at, and which have waited for too long.
const LOOK: Duration = Duration::from_millis(250);

/// How often that is within the time that a confirmation may take.
const LOOKS: u32 = 10;

/// The shortest pause between two looks.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);

/// Tells each publish of a channel what the server did with it.
///
/// A confirmation wakes its own caller, and whoever is woken looks at all publishes that have been: there is no task between the client's
/// thread and the caller. One task of the channel sees to those that wait for too long, since a timer for each would cost a lock twice.
pub(super) struct Confirms {
    woken: Arc<Woken>,
    /// How long a caller waits.
    limit: Duration,
    /// Locked while the client takes a message: it counts and writes under two locks, and two tasks at a time would get the confirmations of
    /// each other. The client's own thread never waits for it.
    open: Mutex<Open>,
    /// Whether the channel takes no further message.
    is_left: AtomicBool,
}

impl Confirms {
    pub(super) fn new(room: Arc<Semaphore>, limit: Duration) -> Arc<Self> {
        let woken = Woken { keys: Mutex::default(), rest: AtomicWaker::new(), room };
        Arc::new(Self { woken: Arc::new(woken), limit, open: Mutex::default(), is_left: AtomicBool::new(false) })
    }

    /// Takes no further message, and tells whether it took none before.
    pub(super) fn leave(&self) -> bool {
        self.is_left.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }

    /// Tells whether all that was published is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.look(|open| open.unanswered() == 0)
    }

    /// Looks at the publishes that their callers do not look at, until nobody publishes any more and all is answered.
    pub(super) async fn rest(self: Arc<Self>, given_up: Arc<GivenUp>) {
        let is_over = || Arc::strong_count(&self) == 1;
        let mut look = pin!(poll_fn(|context| {
            self.woken.rest.register(context.waker());
            let unanswered = self.look(|open| open.unanswered());
            if is_over() && unanswered == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let pause = (self.limit / LOOKS).clamp(SHORTEST_LOOK, LOOK);
        while timeout(pause, look.as_mut()).await.is_err() {
            // None where nothing can have waited for so long.
            if let Some(time) = Instant::now().checked_sub(self.limit) {
                let late = self.look(|open| open.begun_before(time));
                late.into_iter().for_each(Waker::wake);
            }
            if let Some(why) = given_up.why() {
                let given_up = io::Error::new(io::ErrorKind::TimedOut, why);
                self.look(|open| open.give_up(&ErrorKind::IOError(Arc::new(given_up)).into()));
            }
        }
    }

    /// Answers all that are confirmed. Then does what needs the publishes.
    fn look<T>(&self, then: impl FnOnce(&mut Open) -> T) -> T {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let before = open.unanswered();
        let mut keys = std::mem::take(&mut open.keys);
        // At the end all is looked at that was confirmed before any of these: the client wakes one before it confirms the next.
        while self.woken.take(&mut keys) {
            keys.drain(..).for_each(|key| open.look(key));
        }
        open.keys = keys;
        open.answer_confirmed();
        let done = then(&mut open);
        let (answered, released) = (before - open.unanswered(), open.released());
        drop(open);
        // Others run now: nothing is locked.
        if answered > 0 {
            self.woken.room.add_permits(answered);
        }
        released.into_iter().for_each(Waker::wake);
        done
    }

    /// Publishes a message, which the client takes with the first poll. Its room comes back with the answer.
    pub(super) fn publish(self: &Arc<Self>, mut confirmed: Confirmed, print: Fingerprint, mandatory: bool) -> Answered {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = open.next_key();
        let is_noted = AtomicBool::new(false);
        let one = Arc::new(One { key, is_noted, caller: AtomicWaker::new(), woken: Arc::clone(&self.woken) });
        let waker = Waker::from(Arc::clone(&one));
        if let Poll::Ready(result) = confirmed.as_mut().poll(&mut Context::from_waker(&waker)) {
            // Seldom: it was answered at once, or the channel ended right now.
            confirmed = Box::pin(ready(result));
            one.wake_by_ref();
        }
        let (begun, answered_before) = (Instant::now(), open.answered());
        open.note(print, mandatory, confirmed, waker, begun);
        drop(open);
        Answered { confirms: Arc::clone(self), one, begun, answered_before, is_done: false }
    }
}

impl Drop for Confirms {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.woken.room.add_permits(open.unanswered());
    }
}

/// The answer to a publish, where it comes in time. Where this is dropped before it has come, the publish keeps its room until it is
/// confirmed.
pub(super) struct Answered {
    confirms: Arc<Confirms>,
    one: Arc<One>,
    begun: Instant,
    answered_before: u64,
    is_done: bool,
}

/// That the answer has not come in time.
pub(super) struct Late {
    /// Whether no answer to any publish of the channel has come since.
    pub(super) is_silent: bool,
}

impl Future for Answered {
    type Output = Result<Answer, Late>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Answer, Late>> {
        self.one.caller.register(context.waker());
        // Where nothing has happened to it, the answer is not there either; whoever publishes polls once before anything can.
        if !self.one.is_noted.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let (answer, answered) = self.confirms.look(|open| (open.take(self.one.key), open.answered()));
        if let Some(answer) = answer {
            self.is_done = true;
            return Poll::Ready(Ok(answer));
        }
        if self.begun.elapsed() < self.confirms.limit {
            return Poll::Pending;
        }
        Poll::Ready(Err(Late { is_silent: answered == self.answered_before }))
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if !self.is_done {
            drop(self.one.caller.take());
            self.confirms.look(|open| open.leave(self.one.key));
        }
    }
}

/// Wakes who waits for one publish.
struct One {
    key: usize,
    /// Whether it was woken since its caller looked.
    is_noted: AtomicBool,
    caller: AtomicWaker,
    woken: Arc<Woken>,
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// The client's thread comes here under its own locks, so nothing is looked at yet.
    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.note(self.key);
        self.is_noted.store(true, Ordering::Release);
        let caller = self.caller.take();
        let has_no_caller = caller.is_none();
        caller.into_iter().for_each(Waker::wake);
        // Others wait for the room of those whose callers do not look.
        if has_no_caller || self.woken.room.available_permits() == 0 {
            self.woken.rest.wake();
        }
    }
}

/// The publishes that are to be looked at.
struct Woken {
    keys: Mutex<Vec<usize>>,
    /// Looks at those that nobody waits for.
    rest: AtomicWaker,
    /// For publishes that are not confirmed.
    room: Arc<Semaphore>,
}

impl Woken {
    fn keys(&self) -> MutexGuard<'_, Vec<usize>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: usize) {
        self.keys().push(key);
    }

    /// Exchanges them for an empty list, and tells whether there were any.
    fn take(&self, empty: &mut Vec<usize>) -> bool {
        std::mem::swap(&mut *self.keys(), empty);
        !empty.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use futures_util::FutureExt as _;
    use lapin::message::BasicReturnMessage;
    use lapin::{BasicProperties, Confirmation};

    use super::*;
    use crate::testing::arrived;

    /// What the client resolves and wakes, one after the other.
    #[derive(Clone, Default)]
    struct Promise(Arc<Mutex<(Option<Confirmation>, Option<Waker>)>>);

    impl Promise {
        fn resolve(&self, confirmation: Confirmation) {
            self.0.lock().unwrap().0 = Some(confirmation);
        }

        fn wake(&self) {
            let waker = self.0.lock().unwrap().1.take();
            waker.expect("it was polled").wake();
        }

        fn confirmed(&self) -> Confirmed {
            let state = Arc::clone(&self.0);
            Box::pin(poll_fn(move |context| {
                let mut state = state.lock().unwrap();
                state.1 = Some(context.waker().clone());
                state.0.take().map_or(Poll::Pending, |confirmation| Poll::Ready(Ok(confirmation)))
            }))
        }
    }

    fn publish(confirms: &Arc<Confirms>, place: &str) -> (Promise, impl Future<Output = Result<Answer, Late>> + Unpin) {
        let (promise, properties) = (Promise::default(), BasicProperties::default());
        let print = Fingerprint::new("", place, &properties, b"{}");
        let answered = confirms.publish(promise.confirmed(), print, true);
        (promise, answered)
    }

    #[test]
    fn what_was_confirmed_before_is_looked_at_also_where_it_was_woken_later() {
        let confirms = Confirms::new(Arc::new(Semaphore::new(2)), Duration::from_secs(9));
        let ((other, mut of_other), (missing, mut of_missing)) =
            (publish(&confirms, "queue"), publish(&confirms, "missing"));
        // The client has written the second one. It hands its return to the first one, and is about to wake who waits for the second.
        missing.wake();
        let delivery = arrived("", "missing", BasicProperties::default());
        let returned = BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() };
        other.resolve(Confirmation::Ack(Some(returned)));
        other.wake();
        missing.resolve(Confirmation::Ack(None));
        assert!(matches!((&mut of_missing).now_or_never(), Some(Ok(Answer::Returned { code: 312, .. }))));
        assert!(matches!((&mut of_other).now_or_never(), Some(Ok(Answer::Stored))));
    }
}
