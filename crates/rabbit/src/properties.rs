use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use throughline_core::broker::PublishErrorKind;
use throughline_core::propagation::is_propagation_header;
use throughline_core::{Envelope, PublishError};

use crate::carrier::{is_error_reply, is_of_server, is_route};
use crate::error::OTHER;
use crate::names::{LONGEST, TooLong, short};

/// How long a message may last at most before it expires: the server takes milliseconds of 32 bits.
const LONGEST_EXPIRATION: u64 = u32::MAX as u64;

const TRANSIENT: u8 = 1;
pub(crate) const PERSISTENT: u8 = 2;

/// The header under which core has the content type, for which AMQP has a property.
pub(crate) const CONTENT_TYPE: &str = "content-type";

/// The properties of a message that other brokers do not have: priority, expiration, type and so on, and headers of every type.
///
/// A publisher attaches them to a message. A handler takes those of the message that arrived as an argument. Ids, content type and reply
/// address are the envelope's and not read from here. A text of more than 255 bytes, a number that is not finite and an expiration of more
/// than 49 days fail the publish before anything is sent.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::{PublishError, Publisher};
/// use throughline_rabbit::Properties;
///
/// async fn checkout(publisher: &Publisher) -> Result<(), PublishError> {
///     let properties = Properties::new().with_priority(5).with_expiration(Duration::from_secs(60)).with_kind("order.placed");
///     publisher.publish("orders", "{}").native(properties).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    native: BasicProperties,
    wrong: Option<TooLong>,
}

