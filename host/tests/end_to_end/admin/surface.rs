//! Events, explanations and dead letters over HTTP: the same results as the commands give.

use std::fs;

use broker::{Message, Target};
use serde_json::{Value, json};
use testbed::{eventually, eventually_some};

use crate::admin::await_readiness;
use crate::admin::client::Client;
use crate::on_both_engines;
use crate::world::{SOON, World};

/// Parses a command's output, one JSON object per line.
fn printed(output: &std::process::Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(admin: &Client, query: &str) -> Vec<Value> {
    admin.json(&format!("/api/v1/events?{query}"))["events"].as_array().unwrap().clone()
}

fn letters(admin: &Client, query: &str) -> Vec<Value> {
    admin.json(&format!("/api/v1/dead-letters?{query}"))["letters"].as_array().unwrap().clone()
}

on_both_engines! {
    fn what_became_of_events_is_told_as_the_commands_tell_it(world: &World) {
        world.plug_logger();
        world.plug_misbehaver("reject");
        let (host, admin) = world.host_with_admin(&[]);
        await_readiness(&admin, None);
        let mut stream = admin.stream("/api/v1/events/stream?plugin=logger");
        let order = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        let (name, event) = stream.next().expect("an event");
        assert_eq!((name.as_str(), &event["plugin"], &event["outcome"], &event["subject"]), ("event", &"logger".into(), &"done".into(), &json!(order)), "{event}");
        let id = event["id"].as_str().unwrap();
        let told = eventually_some(SOON, "both attempts are in the journal", || Some(events(&admin, "limit=10")).filter(|told| told.len() == 2));
        let command = world.journal_command(&["events", "--json"]);
        let mut shown = printed(&command);
        shown.reverse();
        assert_eq!(told, shown);
        for (query, count) in [
            ("plugin=logger".to_owned(), 1),
            ("outcome=dead-letter".to_owned(), 1),
            ("outcome=done,reject".to_owned(), 2),
            ("outcome=retry".to_owned(), 0),
            (format!("id={id}"), 2),
            (format!("subject={order}&plugin=misbehaver-reject"), 1),
            ("subject=none".to_owned(), 0),
            ("since=1h&limit=1".to_owned(), 1),
            ("until=1h".to_owned(), 0),
        ] {
            assert_eq!(events(&admin, &query).len(), count, "{query}");
        }
        let wrong = admin.get("/api/v1/events?outcome=good");
        assert!(wrong.status == 400 && wrong.error().contains("no outcome \"good\""), "{wrong:?}");
        assert_eq!(admin.get("/api/v1/events?wrong=1").status, 400);

        let explained = admin.json(&format!("/api/v1/explain?id={id}"));
        assert_eq!(explained["events"].as_array().unwrap(), &printed(&world.journal_command(&["explain", "--json", id])));
        assert_eq!(admin.json(&format!("/api/v1/explain?subject={order}")), explained);
        let unknown = admin.get("/api/v1/explain?id=none");
        assert!(unknown.status == 404 && unknown.error().contains("knows nothing of event none"), "{unknown:?}");
        assert_eq!(admin.get("/api/v1/explain").status, 400);

        let document = admin.json("/api/v1/openapi.json");
        for (path, schema) in [
            ("/healthz", "Health"),
            ("/readyz", "Readiness"),
            ("/api/v1/host", "Host"),
            ("/api/v1/stats", "Samples"),
            ("/api/v1/plugins", "Plugins"),
            ("/api/v1/events", "Events"),
            (&format!("/api/v1/explain?id={id}"), "Explanation"),
            ("/api/v1/dead-letters", "DeadLetters"),
            (&format!("/api/v1/dead-letters/{id}"), "WholeDeadLetter"),
        ] {
            check_by_document(&document, schema, &admin.json(path));
        }
        check_by_document(&document, "Error", &unknown.json());
        host.stop();
        while stream.next().is_some() {}
    }

    fn dead_letters_are_shown_replayed_edited_and_deleted(world: &World) {
        world.plug_misbehaver("reject");
        let (host, admin) = world.host_with_admin(&[]);
        await_readiness(&admin, None);
        assert_eq!(admin.json("/api/v1/dead-letters"), json!({ "total": 0, "letters": [] }));
        for _ in 0..3 {
            world.order(&["create", "--user", "u", "--product", "p"]);
        }
        let broker = world.broker();
        world.block_on(broker.publish(Target::Queue(&world.queue), &Message::json(vec![0xff, 0]))).unwrap();
        let all = eventually_some(SOON, "four letters", || Some(letters(&admin, "")).filter(|all| all.len() == 4));
        let mut shown = printed(&world.host_command(&["dead-letters", "list", "--json"]).output().unwrap());
        shown.reverse();
        assert_eq!(all, shown, "the last one first");
        assert_eq!(admin.json("/api/v1/dead-letters?plugin=misbehaver-reject&limit=1")["total"], 3);
        assert_eq!(letters(&admin, "reason=told%20to&limit=1").len(), 1);

        let undecodable = all.iter().find(|letter| letter["plugin"].is_null()).unwrap();
        let path = |letter: &Value| format!("/api/v1/dead-letters/{}", letter["id"].as_str().unwrap());
        assert_eq!(admin.json(&path(undecodable))["body_base64"], "/wA=");
        let refused = admin.post(&format!("{}/replay", path(undecodable)), "");
        assert!(refused.status == 422 && refused.error().contains("[decode]"), "{refused:?}");
        assert_eq!(admin.ask("DELETE", &path(undecodable), &[("x-notify-request", "1")], "").status, 200);
        assert_eq!(admin.get(&path(undecodable)).status, 404);

        let first = all.iter().find(|letter| letter["plugin"] == "misbehaver-reject").unwrap();
        let whole = admin.json(&path(first));
        assert!(whole["body"].as_str().unwrap().contains("OrderCreated") && whole["reason"] == "told to reject", "{whole}");
        assert_eq!(admin.post(&format!("{}/replay", path(first)), "{}").status, 200);
        let replayed = eventually_some(SOON, "it dies again, in its second round", || {
            letters(&admin, "").into_iter().find(|letter| letter["round"] == 2)
        });
        assert_eq!(replayed["event_id"], first["event_id"]);
        let replay = format!("{}/replay", path(&replayed));
        let wrong = admin.post(&replay, r#"{"body":"{no json"}"#);
        assert!(wrong.status == 422 && wrong.error().contains("no JSON"), "{wrong:?}");
        let edited = json!({ "body": r#"{"event":"OrderCreated","order_id":"edited"}"# }).to_string();
        assert_eq!(admin.post(&replay, &edited).status, 200);
        eventually(SOON, "the event in its place dies, too", || {
            letters(&admin, "").iter().any(|letter| letter["replaces"] == first["event_id"] && letter["id"] != replayed["id"])
        });
        assert_eq!(letters(&admin, "").len(), 3);

        for (body, status) in [("{}", 400), ("", 400), (r#"{"all":true,"plugin":"a"}"#, 400), (r#"{"plugni":"a"}"#, 400)] {
            assert_eq!(admin.post("/api/v1/dead-letters/purge", body).status, status, "{body}");
        }
        fs::remove_file(world.plugins().join("misbehaver-reject.wasm")).unwrap();
        await_readiness(&admin, Some("no plugin of "));
        assert_eq!(admin.post("/api/v1/dead-letters/replay", r#"{"reason":"nothing like it"}"#).json()["count"], 0);
        let one = admin.post("/api/v1/dead-letters/replay", &json!({ "reason": "told-to", "plugin": "misbehaver-reject" }).to_string());
        assert_eq!((one.status, &one.json()["count"]), (200, &json!(3)), "{one:?}");
        assert_eq!(world.queue_state(&broker, &world.names().plugin("misbehaver-reject")).ready, 3);
        world.plug_misbehaver("reject");
        eventually(SOON, "they die again", || letters(&admin, "").len() == 3);
        let purged = admin.post("/api/v1/dead-letters/purge", r#"{"all":true}"#);
        assert_eq!(purged.json()["count"], 3, "{purged:?}");
        eventually(SOON, "nothing is left", || world.queue_state(&broker, &world.names().dead()).ready == 0);
        assert_eq!(admin.post("/api/v1/dead-letters/purge", r#"{"all":true}"#).json()["count"], 0);
        host.stop();
    }
}

fn check_by_document(document: &Value, schema: &str, answer: &Value) {
    let root = json!({ "$ref": format!("#/components/schemas/{schema}"), "components": document["components"] });
    let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&root).unwrap();
    let problems: Vec<_> =
        validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{schema}: {problems:?} in {answer}");
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let world = World::on_sqlite();
    world.plug_logger();
    let (host, admin) = world.host_with_admin(&[]);
    let answer = admin.post("/api/v1/dead-letters/purge", &" ".repeat((1 << 20) + 1));
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(!answer.error().is_empty());
    host.stop();
}
