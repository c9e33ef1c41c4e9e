/// How far the scope of a message has come. It only goes forward, and no further than somebody asks. Most handlers take neither span nor
/// baggage: for their messages neither a scope nor a list of changes is made.
///
/// - *Absent*: there is none. The context of the process span is current while the message is handled.
/// - *Closed*: the scope is there, around that same context, and nobody can change anything through it. It is made before the arguments
///   of a handler that may ask, so that all copies of the delivery share it, and so that replies and forwards find it later.
/// - *Open*: code of the user has the scope, so its context has a list of changes to the baggage. The list must be there before that
///   context becomes current. Hence middleware gets the scope open; an argument opens it; and where a copy of the delivery is kept,
///   which may be asked at any time, it is opened before the handler runs.
///
/// `scope_at` of a delivery and of a processing brings their scope as far as is wanted. An outcome hands a scope back that was made on the
/// way, to what publishes the replies outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ScopeState {
    Absent,
    Closed,
    Open,
}
