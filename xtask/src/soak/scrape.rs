//! Fetches a host's metrics, as Prometheus does.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Time limit of an answer, generous for a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A metric that every host exposes.
const EXPECTED: &str = "notify_build_info";

/// Fetches the metrics. An answer without metrics is an error.
pub(super) fn scrape(port: u16) -> anyhow::Result<()> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().context("the host does not tell its metrics")?;
    if !answer.starts_with("HTTP/1.1 200 ") || !answer.contains(EXPECTED) {
        bail!("the host does not tell its metrics: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use testbed::receiver::{Answer, Receiver, Reply};

    use super::*;

    #[test]
    fn only_an_answer_with_metrics_will_do() {
        let answers = |status: u16, body: &'static str| {
            let receiver = Receiver::start(move |_| Reply::AnswerAndClose(Answer::status(status).body(body)));
            scrape(receiver.port()).map_err(|error| error.to_string())
        };
        assert_eq!(answers(200, "notify_build_info{version=\"1\"} 1\n"), Ok(()));
        assert!(answers(200, "{}").unwrap_err().contains("HTTP/1.1 200"));
        assert!(answers(503, "notify_build_info").unwrap_err().contains("HTTP/1.1 503"));
    }
}
