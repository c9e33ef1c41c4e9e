//! The lists of cases, as tests.

/// Expands to one test for each row of the golden table, run through one door.
///
/// Each row is compared completely: a missing, an extra or a doubled attribute fails. The optional reason marks the tests as ignored,
/// for brokers that are not inside the process.
///
/// # Examples
///
/// See [`conformance`](crate::conformance).
#[macro_export]
macro_rules! conformance_golden {
    ($harness:ty, $door:ty) => {
        $crate::__golden_cases! { [] [$harness, $door] }
    };
    ($harness:ty, $door:ty, ignore = $reason:literal) => {
        $crate::__golden_cases! { [#[ignore = $reason]] [$harness, $door] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __golden_cases {
    ($attributes:tt $types:tt) => {
        $crate::__golden_case! { $attributes $types
            golden_m01_publish_and_process M01,
            golden_k01_a_single_publish K01,
            golden_k02_a_batch_publish_with_create_spans K02,
            golden_k03_a_batch_publish_without_create_spans K03,
            golden_k04_processing_one_message K04,
            golden_k05_processing_a_batch K05,
            golden_k06_a_settlement_in_the_handler K06,
            golden_k09_a_publish_that_fails K09,
            golden_k10_a_batch_with_a_message_without_context K10,
            golden_n01_a_publish_to_a_plain_name N01,
            golden_n02_a_wildcard_subscription_of_a_group N02,
            golden_n03_a_reply_to_an_inbox N03,
            golden_n04_a_request_nobody_hears N04,
            golden_j01_a_wildcard_subscription J01,
            golden_j02_an_application_fetch_of_two J02,
            golden_j03_an_ack_span J03_ACK,
            golden_j03_a_nak_span J03_NAK,
            golden_j03_a_term_span J03_TERM,
            golden_x01_an_ambient_span_in_mode_auto X01,
            golden_x02_an_ambient_span_in_mode_parent X02,
            golden_x03_mode_link_only X03,
            golden_x04_a_failing_handler X04,
            golden_x05_a_panicking_handler X05,
            golden_x06_a_handler_that_times_out X06,
            golden_x07_a_retry_that_succeeds X07,
            golden_x08_a_supplied_creation_context X08,
            golden_x09_a_dead_letter_forward X09,
            golden_x10_an_application_pull_of_one X10,
            golden_span_26_a_batch_with_a_supplied_context SPAN_26,
            golden_span_30_receive_spans_of_the_framework SPAN_30,
            golden_span_36_a_request_that_is_answered SPAN_36,
            golden_span_38_a_new_message_of_a_handler SPAN_38,
            golden_link_05_a_batch_is_never_below_a_message LINK_05,
            golden_link_09_mode_parent_without_an_ambient_span MODE_PARENT_ALONE,
            golden_metr_13_a_batch_that_is_partly_refused METR_13,
            golden_span_31_an_application_pull_of_nothing SPAN_31,
            golden_stat_09_a_handler_that_is_dropped STAT_09,
            golden_stat_14_a_pull_that_fails STAT_14_RECEIVE,
            golden_stat_14_a_settlement_that_fails STAT_14_SETTLE,
            golden_attr_c_04_a_batch_from_several_destinations ATTR_C_04,
        }
        $crate::__golden_scope! { $attributes $types }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __golden_case {
    ($attributes:tt $types:tt $($name:ident $row:ident,)*) => {
        $( $crate::__golden_test! { $attributes $types $name $row } )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __golden_test {
    ([$($attribute:tt)*] [$harness:ty, $door:ty] $name:ident $row:ident) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $name() {
            let row = &$crate::conformance::golden::rows::$row;
            $crate::conformance::case(stringify!($name), $crate::conformance::golden::run::<$harness, $door>(row)).await;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __golden_scope {
    ([$($attribute:tt)*] [$harness:ty, $door:ty]) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn gen_01_all_metrics_come_from_one_scope() {
            let one_scope = $crate::conformance::golden::one_scope::<$harness, $door>();
            $crate::conformance::case("gen_01_all_metrics_come_from_one_scope", one_scope).await;
        }
    };
}

/// Expands to one test for each behaviour. The optional reason marks them as ignored.
///
/// # Examples
///
/// See [`conformance`](crate::conformance).
#[macro_export]
macro_rules! conformance_behaviour {
    ($harness:ty) => {
        $crate::__behaviour_cases! { [] [$harness] }
    };
    ($harness:ty, ignore = $reason:literal) => {
        $crate::__behaviour_cases! { [#[ignore = $reason]] [$harness] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __behaviour_cases {
    ($attributes:tt $types:tt) => {
        $crate::__behaviour_case! { $attributes $types
            a_batch_handler_on_a_subscription_of_single_messages_is_refused_at_start,
            a_batch_is_handed_over_when_it_is_full,
            a_batch_is_handed_over_when_its_time_is_up,
            a_batch_under_collection_at_shutdown_is_not_lost,
            a_body_of_any_bytes_arrives,
            a_chain_of_replies_is_one_trace_and_carries_the_baggage,
            a_failing_handler_is_tried_again_and_the_attempt_is_counted,
            a_handler_of_single_messages_on_a_batched_subscription_is_refused_at_start,
            a_handler_that_outlasts_the_shutdown_timeout_is_dropped_and_its_span_says_cancelled,
            a_hundred_headers_arrive,
            a_large_body_arrives,
            a_message_is_not_delivered_again_while_its_handler_runs,
            a_message_whose_reply_is_refused_is_not_lost,
            a_message_comes_back_after_the_delay_the_handler_asked_for,
            a_message_that_keeps_failing_ends_in_the_dead_letter_as_it_was,
            a_panicking_handler_is_tried_again_and_the_worker_lives_on,
            a_pattern_takes_what_matches_and_nothing_else,
            a_producer_outside_any_handler_can_start_baggage,
            a_publish_from_a_spawned_task_stays_in_the_trace,
            a_rejected_message_is_not_delivered_again,
            a_request_gets_its_reply_in_one_trace,
            a_request_that_fails_is_answered_at_once,
            a_shutdown_waits_for_running_handlers_and_gives_the_rest_back,
            a_slow_request_does_not_hold_up_the_next_one,
            a_subscription_that_ends_by_itself_is_an_error_of_serve,
            a_trace_goes_on_from_one_broker_to_another,
            an_acknowledged_message_is_not_delivered_again,
            an_empty_body_arrives,
            an_undecodable_body_is_rejected_and_never_tried_again,
            each_message_of_a_batch_has_its_own_outcome,
            every_subscription_without_a_group_gets_every_message,
            malformed_propagation_headers_start_a_new_trace_and_lose_nothing,
            messages_are_handled_in_their_order,
            no_more_handlers_run_than_the_concurrency_allows,
            odd_headers_arrive,
            subscriptions_of_one_group_share_the_messages,
            subscriptions_that_contradict_each_other_are_refused_at_start,
            the_baggage_of_a_batch_is_merged_and_its_conflicts_are_named,
            what_a_handler_does_to_the_baggage_is_what_it_publishes,
            what_comes_while_nobody_is_there_waits_for_the_group,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __behaviour_case {
    ($attributes:tt $types:tt $($name:ident,)*) => {
        $( $crate::__behaviour_test! { $attributes $types $name } )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __behaviour_test {
    ([$($attribute:tt)*] [$harness:ty] $name:ident) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $name() {
            $crate::conformance::case(stringify!($name), $crate::conformance::behaviour::$name::<$harness>()).await;
        }
    };
}
