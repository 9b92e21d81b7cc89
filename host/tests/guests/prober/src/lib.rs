//! A guest that tries everything a plugin may import and reports each call on a line: `wasi:cli/environment
//! get-environment: nothing`.

use notify_plugin::bindings::notify::plugin::{config, http, log, mail, secrets};
use notify_plugin::{Delivery, Event, Handled, HostError, Info, Level, Plugin, done};
use wasip2::http::types as web;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily};
use wasip2::{cli, clocks, filesystem, io, random, sockets};

struct Prober;

impl Plugin for Prober {
    fn describe() -> Info {
        Info::new("prober", env!("CARGO_PKG_VERSION"), "Tries everything that it may import")
    }

    fn handle(_event: Event, delivery: Delivery) -> Handled {
        contract();
        console();
        time();
        chance();
        network();
        web();
        say("wasi:filesystem/preopens", "get-directories", some(filesystem::preopens::get_directories().len()));
        // Nothing runs after either of them.
        if delivery.attempt == 1 {
            cli::exit::exit(Ok(()));
        } else {
            cli::exit::exit_with_code(7);
        }
        done()
    }
}

fn say(interface: &str, function: &str, answer: &str) {
    notify_plugin::info!("{interface} {function}: {answer}");
}

/// Describes a collection by its length.
fn some(count: usize) -> &'static str {
    if count == 0 { "nothing" } else { "something" }
}

fn asked<T>(answer: &Result<T, HostError>) -> &'static str {
    match answer {
        Ok(_) => "works",
        Err(HostError::Denied(_)) => "denied",
        Err(_) => "another error",
    }
}

fn contract() {
    let works = |enabled: bool| if enabled { "works" } else { "nothing" };
    say("notify:plugin/log", "enabled", works(log::enabled(Level::Error)));
    // This log line is itself the proof.
    say("notify:plugin/log", "write", "works");
    say("notify:plugin/config", "get-json", if config::get_json() == "{}" { "nothing" } else { "something" });
    say("notify:plugin/config", "get", some(config::get("anything").iter().len()));
    say("notify:plugin/secrets", "open", asked(&secrets::open("anything")));
    let request = http::Request {
        method: "GET".to_owned(),
        url: "http://localhost/".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: None,
    };
    say("notify:plugin/http", "send", asked(&http::send(&request)));
    let to = mail::Address { email: "a@example.com".to_owned(), name: None };
    let message = mail::Message {
        to: vec![to],
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: None,
        subject: "a subject".to_owned(),
        text: None,
        html: None,
        attachments: Vec::new(),
        headers: Vec::new(),
    };
    say("notify:plugin/mail", "send", asked(&mail::send(&message)));
}

fn console() {
    let environment = "wasi:cli/environment";
    say(environment, "get-environment", some(cli::environment::get_environment().len()));
    say(environment, "get-arguments", some(cli::environment::get_arguments().len()));
    say(environment, "initial-cwd", some(cli::environment::initial_cwd().iter().len()));
    let terminal = |input: bool| if input { "something" } else { "nothing" };
    say("wasi:cli/terminal-stdin", "get-terminal-stdin", terminal(cli::terminal_stdin::get_terminal_stdin().is_some()));
    say(
        "wasi:cli/terminal-stdout",
        "get-terminal-stdout",
        terminal(cli::terminal_stdout::get_terminal_stdout().is_some()),
    );
    say(
        "wasi:cli/terminal-stderr",
        "get-terminal-stderr",
        terminal(cli::terminal_stderr::get_terminal_stderr().is_some()),
    );

    let streams = "wasi:io/streams";
    let input = cli::stdin::get_stdin();
    say("wasi:cli/stdin", "get-stdin", "works");
    let read = |answer: Result<usize, io::streams::StreamError>| match answer {
        Ok(count) => some(count),
        Err(io::streams::StreamError::Closed) => "nothing",
        Err(io::streams::StreamError::LastOperationFailed(_)) => "an error",
    };
    say(streams, "input-stream.read", read(input.read(1).map(|bytes| bytes.len())));
    say(streams, "input-stream.blocking-read", read(input.blocking_read(1).map(|bytes| bytes.len())));
    say(streams, "input-stream.skip", read(input.skip(1).map(|_| 0)));
    say(streams, "input-stream.blocking-skip", read(input.blocking_skip(1).map(|_| 0)));
    input.subscribe().block();
    say(streams, "input-stream.subscribe", "works");

    let error = cli::stderr::get_stderr();
    say(
        "wasi:cli/stderr",
        "get-stderr",
        if error.blocking_write_and_flush(b"to stderr\n").is_ok() { "works" } else { "an error" },
    );
    let output = cli::stdout::get_stdout();
    let written = |answer: Result<(), io::streams::StreamError>| if answer.is_ok() { "works" } else { "an error" };
    say("wasi:cli/stdout", "get-stdout", "works");
    say(streams, "output-stream.check-write", written(output.check_write().map(|_| ())));
    say(streams, "output-stream.write", written(output.write(b"to stdout\n")));
    say(streams, "output-stream.flush", written(output.flush()));
    say(streams, "output-stream.blocking-flush", written(output.blocking_flush()));
    say(streams, "output-stream.blocking-write-and-flush", written(output.blocking_write_and_flush(b"to stdout\n")));
    say(streams, "output-stream.write-zeroes", written(output.write_zeroes(1)));
    say(streams, "output-stream.blocking-write-zeroes-and-flush", written(output.blocking_write_zeroes_and_flush(1)));
    say(streams, "output-stream.splice", read(output.splice(&input, 1).map(|_| 0)));
    say(streams, "output-stream.blocking-splice", read(output.blocking_splice(&input, 1).map(|_| 0)));
    output.subscribe().block();
    say(streams, "output-stream.subscribe", "works");
}

