//! Runs the real order-cli against both engines of the broker.

#![allow(clippy::unwrap_used, reason = "in a test, that is how a failure is told")]

#[path = "cli/bed.rs"]
mod bed;
#[path = "cli/loading.rs"]
mod loading;
#[path = "cli/ordering.rs"]
mod ordering;
#[path = "cli/sending.rs"]
mod sending;
#[path = "cli/usage.rs"]
mod usage;

/// Makes one test per engine for each promise.
macro_rules! on_both_engines {
    ($($module:ident: $($promise:ident)*;)*) => {
        mod on_rabbitmq {
            $($(
                #[tokio::test]
                async fn $promise() {
                    crate::$module::$promise(crate::bed::Bed::rabbitmq()).await;
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

on_both_engines! {
    ordering:
        an_order_arrives_as_flat_json_with_its_properties
        each_status_has_its_own_event_and_routing_key
        the_demo_is_the_two_orders_of_the_tutorial
        json_output_says_what_was_published
        a_missing_exchange_is_one_sentence
        an_order_that_no_queue_takes_is_one_sentence;
    sending:
        lines_arrive_byte_for_byte_in_their_order
        bad_lines_are_reported_by_number_and_the_good_ones_sent
        standard_input_is_sent_as_it_comes
        a_large_event_arrives_whole
        a_missing_exchange_stops_at_the_first_line;
    loading:
        a_load_arrives_whole_and_is_measured
        a_steady_rate_takes_its_time
        a_load_that_names_no_exchange_reaches_only_who_consumes_its_own_queue
        an_interrupted_load_tells_how_far_it_came
        a_load_that_no_queue_takes_fails;
}