impl Properties {
    /// Creates properties that set nothing: a message is then persistent, and has neither priority nor expiration.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) const fn of(native: BasicProperties) -> Self {
        Self { native, wrong: None }
    }

    /// Sets the priority. A queue without `max_priority` does not read it.
    #[must_use]
    pub fn with_priority(mut self, priority: u8) -> Self {
        self.native = self.native.with_priority(priority);
        self
    }

    /// Sets after which time in a queue the message expires, in milliseconds, rounded up; zero expires it unless a consumer takes it at once.
    ///
    /// A classic queue drops it only when it comes to the queue's head.
    #[must_use]
    pub fn with_expiration(self, after: Duration) -> Self {
        let millis = after.as_nanos().div_ceil(1_000_000);
        self.set("expiration", &millis.to_string(), BasicProperties::with_expiration)
    }

    /// Sets the type of the message, the property `type`.
    #[must_use]
    pub fn with_kind(self, kind: &str) -> Self {
        self.set("type", kind, BasicProperties::with_type)
    }

    /// Sets the name of the application that publishes.
    #[must_use]
    pub fn with_app_id(self, app_id: &str) -> Self {
        self.set("app id", app_id, BasicProperties::with_app_id)
    }

    /// Sets the name of the user that publishes. The server refuses any other than that of the connection.
    #[must_use]
    pub fn with_user_id(self, user_id: &str) -> Self {
        self.set("user id", user_id, BasicProperties::with_user_id)
    }

    /// Sets when the message was made, to the second. A time before 1970 counts as 1970.
    #[must_use]
    pub fn with_timestamp(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.native = self.native.with_timestamp(since.as_secs());
        self
    }

    /// Sets how the body is encoded, such as `gzip`.
    #[must_use]
    pub fn with_content_encoding(self, encoding: &str) -> Self {
        self.set("content encoding", encoding, BasicProperties::with_content_encoding)
    }

    /// Lets the server keep the message in memory alone; it is lost when the server stops. The default is on disk, where the queue is durable.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.native = self.native.with_delivery_mode(TRANSIENT);
        self
    }

    /// Sets a header of any type, in place of one of that name in the envelope. `CC` and `BCC`, which name further routing keys, are set here
    /// alone, as arrays of long strings.
    ///
    /// A short string is sent as a long one, since no server reads it in a table. Headers of propagation formats and those that the server
    /// writes, such as `x-death`, are left out.
    ///
    /// # Examples
    ///
    /// ```
    /// use lapin::types::AMQPValue;
    /// use throughline_rabbit::Properties;
    /// let properties = Properties::new().with_header("retries", AMQPValue::LongInt(3));
    /// assert_eq!(properties.header("retries"), Some(&AMQPValue::LongInt(3)));
    /// ```
    #[must_use]
    pub fn with_header(mut self, name: &str, value: AMQPValue) -> Self {
        match short("name of a header", name) {
            Ok(name) => {
                let mut headers = self.native.headers().clone().unwrap_or_default();
                headers.insert(name, value);
                self.native = self.native.with_headers(headers);
            }
            Err(wrong) => self.fail(wrong),
        }
        self
    }

    fn set(
        mut self,
        what: &'static str,
        text: &str,
        with: impl FnOnce(BasicProperties, ShortString) -> BasicProperties,
    ) -> Self {
        match short(what, text) {
            Ok(text) => self.native = with(self.native, text),
            Err(wrong) => self.fail(wrong),
        }
        self
    }

    fn fail(&mut self, wrong: TooLong) {
        self.wrong.get_or_insert(wrong);
    }

    /// Returns the priority.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        *self.native.priority()
    }

    /// Returns after which time the message expires; `None` where it does not, or what is there is no number.
    #[must_use]
    pub fn expiration(&self) -> Option<Duration> {
        millis(self.native.expiration().as_ref()?.as_str())
    }

    /// Returns the type of the message.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.native.kind().as_ref().map(ShortString::as_str)
    }

    /// Returns the name of the application that published.
    #[must_use]
    pub fn app_id(&self) -> Option<&str> {
        self.native.app_id().as_ref().map(ShortString::as_str)
    }

    /// Returns the name of the user that published, which the server has checked.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.native.user_id().as_ref().map(ShortString::as_str)
    }

    /// Returns when the message was made; `None` also where the time is beyond what can be represented.
    #[must_use]
    pub fn timestamp(&self) -> Option<SystemTime> {
        self.native.timestamp().and_then(time)
    }

    /// Returns how the body is encoded.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&str> {
        self.native.content_encoding().as_ref().map(ShortString::as_str)
    }

    /// Tells whether the server keeps the message in memory alone. Of a message that arrived without a delivery mode that is so.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.native.delivery_mode().is_some_and(|mode| mode != PERSISTENT)
    }

    /// Returns a header with its type, by its exact name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.native.headers().as_ref()?.inner().get(name)
    }

    /// Returns the properties as the client has them.
    #[must_use]
    pub const fn native(&self) -> &BasicProperties {
        &self.native
    }

    /// Returns what a forward of a message with these properties keeps beside its headers: not how long it may wait, which has passed in part,
    /// and not who sent it, since the server takes no foreign user.
    pub(crate) fn forwarded(arrived: &BasicProperties) -> Self {
        const KEPT: [Text; 4] = [
            (BasicProperties::content_encoding, BasicProperties::with_content_encoding),
            (BasicProperties::kind, BasicProperties::with_type),
            (BasicProperties::app_id, BasicProperties::with_app_id),
            (BasicProperties::cluster_id, BasicProperties::with_cluster_id),
        ];
        Self::of(copied(arrived, &KEPT))
    }

    /// Returns the properties for a publish, with all but the headers as they were set.
    pub(crate) fn to_sent(&self) -> Result<BasicProperties, PublishError> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone().into());
        }
        let mut sent = Self::forwarded(&self.native).native;
        if let Some(expiration) = self.native.expiration() {
            if millis(expiration.as_str()).is_none() {
                return Err(no_expiration());
            }
            sent = sent.with_expiration(expiration.clone());
        }
        if let Some(user) = self.native.user_id() {
            sent = sent.with_user_id(user.clone());
        }
        Ok(sent.with_delivery_mode(if self.is_transient() { TRANSIENT } else { PERSISTENT }))
    }

    /// Adds the headers that may be sent.
    pub(crate) fn add_headers(&self, table: &mut FieldTable, envelope: &Envelope) -> Result<(), PublishError> {
        for (name, value) in self.native.headers().iter().flatten() {
            let key = name.as_str();
            let is_sent = !is_of_server(key)
                && !is_propagation_header(key)
                && (envelope.is_error_reply() || !is_error_reply(key));
            if !is_sent {
                continue;
            }
            if is_route(key) && !is_list_of_keys(value) {
                return Err(refused(key, "it names further routing keys, so it has to be an array of long strings"));
            }
            let value = sendable(value).map_err(|why| refused(key, why))?;
            table.insert(name.clone(), value);
        }
        Ok(())
    }
}

