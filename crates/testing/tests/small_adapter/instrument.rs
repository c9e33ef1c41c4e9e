use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use throughline_core::Settlement;
use throughline_core::broker::Subscription;
use throughline_core::message::{CreationContext, Native, OperationType, Source, Target};
use throughline_core::raw::{self, ClientSettings, Door, Handle, RawMessage, ReadMessage};
use throughline_core::telemetry::{
    Builder, Consumer, Instrumentation as Engine, Outgoing, ParentMode, Producer, Sending,
};

use crate::carrier::{ClientHeaders, HeaderExtractor, HeaderInjector};
use crate::client::{Client, Error, Mailbox, Message};
use crate::delivery::{CORRELATION_ID, MESSAGE_ID, number};
use crate::subscription::Subject;
use crate::{error, semconv};

/// Telemetry for a service that keeps its own client. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Instrumentation {
    handle: Handle<Settings>,
}

/// What a user may say about this client, beside what all clients have.
#[derive(Clone, Debug, Default)]
struct Settings {
    subject: Option<Subject>,
}

/// What is prepared from the settings.
pub struct RawClient {
    consumer: Consumer,
    producer: Producer,
}

impl raw::Settings for Settings {
    type Prepared = RawClient;

    fn prepare(&self, engine: &Engine, client: &ClientSettings) -> RawClient {
        let system = semconv::system(client.server());
        let source = match &self.subject {
            Some(subject) => semconv::source(&system, &Subscription::from(subject.clone())),
            // Nothing is known, so no name of a message is known to be one of a few.
            None => Source::new(Arc::clone(&system)).with_patterns([]),
        };
        RawClient { consumer: client.consumer(engine, source), producer: engine.producer(system) }
    }
}

impl ReadMessage<Message> for RawClient {
    type Headers = ClientHeaders;
    type Native = RawNumber;

    fn consumer(&self, _message: Option<&Message>) -> Cow<'_, Consumer> {
        Cow::Borrowed(&self.consumer)
    }

    fn read<'a>(&self, message: &'a Message) -> RawMessage<'a, ClientHeaders, RawNumber> {
        let mut read = RawMessage::new(&message.subject, &message.headers);
        read.id = read.header(MESSAGE_ID).map(Cow::Borrowed);
        read.correlation_id = read.header(CORRELATION_ID).map(Cow::Borrowed);
        read.reply_to = message.reply.as_deref();
        read.body_size = message.payload.len();
        read.attempt = message.returned.saturating_add(1);
        read.native = Some(RawNumber(number(message)));
        read
    }
}

/// What only this broker knows of a message.
pub struct RawNumber(KeyValue);

impl Native for RawNumber {
    fn attributes(&self, _operation: OperationType, attributes: &mut Vec<KeyValue>) {
        attributes.push(self.0.clone());
    }
}

impl Instrumentation {
    /// Starts with settings and providers of one's own.
    #[must_use]
    pub fn builder() -> Builder<Self> {
        Builder::for_target()
    }

    /// Takes the server's address from the client.
    #[must_use]
    pub fn with_client(self, client: &Client) -> Self {
        let (host, port) = client.address();
        self.changed(|said, _| said.server = Some((host.into(), port)))
    }

    /// Says what is subscribed to.
    #[must_use]
    pub fn subscription(self, subject: Subject) -> Self {
        self.changed(|_, settings| settings.subject = Some(subject))
    }

    /// Sets what the parent of a process span is.
    #[must_use]
    pub fn with_parent_mode(self, mode: ParentMode) -> Self {
        self.changed(|client, _| client.parent = Some(mode))
    }

    /// Returns a handle that publishes with another creation context.
    #[must_use]
    pub fn with_creation_context(&self, creation: CreationContext) -> Self {
        Self { handle: self.handle.with_creation_context(creation) }
    }

    fn changed(self, change: impl FnOnce(&mut ClientSettings, &mut Settings)) -> Self {
        Self { handle: self.handle.changed(change) }
    }
}

impl Deref for Instrumentation {
    type Target = Door<RawClient>;

    fn deref(&self) -> &Door<RawClient> {
        self.handle.door()
    }
}

impl From<Engine> for Instrumentation {
    fn from(engine: Engine) -> Self {
        Self { handle: Handle::new(engine) }
    }
}

/// The client's own calls, with telemetry around them.
impl Instrumentation {
    /// Publishes a message.
    pub fn publish(&self, client: &Client, mut message: Message) -> Result<u64, Error> {
        let subject = message.subject.clone();
        let sending = self.start_send(&mut message, Producer::send);
        told(sending, client.publish(message), &subject)
    }

    /// Publishes a request and waits for the answer.
    pub async fn request(&self, client: &Client, mut message: Message, limit: Duration) -> Result<Message, Error> {
        let subject = message.subject.clone();
        let sending = self.start_send(&mut message, Producer::request);
        told(sending, client.request(message, limit).await, &subject)
    }

    /// Waits for a message.
    pub async fn next(&self, mailbox: &mut Mailbox) -> Option<Message> {
        let receiving = self.reader().consumer.receive();
        let message = mailbox.next().await?;
        receiving.finish(&self.reader().read(&message).incoming());
        Some(message)
    }

    /// Acknowledges a message.
    pub fn ack(&self, message: &Message) -> Result<(), Error> {
        self.settle(message, &Settlement::Ack, Message::ack)
    }

    /// Asks for a message again.
    pub fn again(&self, message: &Message, after: Duration) -> Result<(), Error> {
        self.settle(message, &Settlement::retry_after(after), |message| message.again(after))
    }

    /// Gives a message up.
    pub fn discard(&self, message: &Message) -> Result<(), Error> {
        self.settle(message, &Settlement::reject("discarded"), Message::discard)
    }

    /// Starts the span of a publish or a request, and writes its context into the message.
    fn start_send(
        &self,
        message: &mut Message,
        verb: impl FnOnce(&Producer, &Target<'_>, Outgoing<'_>) -> Sending,
    ) -> Sending {
        let headers = HeaderExtractor::new(&message.headers);
        let id = headers.find(MESSAGE_ID).map(str::to_owned);
        let correlation_id = headers.find(CORRELATION_ID).map(str::to_owned);
        let mut headers = HeaderInjector::new(&mut message.headers);
        let outgoing = Outgoing::new(&mut headers)
            .with_id(id.as_deref())
            .with_correlation_id(correlation_id.as_deref())
            .with_body_size(message.payload.len())
            .with_creation(self.handle.creation().clone());
        verb(&self.reader().producer, &semconv::target(&message.subject, None), outgoing)
    }

    fn settle(
        &self,
        message: &Message,
        settlement: &Settlement,
        tell: impl FnOnce(&Message) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let settling = self.reader().consumer.settle(settlement, &Context::current());
        let result = tell(message);
        let failed = result.as_ref().err().map(|failed| error::settle(*failed));
        settling.finish(&[self.reader().read(message).incoming()], failed.as_ref());
        result
    }
}

/// Ends the span with what came of the call.
fn told<T>(sending: Sending, result: Result<T, Error>, subject: &str) -> Result<T, Error> {
    let failed = result.as_ref().err().map(|failed| error::publish(*failed, subject));
    sending.finish(Vec::new(), failed.as_ref());
    result
}
