//! Plugins compiled against earlier versions of the contract load and run for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testbed::eventually;

use crate::world::{SOON, World};

/// Returns every archived plugin with the name that it gets here.
fn kept() -> Vec<(String, std::path::PathBuf)> {
    let versions = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract")).unwrap();
    let versions = versions.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = versions.flat_map(|version| fs::read_dir(version).unwrap().map(|entry| entry.unwrap().path()));
    let plugins = files.filter(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    let name = |file: &Path| {
        let version = file.parent().and_then(Path::file_name).unwrap().to_string_lossy().replace('.', "-");
        format!("{}-{version}", file.file_stem().unwrap().to_string_lossy())
    };
    plugins.map(|file| (name(&file), file)).collect()
}

#[test]
fn plugins_of_every_earlier_contract_load_and_run() {
    let world = World::on_sqlite();
    let kept = kept();
    assert!(kept.len() >= 3, "{kept:?}");
    for (name, file) in &kept {
        world.plug(name, file, "[retry]\nattempts = 2\npause-min = \"1s\"\n[config]\nkey = \"value\"\n");
    }
    let host = world.host();
    let events = world.path("events.jsonl");
    let line = |kind: &str| {
        format!("{{\"type\":\"contract.{kind}\",\"id\":\"{kind}\",\"order_id\":\"4711\",\"text\":\"é\"}}\n")
    };
    let kinds = ["done", "skipped", "retry", "reject"];
    fs::write(&events, kinds.map(line).concat()).unwrap();
    let sent = world.order_cli(&["send", events.to_str().unwrap()]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));

    let broker = world.broker();
    let rust: Vec<_> = kept.iter().map(|(name, _)| name).filter(|name| name.starts_with("rust")).collect();
    // Each of these leaves one rejected letter and one whose attempts are used up.
    let letters = world.dead_letters(&broker, rust.len() * 2);
    let header = |letter: &broker::Delivery, name: &str| letter.message.properties.headers[name].to_text().unwrap();
    let found: BTreeSet<_> = letters
        .iter()
        .map(|letter| {
            [header(letter, "x-notify-plugin"), header(letter, "x-notify-event-id"), header(letter, "x-notify-code")]
        })
        .collect();
    let expected = |name: &String| {
        [("retry", "retry"), ("reject", "told-to")].map(|(id, code)| [name.clone(), id.to_owned(), code.to_owned()])
    };
    assert_eq!(found, rust.iter().copied().flat_map(expected).collect());
    eventually(SOON, "all messages are acknowledged", || world.queue_state(&broker, &world.queue).ready == 0);
    host.stop();

    for (name, _) in &kept {
        let said: Vec<_> = host.said(name).into_iter().map(|(_, line)| line).collect();
        if !rust.contains(&name) {
            assert_eq!(said, ["assembled by hand"; 4]);
            continue;
        }
        for kind in kinds {
            let whole = |line: &&String| {
                line.starts_with(&format!("{kind} contract.{kind} Some(\"4711\") "))
                    && line.contains("\"text\":\"é\"} [] attempt 1 of 2, 10000 ms, keys false false")
                    && line.ends_with("denied true true true, config {\"key\":\"value\"}")
            };
            assert_eq!(said.iter().filter(whole).count(), 1, "{name}: {said:#?}");
        }
        assert!(said.iter().any(|line| line == "Level::Info"), "{said:#?}");
    }
}
