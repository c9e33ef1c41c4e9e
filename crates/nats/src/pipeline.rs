use std::collections::VecDeque;
use std::pin::pin;

use async_nats::Subject;
use throughline_core::{Envelope, PublishError, Receipt};

use crate::error;
use crate::sender::{Answer, Sender, Sent, Storing};

/// How many messages of one batch wait for the answer of their stream at a time.
const IN_FLIGHT: usize = 256;

/// Sends a batch one message after the other without waiting for answers in between, and flushes once.
pub(crate) struct Pipeline<'a> {
    sender: &'a Sender,
    results: Vec<Result<Receipt, PublishError>>,
    /// What was sent to streams, with its place in the batch.
    storing: VecDeque<(usize, Storing)>,
    /// What was sent to core NATS.
    taken: Vec<(usize, Subject)>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(sender: &'a Sender, messages: usize) -> Self {
        Self { sender, results: Vec::with_capacity(messages), storing: VecDeque::new(), taken: Vec::new() }
    }

    pub(crate) async fn run(mut self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        for (index, envelope) in messages.into_iter().enumerate() {
            let sent = self.send(envelope).await;
            self.results.push(Ok(Receipt::new()));
            match sent {
                Ok(Sent::Taken(subject)) => self.taken.push((index, subject)),
                Ok(Sent::Storing(storing)) => self.storing.push_back((index, *storing)),
                Err(failed) => self.note(index, Err(failed)),
            }
        }
        while let Some(answer) = next_answer(&mut self.storing).await {
            self.finish(answer).await;
        }
        self.flush().await;
        self.results
    }

    /// Sends one message. Answers are taken meanwhile: the client may have a limit of how many it waits for.
    async fn send(&mut self, envelope: Envelope) -> Result<Sent, PublishError> {
        while self.storing.len() >= IN_FLIGHT
            && let Some(answer) = next_answer(&mut self.storing).await
        {
            self.finish(answer).await;
        }
        let sender = self.sender;
        let mut sending = pin!(sender.start(envelope));
        loop {
            let answer = tokio::select! {
                biased;
                sent = sending.as_mut() => return sent,
                Some(answer) = next_answer(&mut self.storing) => answer,
            };
            self.finish(answer).await;
        }
    }

    /// Takes the answer to the oldest message.
    async fn finish(&mut self, answer: Answer) {
        if let Some((index, storing)) = self.storing.pop_front() {
            let result = self.sender.finish(storing, answer).await;
            self.note(index, result);
        }
    }

    async fn flush(&mut self) {
        let Some((_, any)) = self.taken.first() else { return };
        if self.sender.flush(any).await.is_err() {
            for (index, subject) in std::mem::take(&mut self.taken) {
                self.note(index, Err(error::disconnected(&subject)));
            }
        }
    }

    fn note(&mut self, index: usize, result: Result<Receipt, PublishError>) {
        if let Some(place) = self.results.get_mut(index) {
            *place = result;
        }
    }
}

/// Waits for the answer to the oldest message; `None` when none is waited for. Cancel safe.
async fn next_answer(storing: &mut VecDeque<(usize, Storing)>) -> Option<Answer> {
    let (_, oldest) = storing.front_mut()?;
    Some(oldest.answer.as_mut().await)
}
