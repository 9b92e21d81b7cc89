//! Project templates, one for each language. Files that all languages share are beside the language folders.

use anyhow::Context as _;
use clap::ValueEnum;
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

/// The contract of this host. Each project gets a copy, so that it builds without this repository.
const CONTRACT: &str = include_str!("../../../../wit/plugin.wit");
const WORLD: &str = "plugin";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Rust, by cargo
    Rust,
    /// JavaScript, on QuickJS or on the larger StarlingMonkey
    Js,
    /// Python
    Python,
    /// C, by Zig's compiler or wasi-sdk
    C,
}

/// A project file: its relative path and its content.
pub(crate) type File = (String, Vec<u8>);

/// A template file: its path in the project and its text.
type TemplateFile = (&'static str, &'static str);

const COMMON: [TemplateFile; 3] = [
    ("event.json", include_str!("templates/event.json")),
    ("{{name}}.toml", include_str!("templates/plugin.toml")),
    ("wit/plugin.wit", CONTRACT),
];
const README: &str = include_str!("templates/README.md");

impl Language {
    /// Generates the project of this name, with its README.
    pub(crate) fn project(self, name: &str) -> anyhow::Result<Vec<File>> {
        let wasm = self.wasm(name);
        let filled = |text: &str| text.replace("{{name}}", name).replace("{{wasm}}", &wasm);
        let sources = COMMON.iter().chain(self.sources());
        let mut files: Vec<File> = sources.map(|(path, text)| (filled(path), filled(text).into_bytes())).collect();
        files.push(("README.md".to_owned(), filled(&self.readme()).into_bytes()));
        match self {
            // The SDK that this repository's own plugins use.
            Self::Rust => {
                let sdk = include_str!("../../../../plugins/sdk/src/lib.rs")
                    .replace("path: \"../../wit\"", "path: \"../wit\"");
                files.push(("notify-plugin/src/lib.rs".to_owned(), sdk.into_bytes()));
            }
            Self::C => files.extend(c_bindings()?),
            Self::Js | Self::Python => {}
        }
        Ok(files)
    }

    /// Returns where the build puts the plugin.
    fn wasm(self, name: &str) -> String {
        match self {
            Self::Rust => format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_")),
            Self::Js | Self::Python | Self::C => format!("{name}.wasm"),
        }
    }

    fn sources(self) -> &'static [TemplateFile] {
        match self {
            Self::Rust => &[
                (".gitignore", include_str!("templates/rust/gitignore")),
                ("Cargo.toml", include_str!("templates/rust/manifest.toml")),
                ("src/lib.rs", include_str!("templates/rust/lib.rs")),
                ("notify-plugin/Cargo.toml", include_str!("templates/rust/sdk-manifest.toml")),
                ("notify-plugin/src/clock.rs", include_str!("../../../../plugins/sdk/src/clock.rs")),
                ("notify-plugin/src/http/mod.rs", include_str!("../../../../plugins/sdk/src/http/mod.rs")),
                (
                    "notify-plugin/src/http/retry_after.rs",
                    include_str!("../../../../plugins/sdk/src/http/retry_after.rs"),
                ),
                ("notify-plugin/src/http/status.rs", include_str!("../../../../plugins/sdk/src/http/status.rs")),
                ("notify-plugin/src/info.rs", include_str!("../../../../plugins/sdk/src/info.rs")),
                ("notify-plugin/src/logging.rs", include_str!("../../../../plugins/sdk/src/logging.rs")),
                ("notify-plugin/src/mail.rs", include_str!("../../../../plugins/sdk/src/mail.rs")),
                ("notify-plugin/src/template/json.rs", include_str!("../../../../plugins/sdk/src/template/json.rs")),
                ("notify-plugin/src/template/mod.rs", include_str!("../../../../plugins/sdk/src/template/mod.rs")),
                ("notify-plugin/src/testing.rs", include_str!("../../../../plugins/sdk/src/testing.rs")),
                ("notify-plugin/src/text.rs", include_str!("../../../../plugins/sdk/src/text.rs")),
            ],
            Self::Js => &[
                (".gitignore", include_str!("templates/js/gitignore")),
                ("package.json", include_str!("templates/js/package.json")),
                ("plugin.js", include_str!("templates/js/plugin.js")),
                ("message.js", include_str!("templates/js/message.js")),
                ("message.test.js", include_str!("templates/js/message.test.js")),
            ],
            Self::Python => &[
                (".gitignore", include_str!("templates/python/gitignore")),
                ("requirements.txt", include_str!("templates/python/requirements.txt")),
                ("app.py", include_str!("templates/python/app.py")),
                ("message.py", include_str!("templates/python/message.py")),
                ("test_message.py", include_str!("templates/python/test_message.py")),
            ],
            Self::C => &[
                (".gitignore", include_str!("templates/c/gitignore")),
                ("Makefile", include_str!("templates/c/Makefile")),
                ("requirements.txt", include_str!("templates/c/requirements.txt")),
                ("main.c", include_str!("templates/c/main.c")),
                ("message.c", include_str!("templates/c/message.c")),
                ("message.h", include_str!("templates/c/message.h")),
                ("message_test.c", include_str!("templates/c/message_test.c")),
            ],
        }
    }

    fn readme(self) -> String {
        let (title, source, own) = match self {
            Self::Rust => ("Rust", "src/lib.rs", include_str!("templates/rust/README.md")),
            Self::Js => ("JavaScript", "plugin.js", include_str!("templates/js/README.md")),
            Self::Python => ("Python", "app.py", include_str!("templates/python/README.md")),
            Self::C => ("C", "main.c", include_str!("templates/c/README.md")),
        };
        // The first part is about building, the second has the rows of the table of files.
        let (building, files) = own.split_once("---\n").unwrap_or((own, ""));
        README
            .replace("{{language}}", title)
            .replace("{{source}}", source)
            .replace("{{building}}", building.trim_end())
            .replace("{{files}}", files)
    }

    /// Returns the commands that install the tools and build the project.
    pub(crate) fn steps(self) -> &'static str {
        match self {
            Self::Rust => "rustup target add wasm32-wasip2 && cargo build --target wasm32-wasip2 --release",
            Self::Js => "npm install && npm run build",
            Self::Python => {
                "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt, then as README.md says"
            }
            Self::C => "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && make",
        }
    }
}