fn time() {
    let monotonic = "wasi:clocks/monotonic-clock";
    let now = clocks::monotonic_clock::now();
    say(monotonic, "now", if now > 0 { "works" } else { "nothing" });
    say(monotonic, "resolution", if clocks::monotonic_clock::resolution() > 0 { "works" } else { "nothing" });
    clocks::monotonic_clock::subscribe_instant(now + 1).block();
    say(monotonic, "subscribe-instant", "works");
    let millisecond = clocks::monotonic_clock::subscribe_duration(1_000_000);
    say(monotonic, "subscribe-duration", "works");
    let ready = io::poll::poll(&[&millisecond]);
    say("wasi:io/poll", "poll", if ready == [0] { "works" } else { "nothing" });
    say("wasi:io/poll", "pollable.ready", if millisecond.ready() { "works" } else { "nothing" });
    millisecond.block();
    say("wasi:io/poll", "pollable.block", "works");
    say("wasi:clocks/wall-clock", "now", if clocks::wall_clock::now().seconds > 0 { "works" } else { "nothing" });
    say(
        "wasi:clocks/wall-clock",
        "resolution",
        if clocks::wall_clock::resolution().nanoseconds > 0 { "works" } else { "nothing" },
    );
}

fn chance() {
    let different = |one: u64, other: u64| if one == other { "the same each time" } else { "works" };
    let bytes = random::random::get_random_bytes(16);
    say("wasi:random/random", "get-random-bytes", if bytes.len() == 16 { "works" } else { "nothing" });
    let (one, other) = (random::random::get_random_u64(), random::random::get_random_u64());
    say("wasi:random/random", "get-random-u64", different(one, other));
    let bytes = random::insecure::get_insecure_random_bytes(16);
    say("wasi:random/insecure", "get-insecure-random-bytes", if bytes.len() == 16 { "works" } else { "nothing" });
    let (one, other) = (random::insecure::get_insecure_random_u64(), random::insecure::get_insecure_random_u64());
    say("wasi:random/insecure", "get-insecure-random-u64", different(one, other));
    let (one, other) = random::insecure_seed::insecure_seed();
    say("wasi:random/insecure-seed", "insecure-seed", different(one, other));
}

