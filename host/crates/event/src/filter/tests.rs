use proptest::prelude::*;

use super::*;
use crate::Event;

const ORDER: &str = r#"{"total":120.5,"count":3,"country":"DE","big":18446744073709551615,"customer":null,
    "items":[{"sku":"a","price":10},{"sku":"b","price":200}]}"#;

fn ask(text: &str, data: &str) -> Answer {
    let filter = Filter::new(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let event = Event::sample(data);
    filter.ask(&Look::new(&event)).0
}

#[test]
fn a_filter_sees_attributes_and_data() {
    for (text, expected) in [
        (r#"data.total > 100 && data.country == "DE""#, true),
        ("data.total > 100.0", true),
        ("data.count == 3.0 && data.count < 4", true),
        ("data.big > 5", true),
        (r#"type == "order.created""#, true),
        (r#"type.startsWith("payment.")"#, false),
        (r#"source == "shop" && id == "1" && subject == """#, true),
        (r#"time >= "2026-11-01""#, true),
        (r#"extensions.traceparent.endsWith("ab")"#, true),
        ("has(data.country) && !has(data.coupon)", true),
        ("has(extensions.traceparent)", true),
        ("data.items.exists(item, item.price > 100)", true),
        ("data.items.all(item, item.price > 100)", false),
        ("size(data.items) == 2 && data.items[1].sku == \"b\"", true),
        ("data.country in [\"DE\", \"AT\"]", true),
        ("type(data.total) == double", true),
        ("data.customer == null", true),
        ("data.?coupon.orValue(\"none\") == \"none\"", true),
        ("data.items.map(item, item.price).exists(price, price == 10)", true),
        ("true", true),
    ] {
        assert_eq!(ask(text, ORDER), if expected { Answer::Yes } else { Answer::No }, "{text}");
    }
}

#[test]
fn what_an_event_lacks_does_not_match_and_what_does_not_fit_is_told() {
    for text in [
        "data.coupon == 1",
        "data.coupon == 1 && data.total > 100",
        "data.total > 100 && data.coupon == 1",
        "data.items[7].sku == \"a\"",
        "data[\"coupon\"] == 1",
        "!(data.coupon == 1)",
    ] {
        let answer = ask(text, ORDER);
        assert!(matches!(answer, Answer::Lacks(_)) && !answer.matches(), "{text}: {answer:?}");
    }
    assert_eq!(ask("data.coupon == 1 || data.total > 100", ORDER), Answer::Yes, "one side is enough");
    for (text, data) in [
        ("data.country > 100", ORDER),
        ("data.total", ORDER),
        ("data.customer.name == \"x\"", ORDER),
        ("data.total > 100", "[1]"),
        ("data.count / 0 == 1", ORDER),
    ] {
        let answer = ask(text, data);
        assert!(matches!(answer, Answer::Unfit(_)) && !answer.matches(), "{text}: {answer:?}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_let_through() {
    let many = |count| format!("{{\"items\":[{}1]}}", "1,".repeat(count));
    let twice = "data.items.all(a, data.items.all(b, a == b))";
    for (text, data, problem) in [
        ("data.items == 1", format!("[\"{}\"]", "x".repeat(DATA_BYTES_MAX)), "KiB"),
        ("data.x == 1", format!("{}{}", "[".repeat(200), "]".repeat(200)), "cannot be read"),
        ("data.x == 1", "1e999".to_owned(), "cannot be read"),
        (twice, many(5000), "too long"),
        ("data.items.all(a, a in data.items)", many(100_000), "too long"),
    ] {
        let answer = ask(text, &data);
        assert!(matches!(&answer, Answer::NotAsked(reason) if reason.contains(problem)), "{text}: {answer:?}");
        assert!(answer.matches());
    }
    assert_eq!(ask(twice, &many(100)), Answer::Yes);
    // A filter that does not read the data does not depend on it.
    assert_eq!(ask("source == \"shop\"", "1e999"), Answer::Yes);
}

#[test]
fn what_would_grow_without_bound_is_let_through() {
    let sum = |name: &str| vec![name; 30].join(" + ");
    let chain = format!("[source].map(x, {0}).map(x, {0}).map(x, {0}).map(x, {0}).size() > 1", sum("x"));
    let twice = format!("[data.name].map(x, {0}).exists(x, {0} == source)", sum("x"));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 19));
    for (text, data) in [(chain, ORDER), (twice, large.as_str())] {
        let answer = ask(&text, data);
        assert!(matches!(&answer, Answer::NotAsked(reason) if reason.contains("too long")), "{text}: {answer:?}");
    }
    let copies = format!("[{}1]", "1,".repeat(5000));
    let answer = ask("size(data.map(x, data)) > 0", &copies);
    assert!(matches!(&answer, Answer::NotAsked(reason) if reason.contains("too long")), "{answer:?}");
    // Stages without sums do not make the data longer.
    let stages = "data.items.filter(i, i.price > 1).map(i, i.price).exists(p, p > 100)";
    assert_eq!(ask(stages, ORDER), Answer::Yes);
    let many = format!("{{\"items\":[{}]}}", vec!["{\"price\":200}"; 2000].join(","));
    assert_eq!(ask(stages, &many), Answer::Yes);
}

#[test]
fn the_worst_that_is_let_in_takes_a_moment() {
    // As large as the bound on the work allows.
    let data = format!("[{}1]", "1,".repeat(5700));
    let filter = Filter::new("data.all(a, data.exists(b, b > a) || a in data)").unwrap();
    let list = format!("[{}1]", "1,".repeat(315));
    for (filter, data) in [(filter, list), (Filter::new("data.all(a, a in data || a == 1)").unwrap(), data)] {
        let event = Event::sample(&data);
        let begun = Instant::now();
        assert_eq!(filter.ask(&Look::new(&event)).0, Answer::Yes);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?} unoptimised", begun.elapsed());
    }
}

#[test]
fn data_is_taken_apart_at_most_once_and_only_if_it_is_asked_for() {
    let event = Event::sample(ORDER);
    let look = Look::new(&event);
    assert_eq!(Filter::new("type == \"x\"").unwrap().ask(&look).0, Answer::No);
    assert!(!look.has_read_data());
    Filter::new("data.total > 1").unwrap().ask(&look);
    assert!(look.has_read_data());
}

#[test]
fn a_wrong_expression_is_told_with_its_place() {
    for (text, at, problem) in [
        ("data.total >", 12, "Syntax error"),
        ("data.total > 100 && \n data.country = \"DE\"", 35, "Syntax error"),
        (
            "total > 100",
            0,
            "there is no \"total\"; there are type, source, subject, id, time, data, extensions; \
            a field of the event's data is data.total",
        ),
        ("true && dat.total > 100", 8, "there is no \"dat\"; did you mean data?"),
        ("data.name.startswith(\"a\")", 20, "there is no function \"startswith\"; did you mean startsWith?"),
        ("data.name.matches(\"a\")", 17, "there is no function \"matches\"; there are size"),
        ("data.items.exists(i, i.price > limit)", 31, "there is no \"limit\""),
        ("1 + 2", 2, "a filter is true or false"),
        ("\"yes\"", 0, "a filter is true or false"),
        ("Order{total: 1} == 1", 5, "there are no structs"),
        ("data.a.all(a, data.b.all(b, data.c.all(c, true)))", 38, "too many of all"),
        ("", 0, "Syntax error"),
    ] {
        let error = Filter::new(text).unwrap_err();
        assert!(error.problem.contains(problem), "{text}: {error:?}");
        assert_eq!(error.at, at, "{text}: {error:?}");
    }
    assert!(Filter::new(&"x".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().problem.contains("may have 2048"));
}

#[test]
fn deep_expressions_are_refused_and_hurt_nobody() {
    for text in [
        format!("{}true{}", "(".repeat(1000), ")".repeat(1000)),
        format!("{}true{}", "(!".repeat(600), ")".repeat(600)),
        format!("{}1 > 0", "1+".repeat(1000)),
        format!("data{} == 1", ".a".repeat(1000)),
        format!("data{} == 1", "[0]".repeat(600)),
        "[".repeat(2000),
        "data.a ? ".repeat(200),
        "{".repeat(2000),
        "-".repeat(2000),
    ] {
        let error = Filter::new(&text).unwrap_err();
        assert!(error.at <= text.len() && !error.problem.is_empty(), "{error:?}");
    }
    // Expressions that people write are not deep.
    let long = vec!["data.country == \"DE\""; 60].join(" || ");
    assert!(Filter::new(&long).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Tries random text, and random sequences of expression tokens.
    #[test]
    fn any_text_is_a_filter_or_an_error_and_any_filter_answers(
        text in prop_oneof![
            ".{0,40}",
            proptest::collection::vec(
                proptest::sample::select(vec![
                    "data", ".a", ".?a", "type", "[0]", "[?0]", "(", ")", "[", "]", "{", "}", "1", "1u", "1.5", "-", "+", "*", "/",
                    "%", "==", "!=", "<", ">", "&&", "||", "!", "?", ":", ",", "\"x\"", "'y'", "b'z'", "r\"q\"", "has(", "all(", ".all(x, ",
                    ".map(x, ", "x", "null", "true", "in", "size(", "int(", "optional.none()", ".value()", "9223372036854775807", "\u{e9}",
                    "`a`", "\\", "\"\\u", "type(", "dyn(", "bytes(", "string(", "{1: 2, 1: 3}", "{\"a\": ",
                ]),
                0..14,
            ).prop_map(|parts| parts.join(" ")),
        ],
        data in proptest::sample::select(vec![ORDER, "null", "[[1,2],{\"a\":[1]}]", "{\"a\":{\"a\":-9223372036854775808}}", "\"text\""]),
    ) {
        match Filter::new(&text) {
            Ok(filter) => {
                let event = Event::sample(data);
                filter.ask(&Look::new(&event));
            }
            Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{:?}", error),
        }
    }
}