/// Generates the C bindings. The project includes them, because few C developers have a bindings generator.
fn c_bindings() -> anyhow::Result<Vec<File>> {
    let generate = || {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("plugin.wit", CONTRACT)?;
        let world = resolve.select_world(&[package], Some(WORLD))?;
        let mut files = Files::default();
        wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
        anyhow::Ok(files)
    };
    let files = generate().context("cannot make C bindings of the contract")?;
    Ok(files.iter().map(|(name, content)| (format!("bindings/{name}"), content.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn texts(language: Language) -> Vec<(String, String)> {
        let files = language.project("order-thanks").unwrap();
        files.into_iter().map(|(path, content)| (path, String::from_utf8_lossy(&content).into_owned())).collect()
    }

    #[test]
    fn a_project_has_its_name_everywhere_and_each_file_once() {
        for language in Language::value_variants() {
            let files = texts(*language);
            let paths: BTreeSet<_> = files.iter().map(|(path, _)| path).collect();
            assert_eq!(paths.len(), files.len(), "{language:?}");
            for (path, text) in &files {
                assert!(!path.contains("{{") && !text.contains("{{name}}"), "{language:?}: {path}");
            }
            for wanted in ["README.md", ".gitignore", "order-thanks.toml", "event.json", "wit/plugin.wit"] {
                assert!(paths.contains(&wanted.to_owned()), "{language:?}: {wanted}");
            }
            let readme = &files.iter().find(|(path, _)| path == "README.md").unwrap().1;
            for placeholder in ["{{language}}", "{{building}}", "{{files}}", "{{wasm}}", "{{source}}"] {
                assert!(!readme.contains(placeholder), "{language:?}: {placeholder}");
            }
        }
    }

    #[test]
    fn the_readme_tells_of_every_file_of_the_authors() {
        for language in Language::value_variants() {
            let files = texts(*language);
            let readme = files.iter().find(|(path, _)| path == "README.md").unwrap().1.clone();
            let told = ["main.c", "plugin.js", "app.py", "src/lib.rs"];
            for (path, _) in files.iter().filter(|(path, _)| told.contains(&path.as_str())) {
                assert!(readme.contains(&format!("| `{path}` |")), "{language:?}: {path}");
            }
        }
    }

    #[test]
    fn the_sdk_in_a_project_finds_the_contract_there() {
        let files = texts(Language::Rust);
        let sdk = files.iter().find(|(path, _)| path == "notify-plugin/src/lib.rs").unwrap();
        assert!(sdk.1.contains("path: \"../wit\""));
    }

    #[test]
    fn a_project_in_rust_wants_what_the_sdk_wants() {
        let files = texts(Language::Rust);
        let manifest = files.iter().find(|(path, _)| path == "notify-plugin/Cargo.toml").unwrap().1.clone();
        let read = |text: &str| text.parse::<toml::Table>().unwrap()["dependencies"].as_table().unwrap().clone();
        let own = read(include_str!("../../../../plugins/sdk/Cargo.toml"));
        assert_eq!(read(&manifest).keys().collect::<Vec<_>>(), own.keys().collect::<Vec<_>>());
        let workspace: toml::Table = include_str!("../../../../Cargo.toml").parse().unwrap();
        assert_eq!(read(&manifest)["wit-bindgen"], workspace["workspace"]["dependencies"]["wit-bindgen"]);
    }
}
