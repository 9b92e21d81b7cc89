//! The contract of both engines: one suite that runs on each of them, and on two releases of RabbitMQ.

#![allow(clippy::unwrap_used, reason = "in a test, that is how a failure is told")]

#[path = "contract/bed.rs"]
mod bed;
#[path = "contract/consuming.rs"]
mod consuming;
#[path = "contract/publishing.rs"]
mod publishing;
#[path = "contract/topology.rs"]
mod topology;

/// Generates one test for each promise and engine.
macro_rules! on_each_engine {
    ($($module:ident: $($promise:ident)*;)*) => {
        mod on_rabbitmq {
            $($(
                #[tokio::test]
                async fn $promise() {
                    crate::$module::$promise(crate::bed::Bed::rabbitmq()).await;
                }
            )*)*
        }

        mod on_rabbitmq_4 {
            $($(
                #[tokio::test]
                async fn $promise() {
                    crate::$module::$promise(crate::bed::Bed::rabbitmq_4()).await;
                }
            )*)*
        }

        mod on_sqlite {
            $($(
                #[tokio::test]
                async fn $promise() {
                    crate::$module::$promise(crate::bed::Bed::sqlite()).await;
                }
            )*)*
        }
    };
}

on_each_engine! {
    publishing:
        a_message_arrives_once_and_is_gone_after_its_ack
        every_property_header_and_byte_arrives_as_it_was_sent
        messages_arrive_in_the_order_in_which_they_were_published
        messages_that_are_published_at_once_arrive_in_the_order_in_which_that_began
        what_no_queue_takes_is_an_error
        a_missing_exchange_or_queue_is_an_error
        a_name_that_is_too_long_is_refused
        a_bad_publish_among_many_fails_alone
        what_was_confirmed_survives_a_restart
        after_the_close_nothing_is_published;
    consuming:
        an_unacknowledged_message_comes_again_when_its_consumer_closes
        an_unacknowledged_message_comes_again_when_its_consumer_is_dropped
        an_unacknowledged_message_comes_again_when_its_session_is_dropped
        acknowledgements_given_before_the_close_count
        acknowledgements_may_come_in_any_order
        a_slow_message_does_not_keep_others_unacknowledged
        no_more_than_the_window_is_handed_out
        two_consumers_share_a_queue
        a_waiting_consumer_is_woken
        a_missing_queue_cannot_be_consumed;
    topology:
        a_topic_exchange_routes_by_pattern
        a_direct_exchange_routes_by_the_exact_key
        a_fanout_exchange_routes_everything
        declaring_again_changes_nothing
        two_sessions_may_declare_at_the_same_time
        a_message_for_later_comes_to_its_plugin_and_not_before
        a_queue_can_be_inspected_and_purged
        a_survey_tells_what_is_missing_and_what_is_there_and_makes_nothing;
}