fn network() {
    fn answer<T>(answer: &Result<T, ErrorCode>) -> String {
        match answer {
            Ok(_) => "works".to_owned(),
            Err(ErrorCode::AccessDenied) => "denied".to_owned(),
            // The closest error code for names.
            Err(ErrorCode::PermanentResolverFailure) => "denied, as a name that cannot be resolved".to_owned(),
            Err(other) => format!("{other:?}"),
        }
    }
    let network = sockets::instance_network::instance_network();
    say("wasi:sockets/instance-network", "instance-network", "works");
    let lookup = sockets::ip_name_lookup::resolve_addresses(&network, "localhost");
    say("wasi:sockets/ip-name-lookup", "resolve-addresses", &answer(&lookup));
    let tcp = sockets::tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4);
    say("wasi:sockets/tcp-create-socket", "create-tcp-socket", &answer(&tcp));
    let udp = sockets::udp_create_socket::create_udp_socket(IpAddressFamily::Ipv4);
    say("wasi:sockets/udp-create-socket", "create-udp-socket", &answer(&udp));
}

fn web() {
    let types = "wasi:http/types";
    let works = |function: &str, works: bool| say(types, function, if works { "works" } else { "nothing" });
    let fields = web::Fields::new();
    works("fields", true);
    works("fields.set", fields.set("x-one", &[b"1".to_vec()]).is_ok());
    works("fields.append", fields.append("x-two", b"2").is_ok());
    works("fields.get", fields.get("x-one") == [b"1".to_vec()]);
    works("fields.has", fields.has("x-two"));
    works("fields.delete", fields.delete("x-two").is_ok());
    works("fields.entries", fields.entries().len() == 1);
    works("fields.clone", fields.clone().has("x-one"));
    works("fields.from-list", web::Fields::from_list(&[("x".to_owned(), b"1".to_vec())]).is_ok());

    let request = web::OutgoingRequest::new(fields);
    works("outgoing-request", true);
    works("outgoing-request.set-method", request.set_method(&web::Method::Post).is_ok());
    works("outgoing-request.method", matches!(request.method(), web::Method::Post));
    works("outgoing-request.set-scheme", request.set_scheme(Some(&web::Scheme::Http)).is_ok());
    works("outgoing-request.scheme", matches!(request.scheme(), Some(web::Scheme::Http)));
    works("outgoing-request.set-authority", request.set_authority(Some("localhost")).is_ok());
    works("outgoing-request.authority", request.authority().is_some());
    works("outgoing-request.set-path-with-query", request.set_path_with_query(Some("/")).is_ok());
    works("outgoing-request.path-with-query", request.path_with_query().is_some());
    works("outgoing-request.headers", request.headers().has("x-one"));
    let body = request.body();
    works("outgoing-request.body", body.is_ok());
    let options = web::RequestOptions::new();
    works("request-options", true);
    works("request-options.set-connect-timeout", options.set_connect_timeout(Some(1_000_000_000)).is_ok());
    works("request-options.connect-timeout", options.connect_timeout().is_some());
    works("request-options.set-first-byte-timeout", options.set_first_byte_timeout(Some(1_000_000_000)).is_ok());
    works("request-options.first-byte-timeout", options.first_byte_timeout().is_some());
    works("request-options.set-between-bytes-timeout", options.set_between_bytes_timeout(Some(1_000_000_000)).is_ok());
    works("request-options.between-bytes-timeout", options.between_bytes_timeout().is_some());

    let sent = wasip2::http::outgoing_handler::handle(request, Some(options));
    if let Ok(body) = body {
        works("outgoing-body.write", body.write().is_ok());
        works("outgoing-body.finish", web::OutgoingBody::finish(body, None).is_ok());
    }
    let answer = match sent {
        Ok(answer) => {
            let ready = answer.subscribe();
            works("future-incoming-response.subscribe", true);
            ready.block();
            let got = answer.get();
            works("future-incoming-response.get", got.is_some());
            got.and_then(Result::ok).map_or("nothing".to_owned(), |answer| match answer {
                Ok(_) => "works".to_owned(),
                Err(web::ErrorCode::HttpRequestDenied) => "denied".to_owned(),
                Err(other) => format!("{other:?}"),
            })
        }
        Err(error) => format!("{error:?}"),
    };
    say("wasi:http/outgoing-handler", "handle", &answer);

    // The host never passes one in.
    let response = web::OutgoingResponse::new(web::Fields::new());
    works("outgoing-response", true);
    works("outgoing-response.set-status-code", response.set_status_code(404).is_ok());
    works("outgoing-response.status-code", response.status_code() == 404);
    works("outgoing-response.headers", response.headers().entries().is_empty());
    works("outgoing-response.body", response.body().is_ok());
}

notify_plugin::export!(Prober);
