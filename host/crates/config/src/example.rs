//! Generates the commented example file: every key of the host's file, with its meaning and default.

use std::fmt::Write as _;

use crate::key::{Inventory, KeyEntry, Kind};

/// Maximum width of a comment line, in bytes.
const WIDTH: usize = 100;
const HEAD: &str = "The settings of notify-host. Every key may be absent; what stands here behind a # without a blank is its default, or an example where there is none. Flags and variables of the environment (NOTIFY_ and the key in upper case, such as NOTIFY_JOURNAL_AGE_MAX for age-max below [journal]) override this file. `notify-host config check` says what is wrong with it, `notify-host config show` what holds and who says so; keys marked with (reload) take effect by SIGHUP or `notify-host reload`, all others when the host starts. A relative path is meant from this file's folder.";

pub(super) fn of_host(inventory: &Inventory) -> String {
    let mut out = String::new();
    comment(&mut out, HEAD);
    for asked in inventory.within("").filter(|asked| asked.kind.is_value()) {
        entry(&mut out, asked);
    }
    tables(&mut out, inventory, "");
    out
}

fn tables(out: &mut String, inventory: &Inventory, within: &str) {
    for asked in inventory.within(within).filter(|asked| asked.kind == Kind::Table) {
        let path = asked.path();
        let keys: Vec<_> = inventory.within(&format!("{path}.")).cloned().collect();
        out.push('\n');
        comment(out, asked.key.doc);
        if let Some(otherwise) = asked.key.otherwise {
            comment(out, &format!("Without it: {otherwise}"));
        }
        // A table with required keys would be a fault without them, so its heading is commented out, too.
        let is_whole = !within.is_empty() || keys.iter().any(|asked| asked.key.is_required);
        let _ = writeln!(out, "{}[{path}]", if is_whole { "#" } else { "" });
        for asked in &keys {
            if asked.kind.is_value() {
                entry(out, asked);
            }
        }
        tables(out, inventory, &format!("{path}."));
    }
}

fn entry(out: &mut String, asked: &KeyEntry) {
    let key = &asked.key;
    let mut text = key.doc.to_owned();
    if let Some(bounds) = asked.kind.bounds() {
        let _ = write!(text, ". {bounds}");
    }
    if !key.choices.is_empty() && key.choices.len() > 1 {
        let _ = write!(text, ". One of {}", key.choices.join(", "));
    }
    if let Some(otherwise) = key.otherwise {
        let _ = write!(text, ". Without it: {otherwise}");
    }
    if key.is_live {
        text.push_str(" (reload)");
    }
    out.push('\n');
    comment(out, &text);
    let line = |value: &str| format!("{} = {}", key.name, asked.kind.toml(value));
    match (key.default, key.example) {
        // It excludes the key that it is an alternative to, so it stays a comment.
        _ if key.is_instead => comment(out, &format!("Or: {}", line(key.example.unwrap_or_default()))),
        (Some(default), None) => assign(out, &line(default)),
        (Some(default), Some(example)) => {
            comment(out, &format!("Such as {}", line(example)));
            assign(out, &line(default));
        }
        (None, Some(example)) => assign(out, &line(example)),
        (None, None) => {}
    }
}

/// Writes a commented-out line. Removing the `#` enables it.
fn assign(out: &mut String, line: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "#{line}");
}

/// Writes a comment, wrapped at [`WIDTH`].
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// Enables every key of the example.
#[cfg(test)]
pub(super) fn without_comments(example: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::HostConfig;

    #[test]
    fn the_example_is_the_one_in_the_documents() {
        let example = of_host(&HostConfig::keys());
        if std::env::var_os("NOTIFY_TEST_WRITE").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/notify-host.toml"), &example).unwrap();
        }
        let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/notify-host.toml"));
        assert_eq!(document.unwrap(), example, "write it anew: NOTIFY_TEST_WRITE=1 cargo test -p config example");
    }

    #[test]
    fn the_example_changes_nothing_and_without_its_comments_has_every_key() {
        let file = Path::new("notify-host.toml");
        let keys = HostConfig::keys();
        let example = of_host(&keys);
        let default = format!("{:?}", HostConfig::default());
        assert_eq!(format!("{:?}", HostConfig::parse(file, &example).unwrap()), default);

        let read = HostConfig::read_under(&[], file, &without_comments(&example));
        assert_eq!(String::from(read.problems), "");
        for known in keys.values().filter(|known| !known.key.is_instead) {
            assert!(read.asked.get(&known.path()).is_some_and(|asked| asked.written.is_some()), "{}", known.path());
        }
        for known in &keys.0 {
            assert!(
                example.contains(&format!("{} =", known.key.name)) || !known.kind.is_value() || known.within == "rate.",
                "{}",
                known.path()
            );
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_code() {
        let keys = HostConfig::keys();
        let defaults: Vec<_> = keys.values().filter(|asked| asked.key.default.is_some()).collect();
        // The keys of mail need a relay beside them.
        let of_mail = |asked: &&KeyEntry| asked.within.starts_with("mail.");
        let lines: String = defaults.iter().filter(|asked| !of_mail(asked)).map(|asked| line(asked)).collect();
        let file = Path::new("notify-host.toml");
        let config = HostConfig::parse(file, &lines).unwrap();
        // Without a log format, the one for people applies.
        let config = HostConfig { log_format: None, ..config };
        assert_eq!(format!("{config:?}"), format!("{:?}", HostConfig::default()));
        let needed = "mail.relay = \"smtp://a.example\"\nmail.from = \"a@example.com\"\n";
        let lines: String = defaults.iter().filter(|asked| of_mail(asked)).map(|asked| line(asked)).collect();
        let mail = |text: &str| HostConfig::parse(file, text).unwrap().mail.unwrap();
        assert_eq!(mail(&format!("{needed}{lines}")), mail(needed));
    }

    fn line(asked: &KeyEntry) -> String {
        format!("{} = {}\n", asked.path(), asked.kind.toml(asked.key.default.unwrap()))
    }
}
