//! Shell completions and `man` pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::world::built;

fn programs() -> [(PathBuf, &'static str, &'static str); 2] {
    [
        (env!("CARGO_BIN_EXE_notify-host").into(), "notify-host", "notify-host-plugin-list.1"),
        (built("NOTIFY_TEST_BIN", "order-cli"), "order-cli", "order-cli-create.1"),
    ]
}

#[test]
fn each_command_has_its_page() {
    for (program, name, one_of_them) in programs() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("man1");
        let made = Command::new(&program).arg("man").arg(&pages).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        assert!(pages.join(one_of_them).exists());
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains(&format!("{}\\-man", name.replace('-', "\\-"))),
            "{page}"
        );
        let names: Vec<_> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("compile")), "{names:?}");

        let taken = Command::new(&program).args(["man", "/dev/null/x"]).output().unwrap();
        assert_eq!(taken.status.code(), Some(1), "{taken:?}");
        assert!(String::from_utf8_lossy(&taken.stderr).contains("cannot write into /dev/null/x: "), "{taken:?}");
    }
}

#[test]
fn a_shell_completes_commands_and_options() {
    for (program, name, _) in programs() {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let script = Command::new(&program).args(["completions", shell]).output().unwrap();
            assert!(script.status.success() && script.stderr.is_empty(), "{script:?}");
            assert!(String::from_utf8(script.stdout).unwrap().contains(name), "{shell}");
        }
        let (begun, whole) = if name == "notify-host" { ("dea", "dead-letters") } else { ("del", "deliver") };
        assert_eq!(completed(&program, name, &[name, begun]), [whole]);
    }
}

/// Returns bash's completions of the last word.
fn completed(program: &Path, name: &str, words: &[&str]) -> Vec<String> {
    let script = Command::new(program).args(["completions", "bash"]).output().unwrap();
    let function = name.replace('-', "__");
    let ask = format!(
        "{}\nCOMP_WORDS=({}) COMP_CWORD={}\n_{function} {name} {} {}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        String::from_utf8(script.stdout).unwrap(),
        words.join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let bash = Command::new("bash").args(["--norc", "-c", &ask]).stdin(Stdio::null()).output().unwrap();
    assert!(bash.status.success(), "{bash:?}");
    String::from_utf8(bash.stdout).unwrap().lines().map(str::to_owned).collect()
}