/// A property that is a text: how it is read and set.
pub(crate) type Text =
    (fn(&BasicProperties) -> &Option<ShortString>, fn(BasicProperties, ShortString) -> BasicProperties);

/// Returns properties with the priority, the time and these texts of others: those of the client can be set and not taken away.
pub(crate) fn copied(from: &BasicProperties, texts: &[Text]) -> BasicProperties {
    let mut copy = BasicProperties::default();
    if let Some(priority) = *from.priority() {
        copy = copy.with_priority(priority);
    }
    if let Some(time) = *from.timestamp() {
        copy = copy.with_timestamp(time);
    }
    for (get, with) in texts {
        if let Some(text) = get(from) {
            copy = with(copy, text.clone());
        }
    }
    copy
}

/// Returns a time of the protocol, in seconds since 1970; `None` where it is beyond what can be represented.
pub(crate) fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Reads an expiration.
pub(crate) fn millis(text: &str) -> Option<Duration> {
    let millis = text.parse().ok().filter(|millis| *millis <= LONGEST_EXPIRATION && !text.starts_with('+'))?;
    Some(Duration::from_millis(millis))
}

/// Returns a value as a server takes it.
// PROP-R-02.
pub(crate) fn sendable(value: &AMQPValue) -> Result<AMQPValue, &'static str> {
    const NOT_FINITE: &str = "the server closes the connection on a number that is not finite";
    match value {
        AMQPValue::ShortString(text) => Ok(AMQPValue::LongString(text.as_str().into())),
        AMQPValue::Float(number) if !number.is_finite() => Err(NOT_FINITE),
        AMQPValue::Double(number) if !number.is_finite() => Err(NOT_FINITE),
        AMQPValue::FieldArray(values) => {
            let values: Result<Vec<_>, _> = values.as_slice().iter().map(sendable).collect();
            Ok(AMQPValue::FieldArray(FieldArray::from(values?)))
        }
        AMQPValue::FieldTable(table) => {
            let mut copy = FieldTable::default();
            for (name, value) in table {
                // Made by other ways than the client's own it may be longer.
                if name.as_str().len() > LONGEST {
                    return Err("a name in its table has more than 255 bytes");
                }
                copy.insert(name.clone(), sendable(value)?);
            }
            Ok(AMQPValue::FieldTable(copy))
        }
        other => Ok(other.clone()),
    }
}

fn is_list_of_keys(value: &AMQPValue) -> bool {
    let AMQPValue::FieldArray(keys) = value else { return false };
    keys.as_slice().iter().all(|key| matches!(key, AMQPValue::LongString(key) if key.len() <= LONGEST))
}

fn refused(header: &str, why: &str) -> PublishError {
    let message = format!("the header `{}` cannot be sent: {why}", header.escape_debug());
    PublishError::new(PublishErrorKind::Encode, OTHER, message)
}

fn no_expiration() -> PublishError {
    let message = format!(
        "the expiration is a number of milliseconds, of which the server takes {LONGEST_EXPIRATION} (49 days) at most"
    );
    PublishError::new(PublishErrorKind::Encode, OTHER, message)
}
