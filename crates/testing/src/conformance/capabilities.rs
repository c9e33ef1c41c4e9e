/// What a broker can do, so that the suite asks nothing of it that it cannot and everything that it can.
///
/// Every field is to be decided by the author of an adapter; a new field is a decision every adapter has to make.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::Capabilities;
///
/// // A broker that forgets: what nobody takes in time is gone.
/// let at_most_once = Capabilities { durable: false, redelivery: false, settlement: false, ..Capabilities::all(1 << 20) };
/// assert!(!at_most_once.redelivery);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capabilities {
    /// A subscription with a group keeps its place when it closes: what was not settled and what came since is there for the next.
    pub durable: bool,
    /// A header without a value arrives as such.
    pub empty_header_values: bool,
    /// Subscriptions without a group each get every message.
    pub fan_out: bool,
    /// Subscriptions of one group share the messages.
    pub groups: bool,
    /// The largest body, in bytes, that the broker takes together with a few headers.
    pub max_body: usize,
    /// Messages of one publisher arrive in the order of their publishing.
    pub ordering: bool,
    /// What is published before anyone subscribes is kept.
    pub persistence: bool,
    /// The broker itself delivers again what was given back or never settled.
    pub redelivery: bool,
    /// A body that is too large is refused; [`Harness::refusal`](super::Harness::refusal) has one.
    pub refuses_bodies: bool,
    /// A request gets its reply.
    pub request_reply: bool,
    /// The broker is told what became of a message.
    pub settlement: bool,
    /// A header value outside of ASCII arrives unchanged; else it is refused when an application sets it.
    pub unicode_headers: bool,
    /// A request that nobody hears fails at once, wherever it is sent to.
    pub unheard_requests: bool,
    /// One subscription can take many destinations by a pattern.
    pub wildcards: bool,
}

impl Capabilities {
    /// Creates the capabilities of a broker that can do everything, with bodies up to a size.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_testing::conformance::Capabilities;
    /// assert!(Capabilities::all(1024).wildcards);
    /// ```
    #[must_use]
    pub const fn all(max_body: usize) -> Self {
        Self {
            durable: true,
            empty_header_values: true,
            fan_out: true,
            groups: true,
            max_body,
            ordering: true,
            persistence: true,
            redelivery: true,
            refuses_bodies: true,
            request_reply: true,
            settlement: true,
            unheard_requests: true,
            unicode_headers: true,
            wildcards: true,
        }
    }
}
