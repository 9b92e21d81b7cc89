//! Tests the messages about broken files against the table in `broken.txt`.

use std::fmt::Write as _;
use std::path::Path;

use crate::{HostConfig, PluginConfig, Policies};

const TABLE: &str = include_str!("broken.txt");

#[test]
fn every_fault_is_told_as_the_table_has_it() {
    let (head, cases) = TABLE.split_once("\n==== ").unwrap();
    let cases: Vec<_> = cases.split("\n==== ").collect();
    assert!(cases.len() >= 40, "{}", cases.len());
    let mut told = head.to_owned();
    for case in cases {
        let (title, rest) = case.split_once('\n').unwrap();
        let (text, _) = rest.split_once("----\n").unwrap();
        let problem = match title.split_once(": ").unwrap().0 {
            "host" => HostConfig::parse(Path::new("notify-host.toml"), text).map(drop),
            "plugin" => {
                let policies = Policies::default();
                PluginConfig::of_text(Path::new("plugins/email.toml"), Some(text), &policies).map(drop)
            }
            other => panic!("there is no kind {other:?} of files"),
        };
        let problem = problem.expect_err(title);
        assert!(!problem.contains("hunter2"), "{problem}");
        write!(told, "\n==== {title}\n{text}----\n{problem}\n").unwrap();
    }
    if std::env::var_os("NOTIFY_TEST_WRITE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/broken.txt"), &told).unwrap();
    } else {
        assert_eq!(told, TABLE);
    }
}
