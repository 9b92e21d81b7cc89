//! A plugin's view of answers holds no secret in any form, and nothing that depends on one.

use std::fs;
use std::process::Output;

use super::echo::FORMS;
use super::{CANARY, Cage};

/// Two values of equal length. Nothing that a guest sees may reveal which one it has.
const LOOKALIKES: [&str; 2] = ["canary09dF10K2070q0xZ", "canary/9dF1/%%2&&/xZ?"];

/// Returns the guest's own account of each answer, by the contract and by WASI.
fn views_of(cage: &Cage, name: &str, asks: &[String]) -> Vec<String> {
    let toml = cage.toml("look", false, &cage.echo.origin()).replace(
        "[config]\n",
        &format!(
            "[limits]\nresponse = \"1 KiB\"\ntime = \"60s\"\nlog-bytes = \"16 MiB\"\n[config]\nasks = [{}]\n",
            asks.join(", ")
        ),
    );
    cage.plug_as(name, &toml);
    let Output { stdout, stderr, .. } = cage.test(name, &["--json"]);
    let report: serde_json::Value =
        serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    assert_eq!(report["outcome"], "done", "{report}");
    let log = report["log"].as_array().unwrap();
    let told = log.iter().map(|line| line["message"].as_str().unwrap().to_owned());
    told.filter(|line| line.starts_with("by ")).collect()
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

#[test]
fn a_server_that_sends_a_secret_back_in_another_form_shows_its_name() {
    let cage = Cage::new();
    let origin = cage.echo.origin();
    let ask = |path: &str| format!("{{ url = \"{origin}{path}\" }}");
    let asks: Vec<_> = FORMS.iter().map(|form| ask(&format!("/as/{form}"))).collect();
    let views = views_of(&cage, "forms", &asks);
    assert_eq!(views.len(), 2 * FORMS.len(), "{views:#?}");
    let is_hidden = |(form, view): &(&str, &String)| {
        let is_wide = form.starts_with("utf-16");
        let body = backwards(view.split_once(": ").unwrap().1).replace('\0', "");
        body.starts_with("<[secret token]>") && (is_wide || view.contains("content-length=61 form=>]nekot terces[<: "))
    };
    let seen = FORMS.iter().flat_map(|form| [*form; 2]).zip(&views);
    let told: Vec<_> = seen.filter(|view| !is_hidden(view)).collect();
    assert!(told.is_empty(), "{told:#?}");
    // The host's own placeholder, also with a character from the plugin before it.
    let own = ["/path/{secret:token}", "/path/%{secret:token}", "/path/?q={secret:token}", "/path/?q=%{secret:token}"];
    let views = views_of(&cage, "own", &own.map(ask));
    assert_eq!(views.len(), own.len(), "{views:#?}");
    for view in &views {
        assert!(view.contains(">]nekot terces[") && view.contains("location=>]nekot terces["), "{view}");
        for part in ["canary", "9dF1", "xZ"] {
            assert!(!view.contains(&backwards(part)), "{view}");
        }
    }
    // Compressed answers are not handed over, and compression is not requested.
    let codings = ["/coded/gzip", "/coded/deflate", "/coded/br", "/coded/zstd", "/coded/canary"];
    let views = views_of(&cage, "coded", &codings.map(ask));
    for (number, view) in views.iter().enumerate() {
        let told = codings[number / 2].strip_prefix("/coded/").filter(|told| *told != "canary");
        let told = format!("its answer is compressed ({})", told.unwrap_or("in a way of its own"));
        let is_told = if number % 2 == 0 {
            view.contains("error HostError::Refused") && view.contains(&told)
        } else {
            view.contains("HttpResponseContentCoding")
        };
        assert!(is_told, "{view}");
    }
    assert_eq!(views.len(), 2 * codings.len());
    for request in cage.echo.requests() {
        let head = request.split_once("\r\n\r\n").unwrap().0.to_lowercase();
        assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
        for trick in ["\r\nrange:", "\r\nif-range:", "\r\na-im:", "gzip, br"] {
            assert!(!head.contains(trick), "{head}");
        }
    }
}

#[test]
fn nothing_that_a_plugin_sees_tells_a_part_of_a_secret() {
    let cage = Cage::new();
    let origin = cage.echo.origin();
    let mut asks = Vec::new();
    for guess in LOOKALIKES {
        for length in 1..guess.len() {
            let (beginning, end) = (&guess[..length], &guess[length..]);
            for part in [beginning, end] {
                let ask = |before: usize, after: usize| {
                    format!("{{ url = \"{origin}/say\", body = {part:?}, before = {before}, after = {after} }}")
                };
                // Up to the limit, beyond it, and well within.
                asks.push(ask(1024 - part.len(), if length % 2 == 0 { 1 } else { 3000 }));
                asks.push(ask(1024 - part.len() / 2, 0));
                if length % 5 == 0 {
                    asks.push(ask(10, 10));
                }
            }
        }
    }
    let seen = seen_with(&cage, &LOOKALIKES, &asks);
    assert!(seen[0].len() > asks.len() && seen[0].iter().any(|view| view.contains("cut")), "{}", seen[0].len());
    assert_eq!(LOOKALIKES[0].len(), LOOKALIKES[1].len());
    assert_same(&seen);
}

/// Returns the views of one plugin, with one value and then with the other.
fn seen_with(cage: &Cage, values: &[&str; 2], asks: &[String]) -> [Vec<String>; 2] {
    values.map(|value| {
        fs::write(cage.canary(), value).unwrap();
        views_of(cage, "oracle", asks)
    })
}

fn assert_same(seen: &[Vec<String>; 2]) {
    let told: Vec<_> = seen[0].iter().zip(&seen[1]).filter(|(one, other)| one != other).collect();
    assert!(told.is_empty(), "{} of {}: {told:#?}", told.len(), seen[0].len());
    assert_eq!(seen[0].len(), seen[1].len());
}

#[test]
fn what_there_is_room_for_does_not_tell_how_long_a_secret_is() {
    let cage = Cage::new();
    let origin = cage.echo.origin();
    let mut asks = Vec::new();
    for length in (8192 - 80..8192 + 20).step_by(5) {
        let path = "x".repeat(length - origin.len() - "/say/".len());
        asks.push(format!("{{ url = \"{origin}/say/{path}{{secret:token}}\" }}"));
    }
    for prefix in (32_768 - 160..32_768).step_by(8) {
        asks.push(format!("{{ url = \"{origin}/say\", prefix = {prefix} }}"));
    }
    let seen = seen_with(&cage, &["a-short-one", &CANARY.repeat(4)], &asks);
    assert_same(&seen);
    for refused in ["error HostError::Invalid", "error HostError::Quota"] {
        assert!(seen[0].iter().any(|view| view.contains(refused)), "{refused}");
    }
}
