use std::path::PathBuf;

use testbed::receiver::{Answer, Authority, Identity, Reply};

use super::*;

/// Creates a gate that resolves `example.test` to this machine and trusts this authority.
fn gate_trusting(authority: &Authority, port: u16) -> (Gate, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let trust = Arc::new(Trust::with(&[file]).unwrap());
    let resolver = Resolver::Scripted(Script::new(&[&["127.0.0.1"]]));
    let origin = format!("https://example.test:{port}");
    (gate_with(Egress { resolver, trust }, &[&origin], &["127.0.0.1/32"]), origin)
}

async fn exchange_with(authority: &Authority, identity: &Identity) -> Result<Response, EgressError> {
    let receiver = Receiver::secure(identity, |_| Reply::Answer(Answer::status(200).body("safe")));
    let (gate, origin) = gate_trusting(authority, receiver.port());
    let answer = get(&gate, &origin, SOON).await;
    assert_eq!(receiver.requests().len(), usize::from(answer.is_ok()), "nothing is said to one that is not trusted");
    answer
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_was_added_is_believed() {
    let authority = Authority::new();
    let response = exchange_with(&authority, &authority.issue("example.test")).await.unwrap();
    assert_eq!(&*response.body, b"safe");
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused() {
    let authority = Authority::new();
    for (identity, expected) in [
        (authority.issue("other.test"), "not valid for name"),
        (authority.issue("127.0.0.1"), "not valid for name"),
        (authority.issue_expired("example.test"), "certificate expired"),
        (Identity::self_signed("example.test"), "UnknownIssuer"),
        // An authority with the same name as the trusted one.
        (Authority::new().issue("example.test"), "BadSignature"),
    ] {
        let error = exchange_with(&authority, &identity).await.unwrap_err();
        assert!(matches!(error, EgressError::Unavailable { step: failure::ExchangeStep::Securing, .. }), "{error:?}");
        let sentence = error.to_string();
        assert!(sentence.contains("no secure connection") && sentence.contains(expected), "{expected}: {sentence}");
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_is_refused_or_costs_the_time_limit() {
    let authority = Authority::new();
    // The plain server waits for the end of a line that never comes.
    let plain = Receiver::answering(200);
    let (gate, origin) = gate_trusting(&authority, plain.port());
    let error = get(&gate, &origin, BRIEFLY).await.unwrap_err();
    assert!(matches!(error, EgressError::TimedOut { step: failure::ExchangeStep::Securing, .. }), "{error:?}");
    assert!(plain.requests().is_empty());

    let secure = Receiver::secure(&authority.issue("127.0.0.1"), |_| Reply::Answer(Answer::status(200)));
    let origin = format!("http://127.0.0.1:{}", secure.port());
    let gate = super::gate(Resolver::System, &[&origin], &["127.0.0.0/8"]);
    let error = get(&gate, &origin, SOON).await.unwrap_err();
    assert!(matches!(error, EgressError::Unavailable { .. }), "{error:?}");
}

#[test]
fn a_file_without_usable_certificates_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let check = |content: &[u8], expected: &str| {
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, content).unwrap();
        let error = format!("{:#}", Trust::with(&[file]).unwrap_err());
        assert!(error.contains("ca.pem") && error.contains(expected), "{error}");
    };
    check(b"", "there is no certificate in it");
    check(b"\x30\x82\x01", "there is no certificate in it");
    check(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "it is no PEM file");
    check(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 in it");
    let error = format!("{:#}", Trust::with(&[PathBuf::from("/nowhere/ca.pem")]).unwrap_err());
    assert!(error.starts_with("egress.ca: cannot use /nowhere/ca.pem"), "{error}");
}

#[tokio::test]
async fn a_secure_connection_is_used_again() {
    let authority = Authority::new();
    let receiver = Receiver::secure(&authority.issue("example.test"), |_| Reply::Answer(Answer::status(200)));
    let (gate, origin) = gate_trusting(&authority, receiver.port());
    for _ in 0..5 {
        get(&gate, &origin, SOON).await.unwrap();
    }
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 5));
}
