//! docs/writing-a-plugin.md is true: every command in it works, and the log lines that it shows appear.
//!
//! Commands that install tools are replaced by those that `cargo xtask test` has installed, in the same versions.

use std::fs;
use std::process::Command;
use std::time::Duration;

use testbed::ChildGuard;
use testbed::languages::Language;

use crate::languages::tools;
use crate::world::built;

const DOCUMENT: &str = include_str!("../../../docs/writing-a-plugin.md");
/// Time limit of a script. It builds with a language's tools, on two cores that other tests use as well.
const RUN: Duration = Duration::from_mins(8);
/// Seconds to wait for a log line. Loading compiles all of Python.
const LOG_SECONDS: u32 = 240;

/// Headings of the sections before and after the one on a language.
const BEFORE: &str = "A host to try it with";
const AFTER: &str = "An event";
const LANGUAGES: [(&str, Language); 4] =
    [("Rust", Language::Rust), ("JavaScript", Language::JavaScript), ("Python", Language::Python), ("C", Language::C)];

/// A fenced block: the text after the fence, and its content.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    kind: String,
    text: String,
}

/// Returns the blocks of the section with this heading.
fn blocks(document: &str, heading: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut within = false;
    for line in document.lines() {
        if let Some(fence) = line.strip_prefix("```") {
            match open.take() {
                Some(block) if within => blocks.push(block),
                Some(_) => {}
                None => open = Some(Block { kind: fence.to_owned(), text: String::new() }),
            }
        } else if let Some(block) = &mut open {
            block.text.push_str(line);
            block.text.push('\n');
        } else if let Some(title) = line.strip_prefix("## ") {
            within = title == heading;
        }
    }
    blocks
}

fn headings(document: &str) -> impl Iterator<Item = &str> {
    document.lines().filter_map(|line| line.strip_prefix("## "))
}

/// Returns the shell script for a block.
fn script_of(block: &Block) -> String {
    match &*block.kind {
        "sh" => block.text.clone(),
        "sh install" => block.text.lines().map(in_place_of).collect(),
        "log" => {
            let quoted = |line: &str| format!("logged '{}'\n", line.replace('\'', "'\\''"));
            block.text.lines().map(quoted).collect()
        }
        other => panic!("nobody knows what to do with a block of the kind {other:?}"),
    }
}

/// Returns the replacement of a command that installs something. It provides the result and checks it.
fn in_place_of(command: &str) -> String {
    let link = |name: &str| {
        let (_, target) = tools().installed().into_iter().find(|(link, _)| *link == name).unwrap();
        fs::create_dir_all(&target).unwrap();
        format!("ln -s {} {name}\n", target.display())
    };
    match command {
        // The dependencies are built once for all tests.
        "rustup target add wasm32-wasip2" => {
            link("target") + "ls \"$(rustc --print target-libdir --target wasm32-wasip2)\" | grep --quiet libstd\n"
        }
        // Fails if the version is not the one that package.json requires.
        "npm install" => link("node_modules") + "npm ls componentize-qjs\n",
        "python3 -m venv .venv" => link(".venv"),
        // Fails unless everything is already there.
        ".venv/bin/pip install -r requirements.txt" => format!("{command} --no-index\n"),
        other => panic!("nobody knows what stands for {other:?}: say so here"),
    }
}

/// Runs the document's part on one language, from an empty folder to an event that reaches the plugin.
fn check(heading: &str) {
    let folder = tempfile::tempdir().unwrap();
    let parts = [BEFORE, heading, AFTER].map(|part| blocks(DOCUMENT, part));
    assert!(parts.iter().all(|blocks| !blocks.is_empty()), "the document has no commands on {heading}");
    let mut script = format!(
        "set -eu\nexec > {log} 2>&1\n\
         logged() {{ for _ in $(seq {LOG_SECONDS}); do grep --quiet --fixed-strings -- \"$1\" {log} && return; sleep 1; done; \
         echo \"the log never says: $1\"; exit 1; }}\n",
        log = folder.path().join("terminal.log").display()
    );
    script.extend(parts.iter().flatten().map(script_of));
    let mut bash = Command::new("bash");
    bash.current_dir(folder.path()).args(["-c", &script]);
    let bin = built("NOTIFY_TEST_BIN", "order-cli");
    let host = std::path::Path::new(env!("CARGO_BIN_EXE_notify-host"));
    let path = std::env::var("PATH").unwrap_or_default();
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NOTIFY_")) {
        bash.env_remove(name);
    }
    let folders = [host, &*bin].map(|program| program.parent().unwrap().display().to_string());
    bash.env("PATH", format!("{}:{path}", folders.join(":"))).env("NOTIFY_STATE", folder.path().join("state"));
    let (set, unset) = tools().environment();
    bash.envs(set);
    for variable in unset {
        bash.env_remove(variable);
    }
    let shell = ChildGuard::spawn(bash);
    let status = shell.wait_timeout(RUN);
    let terminal = || fs::read_to_string(folder.path().join("terminal.log")).unwrap_or_default();
    assert!(status.is_some_and(|status| status.success()), "{heading}: {status:?}: {}\n{}", shell.stderr(), terminal());
}

#[test]
fn from_nothing_to_a_plugin_in_rust() {
    check("Rust");
}

#[test]
fn from_nothing_to_a_plugin_in_javascript() {
    check("JavaScript");
}

#[test]
fn from_nothing_to_a_plugin_in_python() {
    check("Python");
}

#[test]
fn from_nothing_to_a_plugin_in_c() {
    check("C");
}

#[test]
fn no_command_in_the_document_stands_where_no_test_runs_it() {
    let run: Vec<_> = LANGUAGES.iter().map(|(heading, _)| *heading).chain([BEFORE, AFTER]).collect();
    for heading in headings(DOCUMENT).filter(|heading| !run.contains(heading)) {
        assert_eq!(blocks(DOCUMENT, heading), [], "{heading}");
    }
    let all = DOCUMENT.lines().filter(|line| line.starts_with("```")).count() / 2;
    assert_eq!(run.iter().map(|heading| blocks(DOCUMENT, heading).len()).sum::<usize>(), all);
}

/// The READMEs' commands equal the document's, so they are covered too.
#[test]
fn the_commands_in_a_projects_readme_are_the_documents() {
    let folder = tempfile::tempdir().unwrap();
    for (heading, language) in LANGUAGES {
        let project = folder.path().join(language.option());
        let mut new = Command::new(env!("CARGO_BIN_EXE_notify-host"));
        new.args(["plugin", "new", "hello", "--lang", language.option(), "--dir"]).arg(&project);
        assert!(new.output().unwrap().status.success());
        let readme = fs::read_to_string(project.join("README.md")).unwrap().replace("/path/to/plugins", "../plugins");
        let documented: String = blocks(DOCUMENT, heading).into_iter().map(|block| block.text).collect();
        let commands: Vec<_> = headings(&readme).flat_map(|heading| blocks(&readme, heading)).collect();
        assert!(commands.len() >= 4, "{heading}: {commands:?}");
        for line in commands.iter().flat_map(|block| block.text.lines()) {
            assert!(documented.lines().any(|documented| documented == line), "{heading}: {line}");
        }
    }
}
