//! A session with the broker for one command. Every answer is bounded in time.

use std::time::Duration;

use broker::{Broker, BrokerError, BrokerUrl, ConnectError, ConnectOptions};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may take for any answer other than the connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens a session for this command.
pub async fn connect(url: &BrokerUrl, command: &str) -> Result<Broker, ConnectError> {
    let options = ConnectOptions { name: format!("notify-host {command}"), timeout: CONNECT_TIMEOUT };
    Broker::connect(url, &options).await
}

/// Waits for the broker's answer, and fails if none comes in time.
pub async fn within_time<T, E: From<BrokerError>>(answer: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let seconds = ANSWER_TIMEOUT.as_secs();
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
        let problem = format!("it did not answer within {seconds} s; it may be short of memory or disk");
        Err(BrokerError::Lost(problem).into())
    })
}
