//! Errors of order-cli before it can begin.

use std::net::TcpListener;

use testbed::free_port;

use crate::bed::{Ran, finish, order_cli};

async fn run(arguments: &[&str]) -> Ran {
    finish(order_cli(arguments).spawn().unwrap()).await
}

#[tokio::test]
async fn a_broker_that_does_not_listen_is_one_sentence() {
    let url = format!("amqp://me:hunter2@127.0.0.1:{}/", free_port());
    let ran = run(&["demo", "--broker", &url]).await;
    let sentence = ran.sentence(1);
    assert!(sentence.contains("cannot reach the broker at amqp://me:***@127.0.0.1:"), "{sentence}");
}

#[tokio::test]
async fn a_broker_that_is_silent_is_waited_for_no_longer_than_told() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://{}/", silent.local_addr().unwrap());
    let ran = run(&["demo", "--broker", &url, "--timeout", "1"]).await;
    assert!(ran.sentence(1).ends_with("did not answer within 1 s"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_wrong_url_is_a_usage_error_that_keeps_the_password_to_itself() {
    let ran = run(&["demo", "--broker", "http://me:hunter2@127.0.0.1/"]).await;
    let sentence = ran.sentence(2);
    assert!(sentence.contains("unknown scheme \"http\"") && !sentence.contains("hunter2"), "{sentence}");
}

#[tokio::test]
async fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [&["create"][..], &["explode"], &["load", "--count", "0"], &[]] {
        let ran = run(arguments).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told_before_the_broker_is_asked() {
    let ran = run(&["send", "no/such/file.jsonl", "--broker", "amqp://127.0.0.1:1/"]).await;
    let sentence = ran.sentence(1);
    assert!(sentence.starts_with("cannot read no/such/file.jsonl: "), "{sentence}");
}

#[tokio::test]
async fn help_shows_no_password_from_the_environment() {
    let child = order_cli(&["create", "--help"]).env("NOTIFY_BROKER", "amqp://me:hunter2@localhost/").spawn();
    let ran = finish(child.unwrap()).await;
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.contains("NOTIFY_BROKER") && !ran.stdout.contains("hunter2"), "{}", ran.stdout);
}

#[tokio::test]
async fn the_default_queue_is_the_users_own() {
    let home = tempfile::tempdir().unwrap();
    let child = order_cli(&["demo"]).env("XDG_STATE_HOME", home.path()).env("HOME", home.path()).spawn();
    let ran = finish(child.unwrap()).await;
    assert!(ran.sentence(1).contains("no exchange \"orders\""), "{}", ran.stderr);
}
