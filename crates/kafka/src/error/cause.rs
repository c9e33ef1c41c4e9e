//! What lies behind an error of the client, and what to do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};

/// What lies behind an error: one of the few for which there is something else to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    Configuration,
    Disconnected,
    Fenced,
    InvalidTopic,
    NotFound,
    Other,
    QueueFull,
    Refused,
    Timeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unsupported,
}

impl Cause {
    pub(super) fn of(error: &KafkaError) -> Self {
        match error {
            KafkaError::Canceled => Self::Disconnected,
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Subscription(_) => {
                Self::Configuration
            }
            KafkaError::Nul(_) => Self::InvalidTopic,
            error => code_of(error).map_or(Self::Other, Self::of_code),
        }
    }

    pub(super) fn of_code(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode::*;
        match code {
            InconsistentGroupProtocol
            | InvalidArgument
            | InvalidConfig
            | InvalidGroupId
            | InvalidPartitions
            | InvalidReplicaAssignment
            | InvalidReplicationFactor
            | InvalidRequiredAcks
            | InvalidSessionTimeout
            | InvalidTransactionTimeout
            | UnsupportedAssignor => Self::Configuration,
            Fatal
            | Fenced
            | FencedInstanceId
            | FencedMemberEpoch
            | InvalidProducerEpoch
            | InvalidProducerIdMapping
            | OutOfOrderSequenceNumber
            | ProducerFenced
            | UnknownProducerId
            | UnreleasedInstanceId => Self::Fenced,
            InvalidTopic => Self::InvalidTopic,
            // What the broker says of this very message: it is the same whenever it comes.
            InvalidRecord | InvalidTimestamp | PolicyViolation => Self::Refused,
            MessageBatchTooLarge | MessageSizeTooLarge => Self::TooLarge,
            Authentication
            | ClusterAuthorizationFailed
            | DelegationTokenAuthDisabled
            | DelegationTokenAuthorizationFailed
            | DelegationTokenExpired
            | DelegationTokenNotFound
            | DelegationTokenOwnerMismatch
            | DelegationTokenRequestNotAllowed
            | GroupAuthorizationFailed
            | IllegalSASLState
            | SaslAuthenticationFailed
            | SecurityDisabled
            | SSL
            | TopicAuthorizationFailed
            | TransactionalIdAuthorizationFailed
            | UnacceptableCredential
            | UnsupportedSASLMechanism => Self::Unauthorized,
            NotImplemented
            | UnsupportedCompressionType
            | UnsupportedFeature
            | UnsupportedForMessageFormat
            | UnsupportedVersion => Self::Unsupported,
            code => Self::of_state(code),
        }
    }

    /// What a code says about the brokers and what they know, and not about what was asked for.
    fn of_state(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode::*;
        match code {
            AllBrokersDown
            | BrokerDestroy
            | BrokerTransportFailure
            | DestroyBroker
            | NetworkException
            | PurgeInflight
            | PurgeQueue
            | Resolve => Self::Disconnected,
            GroupIdNotFound
            | ResourceNotFound
            | UnknownGroup
            | UnknownPartition
            | UnknownTopic
            | UnknownTopicId
            | UnknownTopicOrPartition => Self::NotFound,
            QueueFull => Self::QueueFull,
            MessageTimedOut | OperationTimedOut | RequestTimedOut | TimedOutQueue => Self::Timeout,
            BrokerNotAvailable
            | ConcurrentTransactions
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | EligibleLeadersNotAvailable
            | FencedLeaderEpoch
            | ISRInsufficient
            // Damaged on the way.
            | InvalidMessage
            | KafkaStorageError
            | LeaderNotAvailable
            | LogDirNotFound
            | NotController
            | NotCoordinator
            | NotEnoughReplicas
            | NotEnoughReplicasAfterAppend
            | NotLeaderForPartition
            | OffsetNotAvailable
            | PreferredLeaderNotAvailable
            | ReassignmentInProgress
            | RebalanceInProgress
            | RebootstrapRequired
            | ReplicaNotAvailable
            | StaleBrokerEpoch
            | StaleControllerEpoch
            | ThrottlingQuotaExceeded
            | UnknownLeaderEpoch
            | UnstableOffsetCommit => Self::Unavailable,
            _ => Self::Other,
        }
    }

    pub(super) const fn broker_kind(self) -> BrokerErrorKind {
        match self {
            Self::Configuration | Self::InvalidTopic => BrokerErrorKind::Configuration,
            Self::Disconnected => BrokerErrorKind::Disconnected,
            Self::Fenced => BrokerErrorKind::Ended,
            Self::NotFound => BrokerErrorKind::NotFound,
            Self::Other | Self::QueueFull | Self::Refused | Self::TooLarge | Self::Unavailable => {
                BrokerErrorKind::Other
            }
            Self::Timeout => BrokerErrorKind::Timeout,
            Self::Unauthorized => BrokerErrorKind::Unauthorized,
            Self::Unsupported => BrokerErrorKind::Unsupported,
        }
    }

    pub(super) const fn publish_kind(self) -> PublishErrorKind {
        match self {
            // It is the client that cannot go on, and not the message that cannot be taken.
            Self::Configuration | Self::Fenced | Self::Other => PublishErrorKind::Other,
            Self::Disconnected => PublishErrorKind::Disconnected,
            Self::Refused => PublishErrorKind::Refused,
            Self::InvalidTopic => PublishErrorKind::InvalidDestination,
            Self::NotFound => PublishErrorKind::NotFound,
            Self::QueueFull | Self::Timeout => PublishErrorKind::Timeout,
            Self::TooLarge => PublishErrorKind::TooLarge,
            Self::Unauthorized => PublishErrorKind::Unauthorized,
            Self::Unavailable => PublishErrorKind::Unavailable,
            Self::Unsupported => PublishErrorKind::Unsupported,
        }
    }

    /// Says what happened and what to do about it.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Configuration => "a property or an argument is wrong: correct what the source of this error names",
            Self::Disconnected => "the connection to the brokers is gone: see whether they run",
            Self::Fenced => {
                "the client cannot go on, perhaps because another one with its id took its place: start the service \
                 again, each instance with an id of its own"
            }
            Self::InvalidTopic => {
                "the name is no topic's: use 1 to 249 ASCII letters, digits, `.`, `_` and `-`, and not `.` or `..`"
            }
            Self::NotFound => "the topic, partition or group does not exist: create it or correct the name",
            Self::Other => "see the source of this error",
            Self::QueueFull => {
                "the client's queue stayed full: the brokers are too slow or away, or \
                 `queue.buffering.max.messages` is too small"
            }
            Self::Refused => "the broker does not take it: see the source of this error for the reason",
            Self::Timeout => "no broker confirmed it in time: see whether they run, or raise the timeout",
            Self::TooLarge => {
                "it is larger than allowed: send less, or raise `message.max.bytes` of the client and of the topic"
            }
            Self::Unauthorized => {
                "the broker refused the credentials or the right: correct the `sasl.*` and `ssl.*` properties, \
                 or let the server's rules allow it"
            }
            Self::Unavailable => "the brokers cannot do it now: see whether all of them run, and try again",
            Self::Unsupported => "this version of the broker or the client cannot do it",
        }
    }
}

/// The client does not tell the code of an administrative call.
pub(super) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}
